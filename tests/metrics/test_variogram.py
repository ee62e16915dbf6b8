import numpy as np
import pytest

from everymode.metrics import variogram_score, variogram_scores


def test_equals_a_value_found_by_hand():
    # |differences|^.5 of the draws are 1 and 3: mean 2, unbiased variance 2. That of y is 0: 2^2 - 2 / 2 = 3, twice.
    assert variogram_scores([[0.0, 0.0]], [[[0.0, 1.0], [9.0, 0.0]]])[0] == pytest.approx(6)
    assert variogram_scores([[0.0, 0.0]], [[[0.0, 4.0]]])[0] == pytest.approx(2 * 4)  # one draw: nothing subtracted


def test_order_and_weights():
    rng = np.random.default_rng(0)
    y, draws, weights = rng.normal(size=(4, 3)), rng.normal(size=(4, 6, 3)), rng.uniform(size=(3, 3))
    expected = np.zeros(4)
    for i in range(3):
        for j in range(3):
            drawn = np.abs(draws[:, :, i] - draws[:, :, j]) ** 1.5
            square = (drawn.mean(axis=1) - np.abs(y[:, i] - y[:, j]) ** 1.5) ** 2
            expected += weights[i, j] * (square - drawn.var(axis=1, ddof=1) / 6)
    np.testing.assert_allclose(variogram_scores(y, draws, order=1.5, weights=weights), expected)
    np.testing.assert_allclose(
        variogram_scores(y, draws, weights=np.full((3, 3), 2.0)), 2 * variogram_scores(y, draws), rtol=1e-12
    )


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_score_is_unbiased_for_any_number_of_draws(n):
    """For order 2 and two independent N(0, 1), E(a - b)^2 = 2, and y with (y_1 - y_2)^2 = 1 scores 2 (2 - 1)^2."""
    rng = np.random.default_rng(n)
    scores = variogram_scores(np.array([[0.0, 1.0]] * 40_000), rng.normal(size=(40_000, n, 2)), order=2)
    error = scores.std() / np.sqrt(40_000)
    assert abs(scores.mean() - 2) < 4 * error
    assert error < 0.4 / n  # the score of the draws themselves is off by 2 * 8 / n


def test_the_truth_scores_best():
    rng = np.random.default_rng(1)
    covariance = np.array([[1, 0.9], [0.9, 1]])
    y = rng.multivariate_normal([0, 0], covariance, 4000)
    truth = rng.multivariate_normal([0, 0], covariance, (4000, 20))
    real = variogram_scores(y, truth)
    for other in (np.zeros_like(truth), rng.normal(size=truth.shape), 2 * truth):
        worse = variogram_scores(y, other) - real
        assert worse.mean() > 4 * worse.std() / np.sqrt(4000)


def test_a_shift_or_a_mirror_of_all_columns_is_not_noticed():
    """What the docstring says of it."""
    rng = np.random.default_rng(2)
    y, draws = rng.normal(size=(5, 3)), rng.normal(size=(5, 9, 3))
    np.testing.assert_allclose(variogram_scores(y, draws + 7), variogram_scores(y, draws), rtol=1e-9)
    np.testing.assert_allclose(variogram_scores(y, -draws), variogram_scores(y, draws), rtol=1e-12)


def test_scale_divides_each_column():
    rng = np.random.default_rng(3)
    y, draws, scale = rng.normal(size=(5, 2)), rng.normal(size=(5, 4, 2)), np.array([2.0, 0.1])
    np.testing.assert_allclose(variogram_scores(y, draws, scale), variogram_scores(y / scale, draws / scale))


def test_measure_has_interval_and_floor():
    rng = np.random.default_rng(4)
    y, draws, real = rng.normal(size=(400, 2)), 3 * rng.normal(size=(400, 8, 2)), rng.normal(size=(400, 30, 2))
    measure = variogram_score(y, draws, reference=real, order=1, weights=np.ones((2, 2)), seed=1)
    assert measure.value == pytest.approx(variogram_scores(y, draws, order=1).mean())
    assert measure.floor == pytest.approx(variogram_scores(y, real, order=1).mean())
    assert measure.low is not None
    assert measure.floor is not None
    assert measure.floor < measure.low < measure.value
    assert measure.n == 400
    assert variogram_score(y, draws).floor is None


def test_bad_input_is_refused():
    two = np.zeros((3, 2)), np.zeros((3, 4, 2))
    with pytest.raises(ValueError, match="compares columns of y, and there is one: use crps"):
        variogram_scores(np.zeros((3, 1)), np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 4, 1\)"):
        variogram_scores(np.zeros((3, 2)), np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match="order=0 is out of range"):
        variogram_scores(*two, order=0)
    with pytest.raises(ValueError, match="weights must be 2 x 2 numbers, none below 0"):
        variogram_scores(*two, weights=[[1.0, -1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="weights must be 2 x 2"):
        variogram_scores(*two, weights=[1.0, 1.0])
