"""Single answers among draws: the densest, and some that lie apart."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import cdist

__all__ = ["middle", "most_probable", "spread_out"]

_STRAY = 0.05  # share of the draws, the most lonely ones, that are never an answer
_ROUNDS = 10


def most_probable(draws: np.ndarray, *, refinements: int = 3) -> np.ndarray:
    """Return the densest point among the draws of each row.

    The draw whose k-th nearest neighbour is closest, k = sqrt(n) (Loftsgaarden and Quesenberry, 1965: A nonparametric
    estimate of a multivariate density function), moved to the mean of those neighbours as long as that is denser
    still (Fukunaga and Hostetler, 1975: mean shift). It is never an average over several modes: a move into a valley
    would lower the density, and is refused.

    Args:
        draws: (rows, n, size), in comparable units.
        refinements: largest number of moves.

    Returns:
        (rows, size).
    """
    rows, n, _ = draws.shape
    k = min(n - 1, max(2, math.isqrt(n)))
    if k < 1 or n < 3:
        return draws[:, 0]
    answers = np.empty_like(draws[:, 0])
    for row in range(rows):
        points = draws[row]
        squared = (points**2).sum(axis=1)
        distances = squared[:, None] + squared[None, :] - 2 * points @ points.T
        radii = np.partition(distances, k, axis=1)[:, k]
        best = points[int(radii.argmin())]
        near = ((points - best) ** 2).sum(axis=1)
        for _ in range(refinements):
            moved = points[np.argpartition(near, k)[: k + 1]].mean(axis=0)
            moved_near = ((points - moved) ** 2).sum(axis=1)
            if np.partition(moved_near, k)[k] >= np.partition(near, k)[k]:
                break
            best, near = moved, moved_near
        answers[row] = best
    return answers


def spread_out(draws: np.ndarray, n: int) -> np.ndarray:
    """Return `n` of the draws of each row that lie apart and among others, those that stand for most draws first.

    The density at a draw is told by the distance to its k-th nearest neighbour, and the 5 % of draws where it is lowest
    are left out. The first answer is the densest draw, and each next one the draw whose distance to the nearest answer
    is largest in units of its own distance to its k-th neighbour (Gonzalez, 1985: Clustering to minimize the maximum
    intercluster distance; weighted). Then every answer moves to the medoid of the draws that are nearest to it, until
    none moves (Park and Jun, 2009: A simple and fast algorithm for k-medoids clustering).

    Args:
        draws: (rows, m, size), in comparable units, m at least n.
        n: number of answers.

    Returns:
        (rows, n, size).
    """
    return np.stack([points[_apart(points, n)] for points in draws])


def _apart(points: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of `n` of the points (m, size)."""
    m = len(points)
    if m < 3 or n == m:
        return np.arange(n)
    distances = cdist(points, points)
    k = min(math.isqrt(m), max(2, m // (4 * n)), m - 1)
    radii = np.partition(distances, k, axis=1)[:, k]
    kept = np.argsort(radii, kind="stable")[: max(n, round((1 - _STRAY) * m))]
    distances, radii = distances[np.ix_(kept, kept)], np.maximum(radii[kept], 1e-12)
    chosen = [0]  # the densest
    near = distances[0].copy()
    for _ in range(n - 1):
        near[chosen] = -1.0  # copies of an answer come before the answer itself
        chosen.append(int((near / radii).argmax()))
        near = np.minimum(near, distances[chosen[-1]])
    centres = np.array(chosen)
    for _ in range(_ROUNDS if n > 1 else 0):
        cells = distances[:, centres].argmin(axis=1)
        moved = np.array([_medoid(distances, np.flatnonzero(cells == c), centres[c]) for c in range(n)])
        if (moved == centres).all():
            break
        centres = moved
    weight = np.bincount(distances[:, centres].argmin(axis=1), minlength=n)
    return kept[centres[np.argsort(-weight, kind="stable")]]


def _medoid(distances: np.ndarray, members: np.ndarray, otherwise: int) -> int:
    """Return the member with the least sum of distances to the others."""
    if not len(members):
        return otherwise
    return int(members[distances[np.ix_(members, members)].sum(axis=1).argmin()])


def middle(points: np.ndarray, *, at_most: int = 600) -> int:
    """Return which of the points (m, size) is in the middle of their denser half.

    Of two halves, the denser is that whose points have more of the others near; the middle is the medoid, the point
    from which the others are the least away. So it is a valid answer where answers lie on a curve, and near the
    summit where one side has a long tail.

    Args:
        points: draws of one answer, in comparable units.
        at_most: of more points, the first so many are looked at.
    """
    points = points[:at_most]
    if len(points) < 3:
        return 0
    distances = cdist(points, points)
    half = len(points) // 2
    dense = np.argpartition(np.partition(distances, half, axis=1)[:, half], half)[: half + 1]
    return int(dense[distances[np.ix_(dense, dense)].sum(axis=1).argmin()])
