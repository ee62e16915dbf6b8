import numpy as np
import pytest

from everymode.metrics import PRDC, prdc


def _values(found):
    return np.array([found[name].value for name in PRDC])


def _published(draws, reference, k):
    """The definitions of the papers, point by point, for one row."""

    def radius(points, i):
        return np.sort(np.linalg.norm(points - points[i], axis=1))[k]

    inside_real = [[np.linalg.norm(d - r) < radius(reference, j) for d in draws] for j, r in enumerate(reference)]
    inside_drawn = [[np.linalg.norm(d - r) < radius(draws, i) for i, d in enumerate(draws)] for r in reference]
    inside_real, inside_drawn = np.array(inside_real), np.array(inside_drawn)
    precision, recall = inside_real.any(axis=0).mean(), inside_drawn.any(axis=1).mean()
    return precision, recall, inside_real.sum() / (k * len(draws)), inside_real.any(axis=1).mean()


@pytest.mark.parametrize("k", [1, 3])
def test_without_ties_these_are_the_published_definitions(k):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(3, 12, 2))
    reference /= reference.std(axis=(0, 1))
    draws = 0.5 + 0.6 * rng.normal(size=(3, 12, 2))
    by_hand = np.mean([_published(*pair, k) for pair in zip(draws, reference, strict=True)], axis=0)
    np.testing.assert_allclose(_values(prdc(draws, reference, neighbours=k)), by_hand)


@pytest.mark.parametrize("dy", [1, 2, 64])
def test_equal_laws_have_the_coverage_and_density_of_theory(dy):
    """Whatever the law: coverage 1 - prod (n - i) / (2 n - i) over i = 1 ... k, density 1."""
    rng = np.random.default_rng(1)
    n, k, rows = 30, 5, 400
    draws, reference = rng.standard_t(5, size=(2, rows, n, dy))
    found = prdc(draws, reference, neighbours=k)
    i = np.arange(1, k + 1)
    for name, expected in (("coverage", 1 - np.prod((n - i) / (2 * n - i))), ("density", 1.0)):
        error = (found[name].high - found[name].low) / 3.92
        assert abs(found[name].value - expected) < 3 * error < 0.1


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(2)
    n, rows, i = 30, 100, np.arange(1, 6)
    expected = 1 - np.prod((n - i) / (2 * n - i))
    found = [prdc(*rng.normal(size=(2, rows, n, 1)), seed=seed)["coverage"] for seed in range(150)]
    assert 0.89 < np.mean([measure.low <= expected <= measure.high for measure in found]) < 0.99


def _two_answers(rng, share_left, rows=20, n=200):
    side = np.where(rng.random((rows, n, 1)) < share_left, -5.0, 5.0)
    return np.concatenate([side, np.zeros_like(side)], axis=-1) + rng.normal(size=(rows, n, 2))


def test_a_lost_mode_costs_recall_and_coverage_only():
    rng = np.random.default_rng(3)
    reference, real, draws = _two_answers(rng, 0.5), _two_answers(rng, 0.5), _two_answers(rng, 1.0)
    found = prdc(draws, reference, real)
    assert found["precision"].value > 0.95
    assert found["density"].value == pytest.approx(1, abs=0.1)
    assert found["recall"].value == pytest.approx(0.5, abs=0.05)
    assert found["coverage"].value == pytest.approx(0.5, abs=0.05)
    assert all(found[name].floor > 0.93 for name in PRDC)


def test_an_invented_mode_costs_precision_and_density_only():
    rng = np.random.default_rng(4)
    reference, draws = _two_answers(rng, 1.0), _two_answers(rng, 0.5)
    found = prdc(draws, reference)
    assert found["precision"].value == pytest.approx(0.5, abs=0.05)
    assert found["density"].value == pytest.approx(0.5, abs=0.05)
    assert found["recall"].value > 0.9
    assert found["coverage"].value > 0.8


def test_answers_for_a_neighbouring_x_are_not_precise():
    rng = np.random.default_rng(5)
    x = np.arange(40.0)[:, None, None]
    draws, reference = x + 0.1 * rng.normal(size=(2, 40, 50, 1))
    assert prdc(draws, reference)["precision"].value > 0.9
    assert prdc(np.roll(draws, 1, axis=0), reference)["precision"].value == 0


def test_one_answer_repeated_is_precise_without_recall():
    reference = np.random.default_rng(6).normal(size=(30, 100, 2))
    found = prdc(np.zeros_like(reference), reference)
    assert found["precision"].value > 0.95
    assert found["recall"].value == 0
    assert found["coverage"].value < 0.3


def test_ties_do_not_break_it():
    """Three possible answers, a hundred draws: every ball is a point, and holds more than k neighbours."""
    rng = np.random.default_rng(7)
    draws, reference = rng.integers(3, size=(2, 50, 100, 1)).astype(float)
    found = prdc(draws, reference)
    assert [found[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert found["density"].value == pytest.approx(1, abs=0.05)
    between = prdc(draws + 0.5, reference)
    np.testing.assert_array_equal(_values(between), 0)
    same = prdc(np.ones((2, 10, 1)), np.ones((2, 10, 1)))
    assert [same[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert same["density"].value == pytest.approx(10 / 9)  # ten draws in balls that hold nine neighbours


def test_draws_far_out_are_not_precise():
    reference = np.random.default_rng(8).normal(size=(5, 20, 64))
    found = prdc(reference + 1e30, reference)
    assert (found["precision"].value, found["coverage"].value) == (0, 0)


def test_floors_intervals_and_repeats():
    rng = np.random.default_rng(9)
    draws, reference, real = rng.normal(size=(3, 60, 40, 2))
    found = prdc(draws, reference, real, seed=1)
    np.testing.assert_allclose([found[name].floor for name in PRDC], _values(prdc(real, reference)))
    assert all(found[name].low < found[name].floor < found[name].high and found[name].n == 60 for name in PRDC)
    assert prdc(draws, reference, real, seed=1) == found != prdc(draws, reference, real, seed=2)
    assert all(measure.floor is None for measure in prdc(draws, reference).values())
    np.testing.assert_allclose(_values(prdc(draws * [9, 0.1], reference * [9, 0.1])), _values(found))


def test_few_draws_and_many():
    rng = np.random.default_rng(10)
    draws, reference = rng.normal(size=(2, 4, 30, 2))
    np.testing.assert_array_equal(
        _values(prdc(draws[:, :3], reference[:, :3])), _values(prdc(draws[:, :3], reference[:, :3], neighbours=2))
    )
    scale = reference.std(axis=(0, 1)) / reference[:, :20].std(axis=(0, 1))  # each call has its own unit
    np.testing.assert_allclose(
        _values(prdc(draws, reference, at_most=20)),
        _values(prdc(draws[:, :20] / scale, reference[:, :20] / scale)),
        atol=0.03,
    )
    with pytest.raises(ValueError, match=r"at least 2 draws a row; got draws of shape \(4, 1, 2\)"):
        prdc(draws[:, :1], reference[:, :1])
    with pytest.raises(ValueError, match="neighbours=0"):
        prdc(draws, reference, neighbours=0)
