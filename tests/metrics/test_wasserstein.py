import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from everymode.metrics import sliced_wasserstein, sliced_wassersteins, wasserstein


def _cost_of_the_best_assignment(one, other):
    squares = cdist(one, other, "sqeuclidean")
    return np.sqrt(squares[linear_sum_assignment(squares)].mean())


def test_one_dimension_is_exact_whatever_the_directions():
    rng = np.random.default_rng(0)
    draws, reference = rng.normal(size=(6, 30, 1)), rng.gamma(2, size=(6, 30, 1))
    exact = [_cost_of_the_best_assignment(*pair) for pair in zip(draws, reference, strict=True)]
    for directions, seed in ((1, 0), (64, 1)):
        found = sliced_wassersteins(draws, reference, directions=directions, seed=seed)
        np.testing.assert_allclose(found, exact, rtol=1e-12)


@pytest.mark.parametrize("dy", [1, 2, 3, 64])
def test_a_shift_is_seen_over_the_root_of_the_dimension(dy):
    """Each orthonormal frame spreads |shift|^2 over its dy directions, none is lost: exact for any seed."""
    rng = np.random.default_rng(1)
    sample, shift = rng.normal(size=(4, 20, dy)), rng.normal(size=(4, 1, dy))
    found = sliced_wassersteins(sample + shift, sample, seed=7)
    np.testing.assert_allclose(found, np.linalg.norm(shift[:, 0], axis=1) / np.sqrt(dy), rtol=1e-10)


def test_fewer_directions_than_dimensions_are_unbiased():
    sample, shift = np.zeros((1, 2, 50)), np.arange(50.0)
    squares = [sliced_wassersteins(sample + shift, sample, directions=4, seed=s)[0] ** 2 for s in range(800)]
    error = np.std(squares) / np.sqrt(len(squares))
    assert abs(np.mean(squares) - (shift**2).mean()) < 4 * error
    assert error < 0.05 * (shift**2).mean()


@pytest.mark.parametrize("dy", [1, 2, 5])
def test_gaussians_have_their_closed_form(dy):
    """On every line N(m, s^2 I) and N(0, I) are (m.u)^2 + (s - 1)^2 apart: SW^2 = |m|^2 / dy + (s - 1)^2."""
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(20, 4000, dy))
    draws = 0.5 + 2 * rng.normal(size=reference.shape)
    measure = sliced_wasserstein(draws, reference, directions=32)
    assert measure.value == pytest.approx(np.sqrt(0.5**2 + 1), abs=0.02)
    assert measure.low < np.sqrt(0.5**2 + 1) < measure.high


def test_right_answers_for_the_wrong_x_are_not_forgiven():
    rng = np.random.default_rng(3)
    x = np.linspace(-3, 3, 50)[:, None, None]
    draws, reference = x + 0.1 * rng.normal(size=(2, 50, 40, 2))
    turned_round = sliced_wasserstein(draws[::-1], reference)
    assert turned_round.value > 10 * sliced_wasserstein(draws, reference).value
    pooled = [array.reshape(1, 2000, 2) for array in (draws[::-1], reference)]
    assert sliced_wasserstein(*pooled).value < 0.02


def test_real_draws_score_their_floor_and_others_do_not():
    rng = np.random.default_rng(4)
    draws, reference, real = rng.normal(size=(3, 100, 50, 2))
    measure = sliced_wasserstein(draws, reference, real)
    assert measure.low < measure.floor < measure.high
    assert measure.n == 100
    assert sliced_wasserstein(1.3 * draws, reference, real).low > measure.floor
    assert sliced_wasserstein(draws, reference).floor is None


def test_units_of_y_do_not_matter_nor_does_a_constant_column():
    rng = np.random.default_rng(5)
    draws, reference = rng.normal(size=(2, 5, 30, 2)) + 1
    value = sliced_wasserstein(draws, reference).value
    assert sliced_wasserstein(draws * [1e3, 1e-3], reference * [1e3, 1e-3]).value == pytest.approx(value)
    draws[..., 1] = reference[..., 1] = 4
    assert 0 < sliced_wasserstein(draws, reference).value < 10


def test_results_repeat_for_a_seed_and_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(6)
    draws, reference, real = rng.normal(size=(3, 9, 20, 3))
    measure = sliced_wasserstein(draws, reference, real, seed=1)
    assert sliced_wasserstein(draws, reference, real, seed=1) == measure
    assert sliced_wasserstein(draws, reference, real, seed=2).value != measure.value
    monkeypatch.setattr(wasserstein, "_NUMBERS_AT_ONCE", 1)
    assert sliced_wasserstein(draws, reference, real, seed=1) == measure


def test_one_row_one_draw_and_draws_far_out():
    one = sliced_wasserstein([[[3.0]]], [[[1.0]]])
    assert (one.value, one.low, one.high, one.n) == (2, None, None, 1)
    reference = np.random.default_rng(7).normal(size=(4, 10, 2))
    assert 1e29 < sliced_wasserstein(reference + 1e30, reference).value < 1e31


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"draws \(2, 3, 1\) and reference \(2, 4, 1\)"):
        sliced_wasserstein(np.zeros((2, 3, 1)), np.zeros((2, 4, 1)))
    with pytest.raises(ValueError, match=r"draws \(2, 3, 1\) and real \(1, 3, 1\)"):
        sliced_wasserstein(np.zeros((2, 3, 1)), np.zeros((2, 3, 1)), np.zeros((1, 3, 1)))
    with pytest.raises(ValueError, match="reference must be finite"):
        sliced_wasserstein([[[0.0]]], [[[np.nan]]])
    with pytest.raises(ValueError, match="directions=0"):
        sliced_wasserstein([[[0.0]]], [[[1.0]]], directions=0)
