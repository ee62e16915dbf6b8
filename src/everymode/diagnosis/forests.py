"""Trees, and what they say of rows that they were not grown on."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

__all__ = ["out_of_bag"]


def out_of_bag(
    x: np.ndarray, y: np.ndarray, *, trees: int, leaf: int, seed: int, rows: int | None = None
) -> tuple[ExtraTreesRegressor, np.ndarray]:
    """Return a forest, and its predictions by the trees that have not seen the row, of the shape of y.

    Args:
        x: (rows, columns).
        y: (rows,) or (rows, d).
        trees: number of them.
        leaf: least rows in a leaf.
        seed: of the samples and the cuts.
        rows: most that each tree is grown on; None: as many as there are.
    """
    forest = ExtraTreesRegressor(
        trees,
        min_samples_leaf=leaf,
        bootstrap=True,
        oob_score=True,
        max_samples=min(1.0, rows / len(x)) if rows else None,
        random_state=seed,  # one thread: in several, scikit-learn loses the filters of warnings of the whole process
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a row that is in every sample has no prediction
        forest.fit(x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
    return forest, np.nan_to_num(np.reshape(forest.oob_prediction_, y.shape))
