"""Policies on equal terms: what each costs, and that what is done is not done again."""

import json

import numpy as np
import pytest
from tests.policies.fakes import Corridor, Scripted, outward

from everymode import plots
from everymode.errors import SettingError
from everymode.policies import Policy, environments
from everymode.policies.checkpoints import fit_with_checkpoints
from everymode.policies.comparison import Trial, compare_policies
from everymode.policies.rollouts import roll_out
from everymode.policies.ways import Ways

SMALL = {"width": 16, "depth": 1, "steps": 60, "batch_size": 32, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def shown():
    return environments.demonstrate("Obstacle", 8, 0)


def weights(policy):
    return np.concatenate([values.detach().numpy().ravel() for values in policy.family_.parameters()])


def test_sittings_end_where_one_does_and_leave_what_was_before(shown):
    whole = Policy("mse", **SMALL).fit(shown)
    kept = fit_with_checkpoints(Policy("mse", **SMALL), shown, 3)
    first, *_, last = kept.values()
    assert len(kept) == 3
    assert sorted(kept, key=int) == list(kept)
    assert np.array_equal(weights(last), weights(whole))
    assert not np.array_equal(weights(first), weights(last))
    assert (first.stopped_, last.stopped_) == ("interrupted", "completed")


def test_draws_belong_to_the_episode_and_not_to_the_robots_beside_it(shown):
    policy = Policy("flow_matching", **SMALL).fit(shown)
    seeds = [200_000, 200_001, 200_002, 200_000]
    alone = roll_out(policy, "Obstacle", seeds, robots=1, random_state=1)
    for robots in (2, 4):
        found = roll_out(policy, "Obstacle", seeds, robots=robots, random_state=1)
        assert [a.steps for a in found] == [b.steps for b in alone]
        assert all(np.allclose(a.actions, b.actions, atol=1e-4) for a, b in zip(found, alone, strict=True))
    other = roll_out(policy, "Obstacle", seeds, random_state=2)
    assert not np.allclose(alone.episodes[0].actions[:2], other.episodes[0].actions[:2], atol=1e-2)
    assert not np.allclose(alone.episodes[0].actions[:2], alone.episodes[3].actions[:2], atol=1e-2)


def test_finished_recipes_are_kept_and_crashed_ones_run_again(shown, tmp_path):
    policies = {"mse": Policy("mse", **SMALL), "broken": Policy("mse", **{**SMALL, "prediction_horizon": 4})}
    trial = Trial("Obstacle", episodes=3, shown=2, robots=3)
    told = []

    def tell(name, found, done, total):
        told.append((name, done, total))

    found = compare_policies(policies, shown, trial, tmp_path, progress=tell)
    assert told == [("mse", 1, 2), ("broken", 2, 2)]
    assert list(found.evaluations) == ["mse"]
    assert "execution_horizon" in found.failures["broken"]
    assert "broken: failed" in str(found)
    file = tmp_path / "recipes" / "mse" / "evaluation.json"
    written = file.stat().st_mtime_ns
    policies["broken"].set_params(execution_horizon=4)
    again = compare_policies(policies, shown, trial, tmp_path)
    assert file.stat().st_mtime_ns == written
    assert list(again.evaluations) == ["mse", "broken"]
    assert again.evaluations["mse"].to_dict() == found.evaluations["mse"].to_dict()
    assert (
        json.loads(json.dumps(again.to_dict()))["recipes"]["mse"]["parameters"] == found.evaluations["mse"].parameters
    )
    assert again.ways is not None
    assert [len(rollouts) for rollouts in again.ways.paths.values()] == [2, 2]
    longer = Trial("Obstacle", episodes=4, shown=2, robots=3)
    assert len(compare_policies({"mse": policies["mse"]}, shown, longer, tmp_path).evaluations["mse"].rollouts) == 4
    axes = plots.draw("policies", again).axes[0]
    assert {text.get_text() for text in axes.texts} == {"squared error", "broken"}
    with pytest.raises(SettingError, match="nothing to compare"):
        compare_policies({}, shown, trial, tmp_path)


def test_paths_are_drawn_from_one_start_in_the_colour_of_their_way():
    start = Ways.of(Corridor)
    sides = {"both": lambda seen: 0.1, "left": lambda seen: -0.4, "none": lambda seen: 0.0}
    ways = start.beside({name: start.roll(Scripted(rule), 3) for name, rule in sides.items()})
    figure = plots.draw("ways", ways)
    colours = [{line.get_color() for line in axes.lines} for axes in figure.axes]
    assert [len(each) for each in colours] == [1, 1, 1]
    assert len(set.union(*colours)) == 3  # right, left, and no way
    crossed = [len(collection.get_offsets()) for collection in figure.axes[1].collections]
    assert crossed == [3]  # four tenths a step leads into the wall
    assert not figure.axes[0].collections


def test_the_one_start_is_symmetric_where_there_is_such():
    start = Ways.of("Obstacle")
    assert start.options == {"symmetric": True}
    assert Ways.of(Corridor).options is None
    found = Ways.of(Corridor).roll(Scripted(outward), 4)
    assert len({episode.path[0, 0] for episode in found}) == 1
