"""How probable did the model think what happened?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import DataError
from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_over_rows

__all__ = ["log_likelihood"]


def log_likelihood(log_densities: ArrayLike, truth: ArrayLike | None = None, seed: int = 0) -> Measure:
    """Mean log p(y | x) over rows, in nats and in the units of y; higher is better.

    Args:
        log_densities: the model's log p(y | x) of what happened, `(rows,)`. Of one row that it held impossible,
            -inf, the mean is -inf: the expectation is then certain to be, so there is no interval.
        truth: the true log p(y | x) of the same pairs, `(rows,)`: `problem.log_density(x, y[:, None])[:, 0]` where
            the problem is `exact`. Its mean is the floor, which no model is expected to exceed.
        seed: of the bootstrap over rows that gives the interval.

    Raises:
        DataError: the shapes are wrong or differ, or a value is nan or +inf.
    """
    values = _checked("log_densities", log_densities)
    floor = None
    if truth is not None:
        true_values = _checked("truth", truth)
        if len(true_values) != len(values):
            raise DataError(f"truth must be of the same rows as log_densities; got {len(true_values)}, {len(values)}")
        floor = float(true_values.mean())
    if np.isneginf(values).any():
        return Measure(float("-inf"), None, None, floor, len(values))
    return mean_over_rows(values, floor, seed)


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"{name} must have shape (rows,) with at least one row, got {values.shape}")
    bad = np.flatnonzero(np.isnan(values) | np.isposinf(values))
    if len(bad):
        raise DataError(f"{name} must be numbers or -inf; in row {bad[0]} it is {values[bad[0]]}")
    return values
