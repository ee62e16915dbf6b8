"""Planned actions by control step: late plans, overlaps and temporal ensembling."""

from __future__ import annotations

import numpy as np
import pytest

from everymode.errors import DataError
from everymode.policies.queue import ActionQueue


def plan(made_at: int, label: float, horizon: int = 4) -> np.ndarray:
    """Return a chunk whose actions tell the step that each is for, and a label."""
    return np.stack([np.arange(made_at, made_at + horizon), np.full(horizon, label)], axis=1)


def test_every_action_is_of_its_own_step_and_of_the_newest_plan():
    queue = ActionQueue()
    queue.put(plan(0, 1.0), 0)
    first = [queue.pop() for _ in range(3)]
    queue.put(plan(1, 2.0), 1)  # two steps late
    rest = [queue.pop() for _ in range(3)]
    assert [action.tolist() for action in first] == [[0, 1], [1, 1], [2, 1]]
    assert [None if action is None else action.tolist() for action in rest] == [[3, 2], [4, 2], None]


def test_a_plan_that_is_over_before_it_arrives_changes_nothing():
    queue = ActionQueue()
    queue.put(plan(0, 1.0, 8), 0)
    for _ in range(5):
        queue.pop()
    queue.put(plan(0, 2.0, 5), 0)
    assert len(queue) == 3
    np.testing.assert_array_equal(queue.ahead(8), [[5, 1], [6, 1], [7, 1]])


def test_overlapping_plans_are_averaged_with_the_weights_of_temporal_ensembling():
    queue = ActionQueue(decay=0.5)
    for step, label in enumerate((1.0, 2.0, 4.0)):
        queue.put(plan(step, label), step)
        action = queue.pop()
    weights = np.exp(-0.5 * np.arange(3))  # the oldest plan weighs most
    np.testing.assert_allclose(action, [2.0, weights @ [1, 2, 4] / weights.sum()])


def test_no_decay_at_all_is_the_plain_average():
    queue = ActionQueue(decay=0.0)
    queue.put(plan(0, 1.0), 0)
    queue.put(plan(0, 3.0), 0)
    np.testing.assert_allclose(queue.ahead(2), [[0, 2], [1, 2]])


def test_cleared_it_begins_again():
    queue = ActionQueue()
    queue.put(plan(0, 1.0), 0)
    queue.pop()
    queue.clear()
    assert (queue.step, len(queue), queue.ahead(3)) == (0, 0, [])
    assert queue.pop() is None


def test_a_plan_of_another_rank_is_refused():
    with pytest.raises(DataError, match=r"shape \(4,\); give \(horizon, d\)"):
        ActionQueue().put(np.zeros(4), 0)
