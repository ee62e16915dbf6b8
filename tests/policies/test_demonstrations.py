"""Episodes laid end to end: their rows, parts of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from everymode.errors import DataError
from everymode.policies import Demonstrations


def made(ends=(3, 5, 9), **changes) -> Demonstrations:
    steps = 9
    given = {
        "observations": {"state": np.arange(2.0 * steps).reshape(steps, 2)},
        "actions": np.arange(steps, dtype=float)[:, None],
        "episode_ends": np.asarray(ends),
        "ways": np.arange(len(ends)),
    }
    return Demonstrations(**{**given, **changes})


def test_episodes_are_the_rows_between_the_ends():
    demonstrations = made()
    assert demonstrations.lengths.tolist() == [3, 2, 4]
    assert [list(range(9))[rows] for rows in demonstrations] == [[0, 1, 2], [3, 4], [5, 6, 7, 8]]


def test_taken_episodes_keep_their_rows_ways_and_order():
    taken = made().take([2, 0])
    assert taken.actions[:, 0].tolist() == [5, 6, 7, 8, 0, 1, 2]
    assert taken.observations["state"][:, 0].tolist() == [10, 12, 14, 16, 0, 2, 4]
    assert taken.episode_ends.tolist() == [4, 7]
    assert taken.ways.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ends": (3, 3, 9)}, "episode 1 has 0 steps"),
        ({"ends": (3, 5, 8)}, "ends at step 8, but there are 9 steps"),
        ({"ends": ()}, "at least one"),
        ({"actions": np.zeros((8, 1))}, "action has 8, state has 9"),
        ({"actions": np.zeros(9)}, r"\(steps, d\)"),
        ({"observations": {}}, "no observation"),
        ({"angles": {"pose": (0,)}}, "Unknown observation 'pose'"),
        ({"angles": {"state": (2,)}}, r"angles of 'state' are \[2\]"),
        ({"ways": np.zeros(2)}, "2 ways are given for 3 episodes"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(DataError, match=said):
        made(**changes)


def test_a_nan_is_found_in_its_episode_and_step():
    demonstrations = made()
    demonstrations.actions[4] = np.nan
    with pytest.raises(DataError, match=r"action holds NaN .* episode 1, step 1"):
        demonstrations.check_finite()
