"""Intervals: how far chance alone may have moved a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from everymode.errors import DataError, check_number
from everymode.metrics.base import Measure

__all__ = ["bootstrap_interval", "mean_over_rows", "wilson_interval"]

_NUMBERS_AT_ONCE = 1_000_000


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for a probability from independent trials; sound for shares near 0 and 1 as well.

    As published: `scipy.stats.binomtest(...).proportion_ci(level, method="wilson")`.

    References:
        Probable inference, the law of succession, and statistical inference (Wilson, 1927),
        https://doi.org/10.1080/01621459.1927.10502953
    """
    if not 0 <= successes <= trials or trials < 1:
        raise DataError(f"there must be a trial, and no more successes than trials; got {successes}/{trials}")
    z = float(norm.ppf(0.5 + _checked(level) / 2))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: ArrayLike, seed: int, level: float = 0.95, resamples: int = 1000
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap interval for the mean of `values (rows,)`; of a single row there is none.

    As published: `scipy.stats.bootstrap(..., method="percentile")`, to the last digit for a seed. Its default method,
    BCa, corrects for skewness and gives somewhat other ends.

    References:
        Bootstrap methods: another look at the jackknife (Efron, 1979), https://doi.org/10.1214/aos/1176344552
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"values must have shape (rows,) with at least one row, got {values.shape}")
    if len(values) == 1:
        return None, None
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _NUMBERS_AT_ONCE // len(values))
    for start in range(0, resamples, step):
        part = means[start : start + step]
        part[:] = values[rng.integers(len(values), size=(len(part), len(values)))].mean(axis=1)
    tail = (1 - _checked(level)) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def mean_over_rows(values: np.ndarray, floor: float | None, seed: int) -> Measure:
    """The mean of `values (rows,)` beside its floor, with a bootstrap over rows as its interval."""
    return Measure(float(values.mean()), *bootstrap_interval(values, seed), floor, len(values))


def mean_score(
    scores: Callable[..., np.ndarray],
    y: ArrayLike,
    draws: ArrayLike,
    reference: ArrayLike | None,
    seed: int,
    **settings: Any,
) -> Measure:
    """The mean over rows of what `scores` says of `y` and `draws`; its floor is that of the real draws `reference`."""
    floor = None if reference is None else float(scores(y, reference, **settings).mean())
    return mean_over_rows(scores(y, draws, **settings), floor, seed)


def _checked(level: float) -> float:
    return check_number("level", level, 0, 0.9999, exclusive_low=True)
