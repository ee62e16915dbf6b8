"""What metrics share: draws checked beside answers or beside real draws, and put on one scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import DataError

__all__ = ["beside_answers", "on_one_scale"]


def beside_answers(y: ArrayLike, draws: ArrayLike, scale: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return `y (rows, dy)` and `draws (rows, n, dy)`, each column divided by its `scale (dy,)`.

    Raises:
        DataError: the shapes do not go together, a number is not finite, or `scale` is not positive.
    """
    y, draws = np.asarray(y, float), np.asarray(draws, float)
    if draws.ndim != 3 or y.shape != (draws.shape[0], draws.shape[2]) or draws.size == 0:
        raise DataError(f"y must be (rows, dy) and draws (rows, n, dy); got {y.shape} and {draws.shape}")
    for name, values in {"y": y, "draws": draws}.items():
        _check_finite(name, values)
    if scale is None:
        return y, draws
    scale = np.asarray(scale, float)
    if scale.shape != y.shape[1:] or not np.all((scale > 0) & np.isfinite(scale)):
        raise DataError(f"scale must be {y.shape[1]} positive numbers, one a column of y; got {scale}")
    return y / scale, draws / scale


def on_one_scale(
    draws: ArrayLike, reference: ArrayLike, real: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Divide each column by its standard deviation over all rows and draws of `reference`.

    Args:
        draws: `(rows, n, dy)`.
        reference: `(rows, n, dy)`; a column that is constant in it is left in its own units.
        real: `(rows, n, dy)` or None.

    Raises:
        DataError: the shapes differ (a floor, and a distance whose bias depends on n, need as many of each), or
            a number is not finite.
    """
    given = {"draws": draws, "reference": reference} | ({} if real is None else {"real": real})
    arrays = {name: np.asarray(array, float) for name, array in given.items()}
    for name, array in arrays.items():
        if array.ndim != 3 or array.size == 0 or array.shape != arrays["draws"].shape:
            raise DataError(
                "draws and the real draws beside them must all have one shape (rows, n, dy); got draws "
                f"{arrays['draws'].shape} and {name} {array.shape}"
            )
        _check_finite(name, array)
    scale = arrays["reference"].std(axis=(0, 1))
    scale[scale == 0] = 1.0
    return arrays["draws"] / scale, arrays["reference"] / scale, None if real is None else arrays["real"] / scale


def _check_finite(name: str, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise DataError(f"{name} must be finite: {len(bad)} rows are not, the first is {bad[0]}; remove them")
