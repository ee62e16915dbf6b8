import numpy as np
import pytest

from everymode.problems import GaussianMixture


@pytest.fixture
def mixture():
    return GaussianMixture(
        [0.2, 0.5, 0.3],
        [[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]],
        [[[0.3, 0.1], [0.1, 0.2]], [[0.5, -0.2], [-0.2, 0.4]], [[0.1, 0.0], [0.0, 0.6]]],
    )


def plane(centre, half, cells):
    axes = [c - half + (np.arange(cells) + 0.5) * 2 * half / cells for c in centre]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), (2 * half / cells) ** 2


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.6, 0.8), (0.0, 1.0)])
def test_density_of_the_path_integrates_to_one(mixture, alpha, sigma):
    points, size = plane((0, 0), 8, 400)
    assert np.exp(mixture.log_density_at(points, alpha, sigma)).sum() * size == pytest.approx(1, abs=1e-6)


def test_mean_and_covariance_by_quadrature(mixture):
    points, size = plane((0, 0), 8, 400)
    p = np.exp(mixture.log_density(points)) * size
    np.testing.assert_allclose(np.einsum("ij,ijd->d", p, points), mixture.mean(), atol=1e-6)
    centred = points - mixture.mean()
    np.testing.assert_allclose(np.einsum("ij,ijd,ije->de", p, centred, centred), mixture.covariance(), atol=1e-6)


def test_samples_have_the_mean_and_covariance(mixture):
    y = mixture.sample(50_000, 0)
    np.testing.assert_array_equal(y[:10], mixture.sample(50_000, 0)[:10])
    np.testing.assert_allclose(y.mean(axis=0), mixture.mean(), atol=0.04)
    np.testing.assert_allclose(np.cov(y.T), mixture.covariance(), atol=0.08)
    log_p = mixture.log_density(y)
    points, size = plane((0, 0), 8, 400)
    grid = mixture.log_density(points)
    assert abs(log_p.mean() - (np.exp(grid) * grid).sum() * size) < 4 * log_p.std() / np.sqrt(len(y))


@pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.3), (0.5, 0.7), (0.1, 2.0)])
def test_expected_data_obeys_tweedie(mixture, alpha, sigma):
    """E[y | y_t] = (y_t + sigma^2 score(y_t)) / alpha, the score by central differences."""
    y_t = np.random.default_rng(0).normal(0, 2, (50, 2))
    h = 1e-5
    score = np.stack(
        [
            (mixture.log_density_at(y_t + e, alpha, sigma) - mixture.log_density_at(y_t - e, alpha, sigma)) / (2 * h)
            for e in h * np.eye(2)
        ],
        axis=-1,
    )
    expected = (y_t + sigma**2 * score) / alpha
    np.testing.assert_allclose(mixture.expected_data(y_t, alpha, sigma), expected, atol=1e-6)


def test_expected_data_is_the_best_guess(mixture):
    """Averaged over a cell of y_t, data and expected data agree within the standard error."""
    alpha, sigma, n = 0.7, 0.7, 200_000
    rng = np.random.default_rng(1)
    y = mixture.sample(n, 2)
    y_t = alpha * y + sigma * rng.standard_normal(y.shape)
    residual = y - mixture.expected_data(y_t, alpha, sigma)
    cells = (np.digitize(y_t[:, 0], [-1, 0, 1]), np.digitize(y_t[:, 1], [-1, 0, 1]))
    for i in range(4):
        for j in range(4):
            here = residual[(cells[0] == i) & (cells[1] == j)]
            assert np.all(np.abs(here.mean(axis=0)) < 4.5 * here.std(axis=0) / np.sqrt(len(here)))


def test_expected_data_at_the_ends(mixture):
    y_t = np.random.default_rng(3).normal(0, 3, (20, 2))
    np.testing.assert_allclose(mixture.expected_data(y_t, 1.0, 0.0), y_t, atol=1e-12)
    np.testing.assert_allclose(mixture.expected_data(y_t, 0.0, 1.0), np.tile(mixture.mean(), (20, 1)))


def test_far_points_stay_finite(mixture):
    far = np.array([[1e4, -1e4]])
    assert np.isfinite(mixture.log_density(far)).all()
    assert np.isfinite(mixture.expected_data(far, 0.5, 0.1)).all()


def test_points_of_any_leading_shape(mixture):
    points = np.zeros((3, 4, 2))
    assert mixture.log_density(points).shape == (3, 4)
    assert mixture.expected_data(points, 0.5, 0.5).shape == (3, 4, 2)
    assert mixture.expected_data(points[0, 0], 0.5, 0.5).shape == (2,)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        ([1.0], [[0.0, 0.0]], [[[1.0]]], r"got \(1,\), \(1, 2\), \(1, 1, 1\)"),
        ([0.5, 0.6], [[0.0], [1.0]], [[[1.0]], [[1.0]]], "sum to 1"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]], "symmetric"),
        ([1.0], [[0.0]], [[[-1.0]]], "positive definite"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, means, covariances, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, means, covariances)


def test_wrong_points_are_refused(mixture):
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\), got \(5, 3\)"):
        mixture.log_density(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="both 0"):
        mixture.expected_data(np.zeros((5, 2)), 0, 0)
