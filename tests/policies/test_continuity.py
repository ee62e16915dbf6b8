"""Where a chunk meets the next: who changes his mind, who averages, and what a delay does."""

from __future__ import annotations

import numpy as np
import pytest

from everymode.errors import SettingError, UnsupportedError
from everymode.policies import Demonstrations, Policy, load_policy
from everymode.policies.angles import add, difference
from everymode.policies.continuity import (
    CONTINUITIES,
    Ensemble,
    Look,
    RealTime,
    Select,
    get_continuity,
    real_time_weights,
)
from everymode.policies.execution import Execution
from everymode.policies.queue import ActionQueue

HORIZON, EXECUTED = 8, 4


def two_ways(episodes=60, length=20) -> Demonstrations:
    """Nothing is seen of which way an episode goes: all its actions are about -1, or all about 1."""
    rng = np.random.default_rng(0)
    way = np.repeat(np.where(np.arange(episodes) % 2, 1.0, -1.0), length)
    actions = way + 0.05 * rng.normal(size=way.shape)
    state = 0.01 * rng.normal(size=(len(way), 1))
    return Demonstrations({"state": state}, actions[:, None], np.arange(1, episodes + 1) * length)


@pytest.fixture(scope="module")
def policy() -> Policy:
    settings = {"prediction_horizon": HORIZON, "execution_horizon": EXECUTED, "width": 64, "depth": 2}
    return Policy("flow_matching", steps=700, random_state=0, **settings).fit(two_ways())


def acted(policy: Policy, steps=24, robots=40, **settings) -> np.ndarray:
    """Return the actions (steps, robots) of robots that see nothing."""
    execution = policy.start(robots, random_state=0, **settings)
    return np.stack([execution.act(np.zeros((robots, 1)))[:, 0] for _ in range(steps)])


def changes(actions: np.ndarray) -> float:
    """Return in which share of the seams a robot goes over to the other way."""
    signs = np.sign(actions)
    return float((signs[1:] != signs[:-1]).sum() / (actions.shape[1] * (len(actions) // EXECUTED - 1)))


@pytest.mark.parametrize("delay", [0, 2])
def test_drawn_anew_a_chunk_goes_the_other_way_as_often_as_not(policy, delay):
    actions = acted(policy, continuity="none", delay=delay)
    assert (np.abs(np.abs(actions) - 1) < 0.4).mean() > 0.95
    assert 0.35 < changes(actions) < 0.65


@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("name", ["select", "real_time"])
def test_selected_or_inpainted_chunks_keep_the_way(policy, name, delay):
    actions = acted(policy, continuity=name, delay=delay)
    assert changes(actions) < 0.05
    assert (np.abs(np.abs(actions) - 1) < 0.4).mean() > 0.95
    ways = np.sign(actions[-1])
    assert 0.25 < (ways > 0).mean() < 0.75  # and both are gone


def test_averaged_chunks_are_none_of_the_ways(policy):
    actions = acted(policy, continuity=Ensemble(decay=0.0))
    between = np.abs(actions[EXECUTED:]) < 0.3
    assert 0.3 < between.mean() < 0.7
    assert np.abs(np.diff(actions, axis=0)).max() < 1.5  # but none jumps from the one to the other


def test_weights_of_real_time_chunking():
    """Equation 5 of the paper: 1 while the delay lasts, then falling, then 0 where nothing is left."""
    weights = real_time_weights(16, 3, 8)
    assert (weights[:3] == 1).all()
    assert (np.diff(weights[2:9]) < 0).all()
    assert (weights[8:] == 0).all()
    c = (8 - 4) / (8 - 3 + 1)
    assert weights[4] == pytest.approx(c * (np.exp(c) - 1) / (np.e - 1))
    assert (real_time_weights(4, 2, 0) == 0).all()


class Teller:
    """A policy whose chunk tells at which look it was made, and the step that each action is for."""

    observation_horizon, prediction_horizon, execution_horizon, n_actions_, action_angles_ = 1, 8, 3, 2, ()

    def __init__(self) -> None:
        self.looks = 0

    def named(self, observations):
        return {"state": observations}

    def plan(self, seen, generators):
        self.looks += 1
        now = seen["state"][:, 0, 0]
        return np.stack([np.stack([np.full(8, self.looks), step + np.arange(8)], axis=1) for step in now])


def test_with_a_delay_the_actions_before_the_arrival_are_of_the_look_before():
    execution = Execution(Teller(), [None], delay=2)  # pyright: ignore[reportArgumentType]
    told, planned = [], []
    for step in range(9):
        told.append(execution.act(np.asarray([[float(step)]]))[0].tolist())
        planned.append(bool(execution.planned[0]))
    assert [step for _, step in told] == list(range(9))  # each action is the one for its own step
    assert [look for look, _ in told] == [1, 1, 1, 1, 1, 2, 2, 2, 3]
    assert planned == [True, False, False, False, False, True, False, False, True]


def test_real_time_chunks_begin_where_the_last_one_goes_on(policy):
    seen = {"state": np.zeros((64, policy.observation_horizon, 1))}
    ahead = np.full((64, HORIZON, 1), np.nan)
    ahead[:, :EXECUTED] = policy.plan(seen, policy.generators(64, 1))[:, EXECUTED:]
    chunk = RealTime().plan(policy, Look(seen, policy.generators(64, 2), ahead, delay=2))
    anew = policy.plan(seen, policy.generators(64, 2))
    np.testing.assert_allclose(chunk[:, :2], ahead[:, :2], atol=1e-6)  # what is executed meanwhile is what it was
    assert np.abs(chunk - ahead)[:, 2].mean() < 0.1  # the demonstrators' own unrest
    assert np.abs(anew - ahead)[:, 2].mean() > 0.5


def test_an_average_of_angles_is_the_short_way_round():
    queue = ActionQueue(decay=0.0, angles=[1])
    queue.put(np.array([[0.0, 3.1]]), 0)
    queue.put(np.array([[2.0, -3.1]]), 0)
    (action,) = queue.ahead(1)
    assert action[0] == 1
    assert abs(action[1]) == pytest.approx(np.pi)


@pytest.mark.parametrize("way", [-1.0, 1.0])
def test_differences_of_angles_are_never_more_than_half_a_turn(way):
    first, second = np.array([[1.0, way * 3.0]]), np.array([[0.5, -way * 3.0]])
    apart = difference(first, second, [1])
    np.testing.assert_allclose(apart, [[0.5, way * (6.0 - 2 * np.pi)]])
    np.testing.assert_allclose(add(second, apart, [1]), first)


def test_a_policy_keeps_its_continuity_in_its_file(policy, tmp_path):
    policy.set_params(continuity=Select(draws=3, decay=0.9)).save(tmp_path / "policy.safetensors")
    policy.set_params(continuity=None)
    loaded = load_policy(tmp_path)
    assert loaded.continuity == Select(draws=3, decay=0.9)
    assert loaded.start().continuity == loaded.continuity
    assert policy.start().continuity.name == "none"


@pytest.mark.parametrize("name", CONTINUITIES)
def test_a_continuity_is_made_again_from_its_description(name):
    made = get_continuity(name)
    assert get_continuity(made.to_dict()) == made


def test_what_cannot_go_on_is_refused(policy):
    short = Policy("flow_matching", prediction_horizon=HORIZON, execution_horizon=7)
    with pytest.raises(SettingError, match="run out before the next arrive"):
        Execution(short, [None], delay=2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingError, match="delay=5: robots look again"):
        policy.start(delay=5)
    with pytest.raises(SettingError, match="Did you mean 'real_time'"):
        policy.start(continuity="realtime")
    with pytest.raises(SettingError, match="softness=0"):
        RealTime(softness=0.0)
    with pytest.raises(UnsupportedError, match=r"family 'mse' cannot; these can: .*flow_matching"):
        Policy("mse", continuity="real_time").fit(two_ways(4))
