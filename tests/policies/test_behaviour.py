"""Behaviour of paths made by hand: every number is known."""

import numpy as np
import pytest

from everymode.errors import DataError
from everymode.policies.behaviour import Behaviour, commitment, count_ways, jerk, jumps, way_entropy, way_recall
from everymode.policies.episodes import Episode


def episode(way=0, leaning=(0, 0), success=True, actions=((0.0,), (1.0,)), planned=(True, False), path=()):
    path = np.array(path, dtype=float).reshape(-1, 2)
    arrays = np.zeros(len(actions)), np.array(actions), np.array(planned), np.array(leaning)
    return Episode(0, *arrays, path, way, success)


def test_the_entropy_of_many_episodes_is_that_of_their_law():
    shares = np.array([0.5, 0.3, 0.2, 0.0])
    truth = -(shares[:3] * np.log(shares[:3])).sum()
    assert way_entropy(10_000_000 * shares) == pytest.approx(truth, abs=1e-6)
    assert way_entropy([7, 0, 0]) == way_entropy([0, 0]) == 0


def test_the_correction_takes_most_of_the_bias_away():
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    truth = -(shares * np.log(shares)).sum()
    counts = np.random.default_rng(0).multinomial(20, shares, size=4000)
    plain = np.mean([-(c[c > 0] / 20 * np.log(c[c > 0] / 20)).sum() for c in counts])
    corrected = np.mean([way_entropy(c) for c in counts])
    assert abs(corrected - truth) < abs(plain - truth) / 4
    assert max(way_entropy(c) for c in counts) <= np.log(4)


def test_a_way_is_recalled_from_a_quarter_of_the_demonstrators_share_on():
    assert way_recall([50, 50], [50, 50]) == 1
    assert way_recall([88, 12], [50, 50]) == 0.5  # a quarter of a half is 12.5 of 100
    assert way_recall([87, 13], [50, 50]) == 1
    assert way_recall([10, 0, 5], [1, 0, 1]) == 1  # nobody showed the second way
    assert way_recall([0, 0], [1, 1]) == 0
    with pytest.raises(DataError, match="no way"):
        way_recall([1, 1], [0, 0])


def test_commitment_is_broken_by_another_way_and_not_by_doubt():
    assert commitment([-1, -1, 2, -1, 2]) is True
    assert commitment([-1, 2, 1, 2]) is False
    assert commitment([-1, -1]) is None


def test_jerk_is_the_third_derivative_of_a_cubic():
    rate = 20.0
    t = np.arange(30) / rate
    cubic = np.stack([0.5 * t**3, np.zeros_like(t)], axis=1)  # its third derivative is 3
    assert jerk(cubic, rate) == pytest.approx(3.0)
    assert jerk(np.stack([t**2, 4 * t], axis=1), rate) == pytest.approx(0.0, abs=1e-8)
    assert jerk(cubic[:3], rate) is None


def test_jumps_are_told_apart_at_seams():
    actions = [[0, 0], [1, 0], [1, 3], [1, 4], [1, 8]]
    seams, inner = jumps(actions, [True, False, True, False, True])
    assert seams.tolist() == [3, 4]
    assert inner.tolist() == [1, 1]
    assert [len(part) for part in jumps([[0.0]], [True])] == [0, 0]


def test_jumps_of_angles_go_the_short_way_round():
    actions = [[0.0, 3.0], [0.0, -3.0], [4.0, -3.0]]
    short = 2 * np.pi - 6
    assert jumps(actions, [True, True, False], angles=[1])[0] == pytest.approx([short])
    assert jumps(actions, [True, True, False], angles=[1])[1] == pytest.approx([4.0])
    assert jumps(actions, [True, True, False])[0] == pytest.approx([6.0])


def test_a_behaviour_counts_what_there_is():
    episodes = [
        episode(0, (-1, 0)),
        episode(1, (0, 1)),
        episode(1, (1, 1)),
        episode(-1, (-1, -1), success=False),
    ]
    found = Behaviour.of(episodes, ("left", "right"), demonstrated=[2, 2], rate=10)
    assert found.ways == {"left": 1, "right": 2}
    assert (found.episodes, found.no_way, found.ways_taken) == (4, 1, 2)
    assert found.commitment is not None
    assert (found.commitment.value, found.commitment.n) == (pytest.approx(2 / 3), 3)
    assert found.recall is not None
    assert found.recall.value == 1
    assert found.entropy is not None
    assert found.entropy.floor == pytest.approx(np.log(2))
    assert Behaviour.from_dict(found.to_dict()) == found


def test_where_ways_have_no_meaning_nothing_is_said_of_them():
    found = Behaviour.of([episode(-1, (-1, -1))])
    assert (found.ways, found.no_way, found.entropy, found.recall, found.commitment) == ({}, 0, None, None, None)
    assert found.inner_jump == 1
    assert found.seam_jump is None


def test_one_way_only_has_no_entropy_whatever_the_chance():
    found = Behaviour.of([episode(1, (1, 1))] * 40, ("left", "right"), demonstrated=[0.5, 0.5])
    entropy, recall = found.entropy, found.recall
    assert entropy is not None
    assert recall is not None
    assert (entropy.value, entropy.low, entropy.high, found.entropy_share) == (0, 0, 0, 0)
    assert recall.value == 0.5


def test_a_way_that_has_no_name_is_refused():
    with pytest.raises(DataError, match="the way 2"):
        count_ways([0, 2], ("left", "right"))
