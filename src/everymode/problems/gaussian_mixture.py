"""A mixture of Gaussians with everything a path from noise to data needs in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax

from everymode.errors import DataError
from everymode.problems.base import draw_labels

__all__ = ["GaussianMixture"]


class GaussianMixture:
    """p(y) = sum_k w_k N(y; m_k, C_k).

    On the path `y_t = alpha y + sigma noise` each component stays Gaussian, with mean `alpha m_k` and
    covariance `alpha^2 C_k + sigma^2 I`, so the density of y_t and E[y | y_t] are closed forms; the marginal
    score and velocity follow from the latter.

    Args:
        weights: `(k,)`, not negative, sum 1.
        means: `(k, d)`.
        covariances: `(k, d, d)`, symmetric and positive definite.
    """

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> None:
        self.weights = np.asarray(weights, float)
        self.means = np.asarray(means, float)
        self.covariances = np.asarray(covariances, float)
        k, d = len(self.weights), self.means.shape[-1]
        shapes = self.weights.shape, self.means.shape, self.covariances.shape
        if shapes != ((k,), (k, d), (k, d, d)):
            raise DataError(
                "weights, means and covariances must have shapes (k,), (k, d), (k, d, d); "
                f"got {shapes[0]}, {shapes[1]}, {shapes[2]}"
            )
        if np.any(self.weights < 0) or not np.isclose(self.weights.sum(), 1):
            raise DataError(f"weights must not be negative and must sum to 1, got {self.weights}")
        if not np.allclose(self.covariances, self.covariances.swapaxes(-1, -2)):
            raise DataError("every covariance must be symmetric")
        self._variances, self._axes = np.linalg.eigh(self.covariances)  # (k, d), (k, d, d)
        if np.any(self._variances <= 0):
            raise DataError(
                f"every covariance must be positive definite; the least eigenvalue is {self._variances.min()}"
            )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """Draw n points, `(n, d)`."""
        rng = np.random.default_rng(seed)
        labels = draw_labels(self.weights[None], n, rng)[0]
        noise = np.sqrt(self._variances)[labels] * rng.standard_normal((n, self.means.shape[1]))
        return self.means[labels] + np.einsum("nij,nj->ni", self._axes[labels], noise)

    def log_density(self, y: ArrayLike) -> np.ndarray:
        """log p(y) in nats for y `(..., d)`."""
        return self.log_density_at(y, 1.0, 0.0)

    def mean(self) -> np.ndarray:
        """E[y], `(d,)`."""
        return self.weights @ self.means

    def covariance(self) -> np.ndarray:
        """Cov[y], `(d, d)`."""
        centred = self.means - self.mean()
        return np.einsum("k,kij->ij", self.weights, self.covariances + centred[:, :, None] * centred[:, None])

    def log_density_at(self, y_t: ArrayLike, alpha: float, sigma: float) -> np.ndarray:
        """log of the density of `y_t = alpha y + sigma noise`, in nats, for y_t `(..., d)`."""
        return np.asarray(logsumexp(self._log_joint(*self._along_axes(y_t, alpha, sigma)), axis=-1))

    def expected_data(self, y_t: ArrayLike, alpha: float, sigma: float) -> np.ndarray:
        """E[y | y_t] where `y_t = alpha y + sigma noise`: the best guess of the data, `(..., d)`."""
        offsets, variances = self._along_axes(y_t, alpha, sigma)
        shares = softmax(self._log_joint(offsets, variances), axis=-1)  # (..., k)
        shifts = np.einsum("kij,...kj->...ki", self._axes, alpha * self._variances / variances * offsets)
        return np.einsum("...k,...ki->...i", shares, self.means + shifts)

    def _along_axes(self, y_t: ArrayLike, alpha: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Offsets of y_t from the means of y_t's components along their axes `(..., k, d)`, and variances."""
        y_t = np.asarray(y_t, float)
        if y_t.shape[-1:] != self.means.shape[1:]:
            raise DataError(f"y must have shape (..., {self.means.shape[1]}), got {y_t.shape}")
        if alpha == 0 and sigma == 0:
            raise DataError("alpha and sigma are both 0: then y_t holds neither data nor noise")
        offsets = np.einsum("kij,...ki->...kj", self._axes, y_t[..., None, :] - alpha * self.means)
        return offsets, alpha**2 * self._variances + sigma**2

    def _log_joint(self, offsets: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Log of each component's weight times its density, `(..., k)`."""
        with np.errstate(divide="ignore"):  # a component of weight 0 has log weight -inf, as it should
            log_weights = np.log(self.weights)
        return log_weights - 0.5 * (offsets**2 / variances + np.log(2 * np.pi * variances)).sum(axis=-1)
