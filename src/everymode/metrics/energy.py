"""The energy score: one number for how well draws fit what happened, near and far, sharp and wide."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_score
from everymode.metrics.samples import beside_answers

__all__ = ["energy_score", "energy_scores"]

_DRAWS_AT_ONCE = 512


def energy_score(
    y: ArrayLike,
    draws: ArrayLike,
    scale: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    seed: int = 0,
) -> Measure:
    """Mean energy score over rows, lower is better; in the units of y unless `scale` is given.

    Args:
        y: what happened, `(rows, dy)`.
        draws: `(rows, n, dy)`.
        scale: `(dy,)`, what to divide each column by.
        reference: real draws, `(rows, m, dy)`; their score is the floor. Being fair, it does not depend on m.
        seed: of the bootstrap over rows that gives the interval.
    """
    return mean_score(energy_scores, y, draws, reference, seed, scale=scale)


def energy_scores(y: ArrayLike, draws: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
    """The fair energy score of each row, `(rows,)`.

    `mean_i |draw_i - y| - sum_{i != j} |draw_i - draw_j| / (2 n (n - 1))`: an unbiased estimate of the score
    that the distribution of the draws would get, for any n. A single draw says nothing of its distribution:
    it is taken for a distribution at one point, whose score is `|draw - y|`.

    As published: `scoringrules.es_ensemble(..., estimator="fair")` is the same number. Its default, "nrg", divides by
    n^2 in place of n (n - 1): the score of the draws themselves, above that of their distribution by
    E|draw_i - draw_j| / (2 n). The mean over real y, less half the mean distance between them, is half of what
    `scipy.stats.energy_distance` squares, where that leaves in the pairs i = j and takes one column.

    References:
        Strictly proper scoring rules, prediction, and estimation (Gneiting and Raftery, 2007),
        https://doi.org/10.1198/016214506000001437; Fair scores for ensemble forecasts (Ferro, 2014),
        https://doi.org/10.1002/qj.2270
    """
    y, draws = beside_answers(y, draws, scale)
    n = draws.shape[1]
    to_truth = np.array([cdist(target[None], row).mean() for target, row in zip(y, draws, strict=True)])
    if n == 1:
        return to_truth
    return to_truth - np.array([_sum_of_distances(row) for row in draws]) / (2 * n * (n - 1))


def _sum_of_distances(draws: np.ndarray) -> float:
    """Sum of |draw_i - draw_j| over all i and j, a block of rows of the distance matrix at a time."""
    starts = range(0, len(draws), _DRAWS_AT_ONCE)
    return sum(float(cdist(draws[start : start + _DRAWS_AT_ONCE], draws).sum()) for start in starts)
