"""Problems whose y given x is a mixture of isotropic Gaussians: all else follows from the components."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.stats import chi2

from everymode.problems.base import Modes, Problem, draw_labels

__all__ = ["MixtureProblem"]


@dataclass(frozen=True)
class MixtureProblem(Problem):
    """p(y | x) = sum_k w_k(x) N(y; m_k(x), s_k(x)^2 I), component k being the mode `mode_names[k]`.

    A component of weight 0 does not exist for that x. A mode's location is its component's mean and its
    spread `s_k sqrt(dy)`; modes of probability under .01 are dropped and the rest renormalised.

    Valid: within the ball that holds 99.9 % of the nearest component's draws, distances being measured in
    that component's own scale. A draw belongs to that component.
    """

    def components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights `(rows, k)`, means `(rows, k, dy)` and scales `(rows, k)` for x `(rows, dx)`."""
        return self._components(self._checked_x(x))

    @abstractmethod
    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        weights, means, scales = self._components(x)
        labels = draw_labels(weights, n, rng)
        rows = np.arange(len(x))[:, None]
        noise = rng.standard_normal((*labels.shape, means.shape[-1]))
        return means[rows, labels] + scales[rows, labels][..., None] * noise

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        weights, means, scales = self._components(x)
        distance = _standard_distance(y, means, scales)
        peak = -means.shape[-1] * np.log(scales * np.sqrt(2 * np.pi))[:, None]
        return np.asarray(logsumexp(peak - distance**2 / 2, b=weights[:, None], axis=-1))

    def _modes(self, x: np.ndarray) -> list[Modes]:
        weights, means, scales = self._components(x)
        labels = np.arange(weights.shape[1])
        spreads = scales * np.sqrt(means.shape[-1])
        return [Modes.ranked(labels, m, w, s) for w, m, s in zip(weights, means, spreads, strict=True)]

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        weights, means, scales = self._components(x)
        distance = np.where(weights[:, None] > 0, _standard_distance(y, means, scales), np.inf)
        reach = np.sqrt(chi2.ppf(0.999, means.shape[-1]))
        return np.where(distance.min(axis=-1) <= reach, distance.argmin(axis=-1), -1)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        weights, means, _ = self._components(x)
        return np.einsum("rk,rkd->rd", weights, means)


def _standard_distance(y: np.ndarray, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Distance of y `(rows, n, dy)` from each component in units of its scale, `(rows, n, k)`."""
    return np.linalg.norm(y[:, :, None] - means[:, None], axis=-1) / scales[:, None]
