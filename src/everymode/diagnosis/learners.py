"""What is learned of y given x before valleys are looked for: the average, and mixtures of what it leaves.

The average is told by trees and a ridge regression of degree two, each row's by models that have not seen it.
What is left is told by two learners: one Gaussian mixture for all x, which few rows suffice for, and a mixture density
network, whose answers move, part and vanish with x.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from everymode.diagnosis.forests import out_of_bag
from everymode.diagnosis.valleys import Mixtures
from everymode.estimator import OneToManyRegressor
from everymode.families import MDN

__all__ = ["LEARNERS", "Averages"]

_PARTS = 3
_MANY = 3000  # rows that a wider network and longer training pay for; on fewer it overfits, and bets in vain
_AGREED = 1.0  # in halves of the range of 68 % of what is left
_TREES, _LEAF, _TREE_ROWS = 60, 3, 4000
_MOST_COMPONENTS, _MIXTURE_ROWS = 12, 5000
_NO_BETTER = 3  # numbers of components without a lower BIC

Learner = Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], Mixtures]]
"""(x, what is left of y, seed) -> (x -> mixtures)."""


class Average:
    """E[y | x]: a ridge regression of degree two, trees on what it leaves too, or trees; for each target the best."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        rows, size = x.shape
        degree = 2 if size * (size + 3) / 2 < rows / 8 else 1
        self._terms = make_pipeline(StandardScaler(), PolynomialFeatures(degree, include_bias=False), StandardScaler())
        terms = self._terms.fit_transform(x)
        self._ridge = RidgeCV(np.logspace(-1, 4, 11), alpha_per_target=y.shape[1] > 1).fit(terms, y)
        left = y - self._ridge.predict(terms).reshape(y.shape)
        self._trees, error = _trees(x, y, seed)
        self._trees_on_left, error_on_left = _trees(x, left, seed)
        smooth_error = (left**2).mean(axis=0) * (1 + 2 * terms.shape[1] / rows)
        self._smooth = np.minimum(smooth_error, error_on_left) <= error
        self._left = error_on_left < smooth_error

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the averages (rows, d)."""
        told = self._ridge.predict(self._terms.transform(x)).reshape(len(x), -1)
        if (self._smooth & self._left).any():
            told = told + self._left * self._trees_on_left.predict(x).reshape(told.shape)
        return told if self._smooth.all() else np.where(self._smooth, told, self._trees.predict(x).reshape(told.shape))


def _trees(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[ExtraTreesRegressor, np.ndarray]:
    """Return trees, and their mean squared errors on rows that they were not grown on, (d,)."""
    trees, unseen = out_of_bag(x, y, trees=_TREES, leaf=_LEAF, seed=seed, rows=_TREE_ROWS)
    return trees, ((y - unseen) ** 2).mean(axis=0)


@dataclass(frozen=True)
class Averages:
    """E[y | x] by models of several parts of the rows.

    Attributes:
        fits: one a part, which it has not seen.
        left: what they leave of each y that they have not seen, (rows, d).
    """

    fits: tuple[Average, ...]
    left: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, together: np.ndarray, seed: int) -> Averages:
        """Learn from rows x (rows, columns), y (rows, d), of groups (rows,), each of which is in one part."""
        numbers, group = np.unique(together, return_inverse=True)
        part = (np.random.default_rng(seed).permutation(len(numbers)) % _PARTS)[group]
        fits, left = [], np.empty_like(y)
        for k in range(_PARTS):
            fits.append(Average(x[part != k], y[part != k], seed + k))
            left[part == k] = y[part == k] - fits[-1](x[part == k])
        return cls(tuple(fits), left)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the averages (rows, d), and whether the fits agree on them, within what is left, (rows,)."""
        told = np.stack([fit(x) for fit in self.fits])
        low, high = np.quantile(self.left, [0.16, 0.84], axis=0)
        apart = np.ptp(told, axis=0) / np.maximum((high - low) / 2, 1e-12)
        return told.mean(axis=0), apart.max(axis=1) < _AGREED


def one_for_all(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], Mixtures]:
    """Learn one Gaussian mixture, with as many components as BIC asks for."""
    chosen = y[np.random.default_rng(seed).permutation(len(y))[:_MIXTURE_ROWS]]
    fits: list[tuple[float, GaussianMixture]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in range(1, _MOST_COMPONENTS + 1):
            best = int(np.argmin([bic for bic, _ in fits])) if fits else 0
            if fits and (len(chosen) < 10 * k * (y.shape[1] + 1) or k - 1 - best > _NO_BETTER):
                break
            fit = GaussianMixture(k, reg_covar=1e-3, max_iter=60, random_state=seed).fit(chosen)
            fits.append((float(fit.bic(chosen)), fit))
    fit: Any = min(fits, key=lambda pair: pair[0])[1]
    found = Mixtures(np.log(fit.weights_)[None], fit.means_[None], np.linalg.cholesky(fit.covariances_)[None])

    def mixtures(asked: np.ndarray) -> Mixtures:
        parts = (found.log_weights, found.means, found.roots)
        return Mixtures(*(np.broadcast_to(part, (len(asked), *part.shape[1:])) for part in parts))

    return mixtures


def one_for_each(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], Mixtures]:
    """Learn a mixture density network."""
    many = len(x) > _MANY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = OneToManyRegressor(
            MDN(components=8),
            width=64 if many else 16,
            depth=2,
            steps=1000 if many else 400,
            batch_size=256,
            weight_decay=1.0,
            patience=3,
            precision="float32",
            device="cpu",
            random_state=seed,
        ).fit(x, y)
    family: Any = model.family_
    space, x_space = model.y_space_, model.x_space_
    scale, shift = (space.per_value(part).reshape(-1) for part in (space.scale, space.shift))

    def mixtures(asked: np.ndarray) -> Mixtures:
        with torch.inference_mode():
            told = family.encode(x_space.encode(asked))
            roots = family.roots(told)
        log_weights, means = (told[key].double().numpy() for key in ("log_weights", "means"))
        return Mixtures(log_weights, shift + scale * means, scale[:, None] * roots.double().numpy())

    return mixtures


LEARNERS: dict[str, Learner] = {"one for all": one_for_all, "one for each": one_for_each}
