"""What the metrics between two samples share: both checked, and put on the scale of the real one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import DataError

__all__ = ["on_one_scale"]


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
        if not np.isfinite(array).all():
            raise DataError(f"{name} must be finite; remove the rows that are not")
    scale = arrays["reference"].std(axis=(0, 1))
    scale[scale == 0] = 1.0
    return arrays["draws"] / scale, arrays["reference"] / scale, None if real is None else arrays["real"] / scale
