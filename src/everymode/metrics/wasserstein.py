"""How far must probability be carried to turn a model's draws into real ones?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import check_number
from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_over_rows
from everymode.metrics.samples import on_one_scale

__all__ = ["sliced_wasserstein", "sliced_wassersteins"]

_NUMBERS_AT_ONCE = 4_000_000


def sliced_wasserstein(
    draws: ArrayLike,
    reference: ArrayLike,
    real: ArrayLike | None = None,
    *,
    directions: int = 64,
    seed: int = 0,
) -> Measure:
    """Sliced 2-Wasserstein distance between draws and real draws of the same x, averaged over rows.

    Measured in each row by itself: pooled over rows, a model that answers for the wrong x but has the right
    answers over all x would score well. In units of the standard deviation of each column of `reference`. Two
    finite samples of one law are some way apart too: see the floor. The interval is a bootstrap over rows.

    Args:
        draws: `(rows, n, dy)`.
        reference: as many real draws, `(rows, n, dy)`.
        real: as many real draws again, independent of `reference`; their distance from it is the floor.
        directions: how many; for dy = 1 the distance is exact whatever their number.
        seed: of the directions and of the bootstrap.
    """
    draws, reference, real = on_one_scale(draws, reference, real)
    values = sliced_wassersteins(draws, reference, directions=directions, seed=seed)
    floor = None
    if real is not None:
        floor = float(sliced_wassersteins(real, reference, directions=directions, seed=seed).mean())
    return mean_over_rows(values, floor, seed)


def sliced_wassersteins(draws: np.ndarray, reference: np.ndarray, *, directions: int = 64, seed: int = 0) -> np.ndarray:
    """The distance in each row, `(rows,)`, between `draws` and `reference`, both `(rows, n, dy)`, in their units.

    `SW^2 = mean over directions u of mean_i (a_(i) - b_(i))^2`, where a_(i) and b_(i) are the sorted projections
    on u of the two samples. Directions come in orthonormal frames, uniform over all frames: unbiased as
    independent ones are, with less variance. So the distance between a sample and the same sample shifted by s is
    exactly `|s| / sqrt(dy)` where whole frames are used, that is, where dy is at most `directions`.

    As published: `ot.sliced_wasserstein_distance` with these directions is the same number; left to itself it draws
    independent ones, and differs by their chance. `scipy.stats.wasserstein_distance` is of order 1, and no greater.

    References:
        Sliced and Radon Wasserstein barycenters of measures (Bonneel et al., 2015),
        https://doi.org/10.1007/s10851-014-0506-3; Orthogonal estimation of Wasserstein distances
        (Rowland et al., 2019), https://proceedings.mlr.press/v89/rowland19a.html
    """
    check_number("directions", directions, 1, integer=True)
    rows, n, dy = draws.shape
    units = _directions(dy, directions, seed)
    squares = np.empty(rows)
    step = max(1, _NUMBERS_AT_ONCE // (n * len(units)))
    for start in range(0, rows, step):
        block = slice(start, start + step)
        first, second = (np.sort(units @ sample[block].transpose(0, 2, 1)) for sample in (draws, reference))
        squares[block] = ((first - second) ** 2).mean(axis=(1, 2))
    return np.sqrt(squares)


def _directions(dy: int, count: int, seed: int) -> np.ndarray:
    """At least `count` unit vectors `(directions, dy)`, in frames of dy orthogonal ones."""
    frames = 1 if dy == 1 else -(-count // dy)  # in one dimension all directions are the same
    noise = np.random.default_rng(seed).standard_normal((frames, dy, min(dy, count)))
    return np.linalg.qr(noise).Q.transpose(0, 2, 1).reshape(-1, dy)
