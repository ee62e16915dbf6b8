"""The continuous ranked probability score: the energy score of each column by itself, by sorting."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_score
from everymode.metrics.samples import beside_answers

__all__ = ["crps", "crps_values"]


def crps(
    y: ArrayLike,
    draws: ArrayLike,
    scale: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    seed: int = 0,
) -> Measure:
    """Mean CRPS over columns and rows, lower is better; in the units of y unless `scale` is given.

    Args:
        y: what happened, `(rows, dy)`.
        draws: `(rows, n, dy)`.
        scale: `(dy,)`, what to divide each column by.
        reference: real draws, `(rows, m, dy)`; their score is the floor. Being fair, it does not depend on m.
        seed: of the bootstrap over rows that gives the interval.
    """
    return mean_score(crps_values, y, draws, reference, seed, scale=scale)


def crps_values(y: ArrayLike, draws: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
    """The fair CRPS of each row, `(rows,)`: that of every column, averaged over columns.

    `mean_i |draw_i - y| - sum_{i != j} |draw_i - draw_j| / (2 n (n - 1))`: an unbiased estimate of the score that the
    distribution of the draws would get, for any n. The second sum is found by sorting, in O(n log n). A single draw is
    taken for a distribution at one point, whose score is `|draw - y|`. Of one column it is the energy score.

    As published: `scoringrules.crps_ensemble(..., estimator="fair")` is the same number. Its default, "qd", as
    properscoring and recent versions of torchmetrics, divides by n^2 in place of n (n - 1): the score of the draws
    themselves, above that of their distribution by E|draw_i - draw_j| / (2 n), so that more draws score better.

    Fails: columns are looked at one by one, and answers whose columns do not go together score as well as answers
    whose columns do. Read it beside `energy_score` or `variogram_score`.

    References:
        Scoring rules for continuous probability distributions (Matheson and Winkler, 1976),
        https://doi.org/10.1287/mnsc.22.10.1087; Fair scores for ensemble forecasts (Ferro, 2014),
        https://doi.org/10.1002/qj.2270
    """
    y, draws = beside_answers(y, draws, scale)
    n = draws.shape[1]
    away = np.sort(draws - y[:, None], axis=1)  # near 0, so that the sums below lose no digits far from it
    scores = np.abs(away).mean(axis=1)
    if n > 1:
        times = 2 * np.arange(n) - (n - 1)  # how often a draw is the greater of a pair, less how often the smaller
        scores -= np.einsum("i,rid->rd", times, away) / (n * (n - 1))
    return scores.mean(axis=1)
