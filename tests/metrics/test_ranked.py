import numpy as np
import pytest
from scipy.stats import norm

from everymode.metrics import crps, crps_values, energy_scores


def test_one_column_has_its_energy_score():
    rng = np.random.default_rng(0)
    y, draws = rng.normal(size=(9, 1)), rng.gamma(2, size=(9, 31, 1))
    np.testing.assert_allclose(crps_values(y, draws), energy_scores(y, draws), rtol=1e-12)


def test_several_columns_have_their_mean():
    rng = np.random.default_rng(1)
    y, draws = rng.normal(size=(9, 3)), rng.gamma(2, size=(9, 31, 3))
    by_column = [energy_scores(y[:, [column]], draws[:, :, [column]]) for column in range(3)]
    np.testing.assert_allclose(crps_values(y, draws), np.mean(by_column, axis=0), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_score_is_unbiased_for_any_number_of_draws(n):
    """Of N(0, 1) at y it is y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi) (Gneiting and Raftery, 2007)."""
    rng = np.random.default_rng(n)
    scores = crps_values(np.full((20_000, 1), 0.7), rng.normal(size=(20_000, n, 1)))
    exact = 0.7 * (2 * norm.cdf(0.7) - 1) + 2 * norm.pdf(0.7) - 1 / np.sqrt(np.pi)
    error = scores.std() / np.sqrt(20_000)
    assert abs(scores.mean() - exact) < 4 * error
    assert error < 0.01  # the score of the draws themselves would be off by .56 / n


def test_far_from_zero_no_digits_are_lost():
    rng = np.random.default_rng(2)
    y, draws = rng.integers(-9, 9, size=(5, 2)).astype(float), rng.integers(-9, 9, size=(5, 20, 2)).astype(float)
    np.testing.assert_allclose(crps_values(y + 2.0**50, draws + 2.0**50), crps_values(y, draws), rtol=1e-14)


def test_columns_that_do_not_go_together_are_not_noticed():
    """What the docstring says of it: the energy score sees what this one does not."""
    rng = np.random.default_rng(3)
    y, draws = rng.normal(size=(3000, 1)) * [1, 1], rng.normal(size=(3000, 20, 1)) * [1, 1]
    crossed = np.stack([draws[..., 0], np.roll(draws[..., 1], 1, axis=1)], axis=2)
    np.testing.assert_allclose(crps_values(y, crossed), crps_values(y, draws), rtol=1e-12)
    assert energy_scores(y, crossed).mean() > energy_scores(y, draws).mean() + 0.02


def test_one_draw_and_a_scale():
    assert crps_values([[0.0, 1.0]], [[[3.0, 2.0]]])[0] == 2
    rng = np.random.default_rng(4)
    y, draws, scale = rng.normal(size=(5, 2)), rng.normal(size=(5, 4, 2)), np.array([2.0, 0.1])
    np.testing.assert_allclose(crps_values(y, draws, scale), crps_values(y / scale, draws / scale))


def test_measure_has_interval_and_floor():
    rng = np.random.default_rng(5)
    y, draws, real = rng.normal(size=(400, 1)), 1 + rng.normal(size=(400, 8, 1)), rng.normal(size=(400, 30, 1))
    measure = crps(y, draws, reference=real, seed=1)
    assert measure.value == pytest.approx(crps_values(y, draws).mean())
    assert measure.floor == pytest.approx(crps_values(y, real).mean())
    assert measure.low is not None
    assert measure.floor is not None
    assert measure.floor < measure.low < measure.value
    assert measure.n == 400
    assert crps(y, draws, reference=real, seed=1) == measure != crps(y, draws, reference=real, seed=2)
    assert crps(y, draws).floor is None


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"y must be \(rows, dy\) and draws \(rows, n, dy\); got \(3,\) and \(3, 4\)"):
        crps_values(np.zeros(3), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="y must be finite: 1 rows are not, the first is 0"):
        crps_values([[np.inf]], [[[0.0]]])
    with pytest.raises(ValueError, match="scale must be 1 positive numbers"):
        crps_values([[0.0]], [[[0.0]]], [-1.0])
