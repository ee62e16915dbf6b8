"""The variogram score: do the columns of an answer go together as those of what happened?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import DataError, check_number
from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_score
from everymode.metrics.samples import beside_answers

__all__ = ["variogram_score", "variogram_scores"]


def variogram_score(
    y: ArrayLike,
    draws: ArrayLike,
    scale: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    seed: int = 0,
    *,
    order: float = 0.5,
    weights: ArrayLike | None = None,
) -> Measure:
    """Mean variogram score over rows, lower is better; in the units of y to the power 2 `order`, unless scaled.

    Args:
        y: what happened, `(rows, dy)`, dy at least 2.
        draws: `(rows, n, dy)`.
        scale: `(dy,)`, what to divide each column by.
        reference: real draws, `(rows, m, dy)`; their score is the floor. Being fair, it does not depend on m.
        seed: of the bootstrap over rows that gives the interval.
        order: the power p of the differences.
        weights: `(dy, dy)`, of the pairs of columns; 1 if None.
    """
    settings = {"scale": scale, "order": order, "weights": weights}
    return mean_score(variogram_scores, y, draws, reference, seed, **settings)


def variogram_scores(
    y: ArrayLike,
    draws: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    order: float = 0.5,
    weights: ArrayLike | None = None,
) -> np.ndarray:
    """The fair variogram score of each row, `(rows,)`.

    `sum_{ij} w_ij ((m_ij - |y_i - y_j|^p)^2 - s_ij^2 / n)`, where m_ij and s_ij^2 are the mean and the unbiased
    variance of `|draw_i - draw_j|^p` over the n draws. Without the last term it is the published estimate, the
    score of the draws themselves: above that of their distribution by the variance of m_ij, on average. With it, the
    estimate is unbiased for any n, and may fall below 0 in a row. A single draw is taken for a distribution at one
    point, and nothing is subtracted.

    As published: `scoringrules.vs_ensemble(..., estimator="fair")` is the same number, by all pairs of draws in
    place of a variance; its default, "nrg", is the biased one.

    Fails: it sees only how columns differ from each other. Draws that are off by the same amount in all columns,
    or mirrored in all, score as well as the truth: read it beside `crps` or `energy_score`.

    References:
        Variogram-based proper scoring rules for probabilistic forecasts of multivariate quantities (Scheuerer and
        Hamill, 2015), https://doi.org/10.1175/MWR-D-14-00269.1; Fair scores for ensemble forecasts (Ferro, 2014),
        https://doi.org/10.1002/qj.2270
    """
    check_number("order", order, 0, exclusive_low=True)
    y, draws = beside_answers(y, draws, scale)
    n, dy = draws.shape[1:]
    if dy < 2:
        raise DataError("the variogram score compares columns of y, and there is one: use crps")
    both_ways = _both_ways(weights, dy)
    scores = np.zeros(len(y))
    for column in range(dy - 1):
        drawn = np.abs(draws[:, :, column + 1 :] - draws[:, :, column, None]) ** order
        true = np.abs(y[:, column + 1 :] - y[:, column, None]) ** order
        squares = (drawn.mean(axis=1) - true) ** 2
        if n > 1:
            squares -= drawn.var(axis=1, ddof=1) / n
        scores += squares @ both_ways[column, column + 1 :]
    return scores


def _both_ways(weights: ArrayLike | None, dy: int) -> np.ndarray:
    """The weights of the pairs (i, j) and (j, i) together, `(dy, dy)`."""
    if weights is None:
        return np.full((dy, dy), 2.0)
    weights = np.asarray(weights, float)
    if weights.shape != (dy, dy) or not np.all((weights >= 0) & np.isfinite(weights)):
        raise DataError(f"weights must be {dy} x {dy} numbers, none below 0, one a pair of columns; got {weights}")
    return weights + weights.T
