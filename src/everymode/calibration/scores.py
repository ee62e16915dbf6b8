"""Scores that treat y and the draws alike, so that the rank of y's score among theirs is uniform under calibration.

A score of many values in one number (a pre-rank) makes ranks of vectors. Those of two halves are learned from one half
of the draws, and rank y among the other half: y and these are then treated alike, whatever is learned.

References:
    Assessing probabilistic forecasts of multivariate quantities, with an application to ensemble predictions of surface
    winds (Gneiting et al., 2008), https://doi.org/10.1007/s11749-008-0114-x: ranks of vectors
    Assessing the calibration of high-dimensional ensemble forecasts using rank histograms (Thorarinsdottir, Scheuerer
    and Heinz, 2016), https://arxiv.org/abs/1310.0236: the average rank
    Sampling-based accuracy testing of posterior estimators for general inference (Lemos et al., 2023),
    https://arxiv.org/abs/2302.03026: distances to reference points
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import KDTree
from scipy.special import gammaln
from scipy.stats import rankdata

__all__ = ["FAR", "Halves", "average_rank", "energy", "references", "to_references"]

FAR = 3.0
"""Of `Halves.gap`: y is then no answer of a mode that the draws have, unless that is far too narrow."""

_NUMBERS_AT_ONCE = 4_000_000
_MOST_DRAWS = 400  # that all distances are taken between; neighbours are those among half as many
_REACH, _AROUND = 5, 10  # neighbours that the local unit reaches to, and draws that it is the median of

Scores = tuple[np.ndarray, np.ndarray]
"""Of y (rows,), and of the draws (rows, n)."""


def average_rank(y: np.ndarray, draws: np.ndarray) -> Scores:
    """Return the mean over the columns of the rank within y and the draws together."""
    together = np.concatenate([y[:, None], draws], axis=1)
    return _parted(rankdata(together, axis=1).mean(axis=2))


def energy(y: np.ndarray, draws: np.ndarray) -> Scores:
    """Return the mean distance to all of y and the draws: large at the rim."""
    together = np.concatenate([y[:, None], draws[:, :_MOST_DRAWS]], axis=1)
    return _parted(_in_blocks(lambda rows: _distances(together[rows], together[rows]).mean(axis=2), together))


def to_references(y: np.ndarray, draws: np.ndarray, points: np.ndarray) -> Scores:
    """Return the distances to one point a row, (rows, d)."""
    together = np.concatenate([y[:, None], draws], axis=1)
    return _parted(np.sqrt(((together - points[:, None]) ** 2).sum(axis=2)))


class Halves:
    """What is learned from one half of the draws, of y and of the other half.

    Attributes:
        log_density: that of nearest neighbours, up to a constant that all rows share.
        gap: the distance to the nearest draw, in what draws around that one are from their fifth neighbours.
    """

    def __init__(self, y: np.ndarray, draws: np.ndarray) -> None:
        half = min(draws.shape[1], _MOST_DRAWS) // 2
        self._known, self._asked = draws[:, :half], np.concatenate([y[:, None], draws[:, half:]], axis=1)
        self._near = max(1, round(half**0.25))
        found = _in_blocks(self._look, draws)
        size = y.shape[1]
        ball = 0.5 * size * np.log(np.pi) - gammaln(size / 2 + 1)
        with np.errstate(divide="ignore"):  # draws that are equal: an infinite density
            log_density = np.log(self._near / half) - ball - size * np.log(found[..., 0])
        self.log_density, self.gap = _parted(log_density), _parted(found[..., 1])

    def _look(self, rows: slice) -> np.ndarray:
        away = _distances(self._asked[rows], self._known[rows])
        among = _distances(self._known[rows], self._known[rows])
        most = among.shape[2] - 1
        reach = np.partition(among, min(_REACH, most), axis=2)[:, :, min(_REACH, most)]
        around = np.argpartition(among, min(_AROUND, most), axis=2)[:, :, :_AROUND]
        units = np.median(reach[np.arange(len(reach))[:, None, None], around], axis=2)
        nearest = away.argmin(axis=2)
        least, unit = away.min(axis=2), np.take_along_axis(units, nearest, axis=1)
        gap = np.divide(least, unit, out=np.where(least > 0, np.inf, 0.0), where=unit > 0)
        return np.stack([np.partition(away, self._near - 1, axis=2)[:, :, self._near - 1], gap], axis=2)


def references(rows: int, x: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return for each row the number of another, whose y it is measured from; -1 for one row, which has none.

    Rows are put in a random order, and each refers to a later one: the next, or, with `x` (rows, columns), one of the
    nearest in x among the later half of those that are left. So no two refer to each other, directly or through others,
    and the ranks of different rows stay independent. References that depend on x see a model that does not look at x.
    """
    left = rng.permutation(rows)
    found = np.full(rows, -1)
    if x is None:
        found[left[:-1]] = left[1:]
        return found
    spread = x.std(axis=0)
    x = x / np.where(spread > 0, spread, 1.0)
    while len(left) > 1:
        asked, left = left[: len(left) // 2], left[len(left) // 2 :]
        found[asked] = left[KDTree(x[left]).query(x[asked])[1]]
    return found


def _parted(values: np.ndarray) -> Scores:
    return values[:, 0], values[:, 1:]


def _in_blocks(work: Callable[[slice], np.ndarray], like: np.ndarray) -> np.ndarray:
    """Return what `work` says of the rows of `like` (rows, n, d), so many at a time that memory stays bounded."""
    step = max(1, _NUMBERS_AT_ONCE // like.shape[1] ** 2)
    return np.concatenate([work(slice(start, start + step)) for start in range(0, len(like), step)])


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (rows, p, o) for points (rows, p, d) and others (rows, o, d)."""
    squares = np.zeros((*points.shape[:2], others.shape[1]))
    for column in range(points.shape[2]):
        squares += (points[:, :, None, column] - others[:, None, :, column]) ** 2
    return np.sqrt(squares)
