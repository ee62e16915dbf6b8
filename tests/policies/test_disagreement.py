"""Whether demonstrators disagree: where the truth is known, and what the question is made of."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from everymode import plots
from everymode.errors import DataError
from everymode.policies import Demonstrations
from everymode.policies.disagreement import _done, _seen, _spread, disagreement

EPISODES, STEPS, CHOICE = 120, 12, 4


def driven(*, ways: tuple[int, ...], seed: int = 0) -> Demonstrations:
    """Drive up past an obstacle: straight on to the choice, then to a side of `ways`; each driver has a speed."""
    rng = np.random.default_rng(seed)
    side, speed = rng.choice(ways, EPISODES)[:, None], rng.normal(1, 0.1, (EPISODES, 1))
    sideways = np.where(np.arange(STEPS) < CHOICE, 0.0, 1.0) * side + 0.1 * rng.normal(size=(EPISODES, STEPS))
    actions = np.stack([sideways, speed + 0.1 * rng.normal(size=(EPISODES, STEPS))], axis=-1)
    places = np.cumsum(actions, axis=1) - actions + rng.normal(0, 0.2, (EPISODES, 1, 2))
    return Demonstrations(
        {"state": places.reshape(-1, 2)}, actions.reshape(-1, 2), STEPS * np.arange(1, EPISODES + 1), source="drives"
    )


def test_two_ways_are_found_before_the_choice_and_not_after_it():
    demonstrations = driven(ways=(-1, 1))
    found = disagreement(demonstrations, prediction_horizon=4)
    assert found.diagnosis.verdict == "several answers"
    assert found.sentence.startswith("The demonstrators disagree at ")
    open_ = (found.steps > CHOICE - 4) & (found.steps <= CHOICE)
    gone = found.steps > CHOICE + 2
    assert found.several_answers[open_].mean() > 0.8
    assert found.several_answers[gone].mean() < 0.1
    rows = demonstrations.starts[found.episodes] + found.steps
    np.testing.assert_array_equal(found.places, demonstrations.observations["state"][rows])
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(told["where"]) == found.several_answers.sum()
    assert "disagreement" in plots.kinds_for(found)
    shown = plots.draw("disagreement", found).axes[0].collections
    assert [len(points.get_offsets()) for points in shown] == [(~found.several_answers).sum(), len(told["where"])]


def test_one_way_with_habits_of_each_driver_is_no_disagreement():
    found = disagreement(driven(ways=(1,)), prediction_horizon=4)
    assert found.diagnosis.verdict == "not enough data"  # 120 episodes, however many steps
    assert found.diagnosis.p_value > 0.05
    assert not found.several_answers.any()
    assert "cannot be told" in found.sentence


class Told:
    """A diagnosis of what it was asked: several answers before the choice."""

    verdict, share, p_value = "several answers", 0.25, 1e-9

    def __init__(self, X, Y, *, groups, **settings) -> None:
        self.X, self.Y, self.groups = X, Y, groups
        self.several = np.abs(X["state 0"].to_numpy()) < 1

    def to_dict(self):
        return {"verdict": self.verdict}


def test_steps_of_an_episode_are_a_group_and_what_is_found_is_told_by_state(monkeypatch):
    monkeypatch.setattr("everymode.policies.disagreement.diagnose", Told)
    made = driven(ways=(-1, 1))
    found = disagreement(made, prediction_horizon=4)
    rows = made.starts[found.episodes] + found.steps
    assert (found.diagnosis.groups == found.episodes).all()
    assert len(np.unique(found.episodes)) == EPISODES
    np.testing.assert_array_equal(found.diagnosis.X[["state 0", "state 1"]], made.observations["state"][rows])
    np.testing.assert_array_equal(found.places, made.observations["state"][rows])
    assert found.sentence.startswith(f"The demonstrators disagree at 25% of {len(rows):,} states of 120 episodes")
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    again = [made.starts[place["episode"]] + place["step"] for place in told["where"]]
    assert (np.abs(made.observations["state"][again, 0]) < 1).all()
    assert len(again) == found.several_answers.sum() < len(rows)
    shown = plots.draw("disagreement", found).axes[0].collections
    assert [len(points.get_offsets()) for points in shown] == [len(rows) - len(again), len(again)]


def test_states_are_spread_evenly_and_look_ahead_within_their_episode():
    lengths = np.array([3, 40, 41, 200, 8])
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(20):
        episodes, steps = _spread(lengths, 8, 50, rng)
        counts = np.bincount(episodes, minlength=5)
        assert (counts >= 1).all()
        assert (counts <= 10).all()
        for episode in range(5):
            mine = steps[episodes == episode]
            assert len(np.unique(np.diff(mine))) <= 1
            assert ((mine + 8 <= lengths[episode]) | (lengths[episode] < 8)).all()
        starts.add(int(steps[episodes == 1][0]))
    assert len(starts) == 4  # 33 steps in ten
    assert len(np.unique(_spread(np.full(300, 20), 8, 50, rng)[0])) == 50


def test_an_angle_turns_past_its_end_and_changes_by_little():
    turn = np.array([6.2, 0.1, 0.2, 3.0])  # over 2 pi
    made = Demonstrations(
        {"state": np.stack([np.arange(4.0), turn], axis=1)}, np.zeros((4, 1)), np.array([3, 4]), angles={"state": (1,)}
    )
    rows, steps = np.arange(4), np.array([0, 1, 2, 0])
    seen = _seen(made, ["state"], rows, steps, 3)
    assert seen["change of state 1"].tolist() == pytest.approx([0, 0.1 + 2 * np.pi - 6.2, 0.1, 0])
    assert seen["change of state 0 in 2 steps"].tolist() == [
        0,
        1,
        2,
        0,
    ]  # an episode's first step stands for those before
    np.testing.assert_allclose(seen["sin of state 1"] ** 2 + seen["cos of state 1"] ** 2, 1)
    assert "state 1" not in seen


def test_what_is_done_is_the_mean_of_the_coming_actions_within_the_episode():
    made = driven(ways=(-1, 1))
    rows, episodes = np.array([2, STEPS - 2, STEPS]), np.array([0, 0, 1])
    Y, held = _done(made, rows, episodes, _seen(made, ["state"], rows, rows % STEPS, 1), 4)
    assert held == 1.0
    ending = made.actions[[STEPS - 2, STEPS - 1, STEPS - 1, STEPS - 1]]  # the last one stands for those after it
    wanted = [made.actions[2:6].mean(axis=0), ending.mean(axis=0), made.actions[STEPS : STEPS + 4].mean(axis=0)]
    np.testing.assert_allclose(Y, wanted)


def test_of_many_actions_the_directions_count_that_x_does_not_tell():
    rng = np.random.default_rng(0)
    state, side = rng.normal(size=(200, 3)), rng.choice([-1.0, 1.0], 200)
    actions = np.hstack([10 * state, np.outer(side, [3.0, 2.0, 1.0]) + 0.1 * rng.normal(size=(200, 3))])
    made = Demonstrations({"state": state}, actions, np.arange(1, 201))
    Y, held = _done(made, np.arange(200), np.arange(200), pd.DataFrame(state), 1)
    assert Y.shape == (200, 4)
    assert held > 0.99
    assert abs(np.corrcoef(Y.iloc[:, 0], side)[0, 1]) > 0.95


def test_what_cannot_be_asked():
    made = driven(ways=(1,))
    with pytest.raises(DataError, match=r"drives has 19 episodes: .* 20 or more"):
        disagreement(made.take(range(19)))
    pixels = Demonstrations(
        {"image": np.zeros((len(made.actions), 4, 4, 3), dtype=np.uint8)}, made.actions, made.episode_ends
    )
    with pytest.raises(DataError, match="nothing but pixels"):
        disagreement(pixels)
    with pytest.raises(DataError, match="'stat'"):
        disagreement(made, observations=["stat"])
