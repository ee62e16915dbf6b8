"""The posts: 24 ways, all of them open and distinct, and paths that hit a post."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from everymode.errors import SettingError
from everymode.policies import environments

GAPS = ((-0.4, 0.4), (-0.7, 0.1, 0.7), (-0.8, -0.4, 0.2, 0.9))  # somewhere within each gap, not where demonstrators go
BEFORE = (-0.23, 0.36, 1.08)  # between the rows


def corners(*taken):
    """Return the corners of a path that goes sideways before each row and straight on through it."""
    across = [gaps[gap] for gaps, gap in zip(GAPS, taken, strict=True)]
    turns = [
        point for x, y, end in zip(across, BEFORE, (*BEFORE[1:], 1.9), strict=True) for point in ((x, y), (x, end))
    ]
    return [(0.0, BEFORE[0]), *turns]


def test_all_24_ways_are_open_distinct_and_named_by_their_gaps(drive):
    environment = environments.make("Avoiding")
    environment.max_steps = 300
    found = set()
    for first, second, third in product(range(2), range(3), range(4)):
        environment.reset(seed=0, options={"symmetric": True})
        _, reward, ended, _, info = drive(environment, corners(first, second, third))
        assert ended
        assert info == {"is_success": True, "collided": False}
        assert reward == 1
        assert environment.way_names[environment.way] == "LR"[first] + "LMR"[second] + "1234"[third]
        found.add(environment.way)
    assert found == set(range(24)) == set(range(len(environment.way_names)))


def test_a_demonstrator_goes_each_of_the_24_ways():
    environment = environments.make("Avoiding", noise=0.1)
    for way in range(24):
        for seed in (0, 1):
            demonstration = environment.demonstrate(1, seed, way=way, symmetric=seed == 1)
            assert environment.way == way
            assert environment.path()[-1, 1] >= 1.8
            assert demonstration.steps < environment.max_steps


@pytest.mark.parametrize("post", range(6))
def test_driving_at_a_post_collides(drive, post):
    environment = environments.make("Avoiding")
    environment.max_steps = 300
    environment.reset(seed=0)
    x, y, radius = environment.discs[post]
    lead = [c for c in corners(1, 1, 1) if c[1] < y]
    _, reward, ended, _, info = drive(environment, [*lead, (x, lead[-1][1]), (x, 1.9)])
    assert ended
    assert info["collided"]
    assert reward == 0
    assert np.hypot(*(environment.position - (x, y))) < radius


def test_a_row_passed_again_counts_as_passed_last(drive):
    environment = environments.make("Avoiding")
    environment.reset(seed=0)
    path = [(-0.4, -0.23), (-0.4, 0.3), (-0.4, -0.23), *corners(1, 1, 1)[1:]]
    environment.max_steps = 300
    drive(environment, path[:4])
    assert environment.way == environment.leaning == -1
    drive(environment, path[4:])
    assert environment.way_names[environment.way] == "RM2"


def test_the_average_of_all_ways_collides():
    environment = environments.make("Avoiding", noise=0.0)
    for seed in range(3):
        chunks = [environment.demonstrate(1, seed, way=way, symmetric=True).actions[:8] for way in range(24)]
        environment.reset(seed=seed, options={"symmetric": True})
        assert any(environment.step(action)[4]["collided"] for action in np.mean(chunks, axis=0)), seed


def test_weights_are_kept_and_checked():
    weights = np.zeros(24)
    weights[[3, 20]] = 2.0, 6.0
    environment = environments.make("Avoiding", weights=weights)
    assert environment.way_weights[[3, 20]].tolist() == [0.25, 0.75]
    assert set(environment.demonstrate(12).ways) == {3, 20}
    for wrong in ([1.0], np.zeros(24), -weights):
        with pytest.raises(SettingError, match="give 24 numbers of at least 0"):
            environments.make("Avoiding", weights=wrong)
