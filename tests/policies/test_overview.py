"""What is said of demonstrations, and how it is drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from everymode import plots
from everymode.policies import Demonstrations
from everymode.policies.overview import overview

LENGTHS = (3, 20, 8)
STEPS = sum(LENGTHS)


@pytest.fixture
def made() -> Demonstrations:
    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, (STEPS, 3))
    state[:, 1] = 2.5
    return Demonstrations(
        {
            "state": state,
            "still": np.ones((STEPS, 2, 2)),
            "image": rng.integers(9, 200, (STEPS, 4, 5, 3), dtype=np.uint8),
            "task": np.repeat(["pull", "push", "pull"], LENGTHS),
        },
        rng.normal(size=(STEPS, 2)),
        np.cumsum(LENGTHS),
        rate=10.0,
        angles={"state": (2,)},
        names={"state": ("x", "height", "turn")},
        ways=np.array([0, 1, 1]),
        way_names=("left", "right"),
    )


def test_what_there_is(made):
    held = overview(made, prediction_horizon=8)
    told = held.to_dict()
    assert (told["episodes"], told["length_min"], told["length_median"], told["length_max"]) == (3, 3, 8.0, 20)
    by_name = {values.name: values for values in held.values}
    assert by_name["state"].low == tuple(made.observations["state"].min(axis=0))
    assert by_name["action"].high == tuple(made.actions.max(axis=0))
    assert (by_name["image"].kind, by_name["image"].shape, by_name["image"].low) == ("pixels", (4, 5, 3), (9.0,))
    assert by_name["task"].labels == ("pull", "push")
    assert told["ways"] == {"left": 1, "right": 2}
    assert json.loads(json.dumps(told, allow_nan=False))["actions"]["name"] == "action"
    for said in ("3 to 20, median 8 or 0.8 s at 10 Hz", "height: 2.5 to 2.5", "(angle)", "labels", "left 1, right 2"):
        assert said in str(held)


def test_what_is_odd_is_remarked_on(made):
    short, still_value, still = overview(made, prediction_horizon=9).remarks
    assert short.startswith("2 episode(s) are shorter than the 9 actions")
    assert still_value == "state has values that never change, which does no harm: height"
    assert still == "still never changes, and tells a policy nothing"
    assert overview(replace(made, observations={"a": made.actions}, angles={}), prediction_horizon=3).remarks == ()


def test_paths_are_those_of_the_state_and_else_of_what_there_is(made):
    held = overview(made)
    assert held.path_names == ("x", "height")
    assert [len(path) for path in held.paths] == list(LENGTHS)
    np.testing.assert_array_equal(held.paths[1], made.observations["state"][3:23, :2])
    pixels = replace(made, observations={"image": made.observations["image"]}, angles={}, names={})
    np.testing.assert_array_equal(overview(pixels).paths[2], made.actions[23:])
    assert overview(replace(pixels, actions=made.actions[:, :1])).paths == ()


def test_the_figure_has_a_line_an_episode_in_the_colour_of_its_way(made):
    left, right = plots.draw("demonstrations", overview(made)).axes
    tints = [line.get_color() for line in left.lines if len(line.get_xdata())]
    assert len(tints) == 3
    assert tints[0] != tints[1] == tints[2]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["left (1)", "right (2)"]
    assert sum(bar.get_height() for bar in right.patches) == 3
    unknown = plots.draw("demonstrations", overview(replace(made, ways=None))).axes[0]
    assert len({line.get_color() for line in unknown.lines}) == 3
    assert unknown.get_legend() is None
