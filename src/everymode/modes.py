"""Finding the distinct answers among draws."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["most_probable"]


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
