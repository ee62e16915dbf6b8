"""Densities of draws, and the regions that hold most of them.

A highest-density region is the smallest set that holds a given share of the draws. Where the draws have two
modes it is two intervals: nothing is spent on the gap, which an interval between quantiles would fill.

References:
    Computing and graphing highest density regions (Hyndman, 1996), https://doi.org/10.2307/2684423
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import KDTree

from everymode.errors import SettingError, check_number

__all__ = [
    "bandwidth",
    "check_level",
    "density_1d",
    "density_2d",
    "density_on_a_line",
    "highest_density_intervals",
    "where_above",
]


def check_level(level: float) -> float:
    """Return the share that a region is to hold, if it is in (0, 1), else raise `SettingError`."""
    check_number("level", level, 0.0, 1.0, exclusive_low=True)
    if level == 1:
        raise SettingError("level=1: give a share below 1; a region that holds everything has no end.")
    return level


def bandwidth(draws: np.ndarray) -> float:
    """The width of a Gaussian kernel for draws (n, d), in their units, fit for one mode.

    The usual rules take the standard deviation, which for two distant modes is the distance between them and
    smears both. This one takes the distance to near neighbours, which knows only the mode that a draw is in.
    """
    n, d = draws.shape
    spread = float(np.ptp(draws, axis=0).max()) if n else 0.0
    near = min(n, round(np.sqrt(n)) + 1)
    distances = KDTree(draws).query(draws, k=near)[0] if n > 1 else np.zeros((1, 1))
    scale = 0.65 * n**0.25 if d == 1 else 1.0  # the width then falls as n^(-1/4) in one dimension and in two
    return max(scale * float(np.median(distances[:, -1])), 1e-3 * spread)


def density_1d(draws: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """A kernel estimate of the density of draws (n,) on an evenly spaced grid (G,) -> (G,)."""
    step = grid[1] - grid[0]
    edges = np.append(grid - step / 2, grid[-1] + step / 2)
    counts = np.histogram(draws, edges)[0] / (len(draws) * step)
    return gaussian_filter1d(counts, width / step, mode="constant")


def density_2d(draws: np.ndarray, horizontal: np.ndarray, vertical: np.ndarray, width: float) -> np.ndarray:
    """The same for draws (n, 2), in cells between edges of shapes (H + 1,) and (V + 1,) -> (V, H)."""
    steps = vertical[1] - vertical[0], horizontal[1] - horizontal[0]
    counts = np.histogram2d(draws[:, 1], draws[:, 0], (vertical, horizontal))[0]
    smooth = gaussian_filter(counts, [max(width / step, 0.7) for step in steps], mode="constant")
    return smooth / (len(draws) * steps[0] * steps[1])


def density_on_a_line(draws: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """An evenly spaced grid (G,) that reaches beyond all draws (n,), and the kernel estimate of their density on it."""
    low, high = draws.min() - 4 * width, draws.max() + 4 * width
    grid = np.linspace(low, high, int(np.clip(6 * (high - low) / width, 64, 20_000)))
    return grid, density_1d(draws, grid, width)


def where_above(grid: np.ndarray, height: np.ndarray, level: float) -> np.ndarray:
    """The intervals where heights (G,), joined by straight lines, are at least `level` -> (intervals, 2), rising."""
    above = np.concatenate([[False], height >= level, [False]])
    starts, ends = np.flatnonzero(above[1:] & ~above[:-1]), np.flatnonzero(above[:-1] & ~above[1:]) - 1

    def crossing(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
        part = (height[inside] - level) / np.maximum(height[inside] - height[outside], 1e-300)
        return grid[inside] + part * (grid[outside] - grid[inside])

    last = len(grid) - 1
    return np.stack([crossing(starts, np.maximum(starts - 1, 0)), crossing(ends, np.minimum(ends + 1, last))], axis=1)


def highest_density_intervals(draws: np.ndarray, share: float) -> np.ndarray:
    """The intervals that hold `share` of the draws (n,) on the least length -> (intervals, 2), rising.

    The region is where the density estimate is at least its own `1 - share` quantile over the draws, so the
    intervals hold that share of them. Gaps narrower than the kernel are closed: the draws cannot show those.
    New draws of the same kind fall in a 90 % region 0.88 to 0.89 of the time with 200 draws, 0.90 with 1,000.

    Raises:
        ValueError: no draws, or a share outside (0, 1).
    """
    if not 0 < share < 1 or draws.size == 0:
        raise ValueError(f"a region needs draws and a share in (0, 1); got {draws.size} draws and share={share}.")
    width = bandwidth(draws[:, None])
    if width == 0:
        return np.array([[draws.min(), draws.max()]])
    grid, density = density_on_a_line(draws, width)
    intervals = where_above(grid, density, float(np.quantile(np.interp(draws, grid, density), 1 - share)))
    wide = intervals[1:, 0] - intervals[:-1, 1] > width
    return np.stack([intervals[np.append(True, wide), 0], intervals[np.append(wide, True), 1]], axis=1)
