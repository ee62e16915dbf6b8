"""Are two samples of one law? By how alike points within them are, and points across."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist

from everymode.errors import DataError, check_number
from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_over_rows
from everymode.metrics.samples import on_one_scale

__all__ = ["mmd", "mmd_values"]

_WIDEST, _WIDTHS = 4.0, 5  # bandwidths are 4, 2, 1, 1/2 and 1/4 of the median distance


def mmd(
    draws: ArrayLike,
    reference: ArrayLike,
    real: ArrayLike | None = None,
    *,
    bandwidth: float | None = None,
    at_most: int = 1000,
    seed: int = 0,
) -> Measure:
    """Squared maximum mean discrepancy between draws and real draws of the same x, averaged over rows.

    0 is expected of equal laws whatever n, and 2 is the most there is. Measured in each row by itself, as
    `sliced_wasserstein`, and on the scale of `reference`. The interval is a bootstrap over rows; draws are noticed
    where it lies above 0.

    Args:
        draws: `(rows, n, dy)`, n at least 2.
        reference: as many real draws, `(rows, n, dy)`.
        real: as many real draws again, independent of `reference`; their distance from it is the floor.
        bandwidth: of the kernel in the middle, in standard deviations; see `mmd_values`.
        at_most: of more draws a row, only so many are used: the cost is quadratic in them.
        seed: of the bootstrap.
    """
    check_number("at_most", at_most, 2, integer=True)
    draws, reference, real = on_one_scale(draws, reference, real)
    draws, reference = draws[:, :at_most], reference[:, :at_most]
    values = mmd_values(draws, reference, bandwidth=bandwidth)
    floor = None if real is None else float(mmd_values(real[:, :at_most], reference, bandwidth=bandwidth).mean())
    return mean_over_rows(values, floor, seed)


def mmd_values(draws: np.ndarray, reference: np.ndarray, *, bandwidth: float | None = None) -> np.ndarray:
    """The unbiased estimate of MMD^2 in each row, `(rows,)`, of `draws` and `reference`, both `(rows, n, dy)`.

    `mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j)`, which may fall below 0. The
    kernel is the mean of five Gaussians `exp(-|a - b|^2 / (2 s^2))`, s = 4, 2, 1, 1/2 and 1/4 bandwidths: where
    answers lie in several modes the usual distance is that between modes, and one Gaussian of this width is blind
    to what a mode looks like inside. It is bounded, so that one draw far out counts as one draw; the energy kernel,
    `-|a - b|`, is not, and what it measures is how much worse than its floor `energy_score` is.

    The bandwidth is the median, over rows, of the median distance between two draws of `reference` in a row (the
    distances are all but independent of any one row, so the estimate stays unbiased where rows are many); 1 where
    that is 0.

    As published: with one Gaussian, MMD_u^2 of Gretton et al. Estimates that leave in the pairs i = j, MMD_b^2, are
    biased upwards by up to 2 / n, and those of samples in blocks or of polynomial kernels, as the kernel inception
    distance in torchmetrics, are other numbers.

    Fails: two thin distributions in many dimensions have nearly all distances alike, and n must be large to tell
    them apart.

    References:
        A kernel two-sample test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html; Generative
        moment matching networks (Li et al., 2015), https://arxiv.org/abs/1502.02761
    """
    check_number("bandwidth", bandwidth, 0, optional=True, exclusive_low=True)
    n = draws.shape[1]
    if n < 2:
        raise DataError(f"pairs of draws need at least 2 draws a row; got draws of shape {draws.shape}")
    if bandwidth is None:
        bandwidth = float(np.median([np.median(pdist(row)) for row in reference])) or 1.0
    values = np.empty(len(draws))
    for row, (drawn, real) in enumerate(zip(draws, reference, strict=True)):
        within = _sum_over_pairs(drawn, drawn, bandwidth) + _sum_over_pairs(real, real, bandwidth)
        across = _sum_over_pairs(drawn, real, bandwidth)
        values[row] = (within - 2 * n) / (n * (n - 1)) - 2 * across / n**2  # k(a, a) is 1
    return values


def _sum_over_pairs(one: np.ndarray, other: np.ndarray, bandwidth: float) -> float:
    """The sum of the kernel over all pairs of a point of `one (n, dy)` and a point of `other (n, dy)`."""
    width = _WIDEST * bandwidth
    kernel = np.exp(-0.5 * cdist(one / width, other / width, "sqeuclidean"))
    total = 0.0
    for _ in range(_WIDTHS):
        total += kernel.sum()
        kernel = np.square(np.square(kernel))  # half as wide
    return total / _WIDTHS
