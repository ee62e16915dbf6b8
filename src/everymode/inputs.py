"""What a user hands to the estimator, turned into spaces and standardised tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names, validate_data
from torch import Tensor

from everymode.errors import DataError, unknown_name
from everymode.spaces import ArraySpace, Condition, DictSpace, SetSpace, Space, TableSpace, array_space
from everymode.tables import as_frame, check_finite, column_arrays, condition_space, read_numbers, to_numpy

__all__ = [
    "as_fitted",
    "count_of",
    "encode_condition",
    "encode_target",
    "fit_condition",
    "read_known",
    "read_target",
    "row_titles",
    "take_given",
]


def _is_dict(X: Any) -> bool:
    return isinstance(X, Mapping) and not issparse(X)  # a sparse matrix may be a dict of its cells


def count_of(X: Any) -> int:
    """Return the number of rows of an X as a user gives it."""
    return len(next(iter(X.values()))) if _is_dict(X) else len(X)


def _validated(estimator: BaseEstimator, X: Any, **settings: Any) -> np.ndarray:
    # finiteness is checked by the space, which names rows and columns
    return np.asarray(
        validate_data(estimator, to_numpy(X), dtype=np.float64, ensure_all_finite=False, allow_nd=True, **settings)
    )


def fit_condition(estimator: BaseEstimator, X: Any, *, exchangeable: bool = False) -> tuple[Space, Condition, int]:
    """Return (space, standardised tensors, rows) of X, and note scikit-learn's feature attributes on `estimator`.

    Args:
        estimator: whose attributes are set.
        X: as in `OneToManyRegressor.fit`.
        exchangeable: whether each x is a set of points.

    Raises:
        DataError: cells are NaN or infinite, text stands where numbers belong, or the shape suits no space.
    """
    frame = as_frame(X)
    if exchangeable and (_is_dict(X) or frame is not None or np.ndim(X) != 3):
        given = "a dict" if _is_dict(X) else "a frame" if frame is not None else f"of shape {np.shape(X)}"
        raise DataError(f"exchangeable=True is for X of shape (rows, points, d), and X is {given}: reshape it.")
    if _is_dict(X):
        _check_parts(X)
        arrays = {key: read_numbers(value, f"X[{key!r}]") for key, value in X.items()}
        parts = {key: array_space(value, what=f"X[{key!r}]") for key, value in arrays.items()}
        space = DictSpace(parts)
        return space, space.encode(arrays), count_of(arrays)
    if frame is not None:
        table = condition_space(frame)
        if isinstance(table, TableSpace):
            _check_feature_names(estimator, frame, reset=True)
            setattr(estimator, "n_features_in_", frame.shape[1])  # noqa: B010
            return table, table.encode(column_arrays(frame)), len(frame)
    array = _validated(estimator, X, ensure_min_samples=2, reset=True)
    names = [str(c) for c in getattr(estimator, "feature_names_in_", [])]
    fitted = SetSpace.fit(array) if exchangeable else array_space(array, names, "X")
    return fitted, fitted.encode(array), len(array)


def _check_parts(X: Mapping[str, Any]) -> None:
    if not X:
        raise DataError("X holds no parts: give at least one named array.")
    rows = {key: len(value) for key, value in X.items()}
    if len(set(rows.values())) > 1:
        raise DataError(f"the parts of X differ in rows: {', '.join(f'{k} has {n}' for k, n in rows.items())}.")


def as_fitted(estimator: BaseEstimator, X: Any) -> Any:
    """Give an array the column names that the estimator was fitted with, if it was fitted with a frame."""
    names = getattr(estimator, "feature_names_in_", None)
    return X if names is None or as_frame(X) is not None else pd.DataFrame(X, columns=names)


def encode_condition(estimator: BaseEstimator, X: Any, space: Space) -> Condition:
    """Return the standardised tensors of new rows X.

    Raises:
        DataError: columns are missing, cells are NaN or infinite, or a category was never seen.
    """
    if isinstance(space, DictSpace):
        if not _is_dict(X):
            raise DataError(f"this model was fitted on a dict of arrays: give one with {', '.join(space.parts)}.")
        _check_parts(X)
        return space.encode(X)
    if isinstance(space, TableSpace):
        frame = as_frame(X)
        if frame is None:
            columns = ", ".join(space.names)
            raise DataError(f"this model was fitted on a table with categories: give a frame with columns {columns}.")
        _check_feature_names(estimator, frame, reset=False)
        check_finite(frame, "X")
        return space.encode(column_arrays(frame))
    return space.encode(_validated(estimator, X, reset=False))


def read_target(Y: Any, rows: int) -> tuple[ArraySpace, Tensor, bool]:
    """Return (space, standardised targets, whether Y was 1-D) for a Y of `rows` rows.

    Raises:
        DataError: Y is absent, of another length, not numbers, not finite, or constant; or there are too few rows.
    """
    if Y is None:
        raise DataError("This estimator requires y to be passed, but the target y is None.")
    frame, names = as_frame(Y), ()
    if frame is not None:
        check_finite(frame, "Y")
        names = tuple(str(c) for c in frame.columns)
        values = frame.to_numpy()
        values = values[:, 0] if values.shape[1] == 1 and np.ndim(Y) == 1 else values
    else:
        values = np.asarray(to_numpy(Y))
    if values.shape[:1] != (rows,):
        raise DataError(f"X has {rows} rows, but Y has shape {values.shape}: they must have equal length.")
    if rows < 2:
        raise DataError(f"Found {rows} sample (row); at least 2 are needed to fit anything.")
    try:
        values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"Y holds text where numbers belong: {error}") from None
    flat = values.ndim == 1
    values = values[:, None] if flat else values
    space = array_space(values, names, "Y")
    _refuse_constant(values, space)
    return space, space.encode(values), flat


def encode_target(Y: Any, space: ArraySpace, rows: int) -> Tensor:
    """Return the standardised targets (rows, *event) of a new Y beside `rows` rows of X.

    Raises:
        DataError: Y has other rows, another shape or other columns than the space, or its cells are not finite numbers.
    """
    frame = as_frame(Y)
    values = np.asarray(to_numpy(Y)) if frame is None else frame.to_numpy()
    if values.shape[:1] != (rows,):
        raise DataError(f"X has {rows} rows, but Y has shape {values.shape}: they must have equal length.")
    if frame is not None and len(space.names) > 1 and tuple(map(str, frame.columns)) != space.names:
        raise DataError(
            f"Y has the columns {', '.join(map(str, frame.columns))}, but the model was fitted on "
            f"{', '.join(space.names)}, in that order."
        )
    values = values[:, None] if values.ndim == 1 and space.shape == (1,) else values
    return space.encode(space.check(values, "Y"))


def row_titles(X: Any, rows: int) -> list[str]:
    """Return a short text for each row of X: "waiting = 80, season = dry", or its number where X is no small table."""
    frame = as_frame(X)
    if frame is None and not isinstance(X, Mapping):
        values = np.asarray(to_numpy(X))
        frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])]) if values.ndim == 2 else None
    if frame is None or not 0 < frame.shape[1] <= 3:
        return [f"row {row}" for row in range(rows)]
    return [
        ", ".join(f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}" for name, value in pairs)
        for pairs in (zip(frame.columns, values, strict=True) for values in frame.itertuples(index=False))
    ]


def take_given(X: Any, rows: np.ndarray) -> Any:
    """Return rows of an X as `fit` takes it, by their numbers (n,), as often as they are named."""
    if isinstance(X, Mapping):
        return {name: take_given(part, rows) for name, part in X.items()}
    frame = as_frame(X)
    return np.asarray(X)[rows] if frame is None else frame.iloc[rows].reset_index(drop=True)


def read_known(known: Any, space: ArraySpace, rows: int, *, flat: bool) -> np.ndarray:
    """Return the known values of y beside `rows` rows of X, (rows, *event) in float64; NaN where y is to be drawn.

    Args:
        known: (rows, *event), or (*event) for all rows alike; or a frame or a mapping with some of Y's columns.
        space: of y.
        rows: how many rows X has.
        flat: whether Y was 1-D.

    Raises:
        DataError: it has another shape or unknown columns, holds text or infinite values, or leaves nothing to draw.
    """
    frame = as_frame(known)
    if frame is not None or isinstance(known, Mapping):
        values = _known_columns(dict(known) if frame is None else column_arrays(frame), space, rows)
    else:
        values = read_numbers(known, "known")
    values = values[..., None] if flat and values.shape in ((), (rows,)) else values
    if values.shape not in (space.shape, (rows, *space.shape)):
        raise DataError(
            f"known has shape {values.shape}: give {(rows, *space.shape)}, a row for each of X, or {space.shape} for "
            "all rows alike, with NaN for what is to be drawn."
        )
    if np.isinf(values).any():
        raise DataError(f"known holds {int(np.isinf(values).sum())} infinite value(s): give numbers, or NaN to draw.")
    if not np.isnan(values).any():
        raise DataError("known leaves nothing to draw: put NaN where y is to be drawn.")
    return np.broadcast_to(values, (rows, *space.shape))


def _known_columns(columns: Mapping[str, Any], space: ArraySpace, rows: int) -> np.ndarray:
    if len(space.shape) != 1 or not space.names:
        raise DataError(
            f"known names columns, but Y had none in fit: give an array of shape {(rows, *space.shape)} with NaN for "
            "what is to be drawn."
        )
    values = np.full((rows, *space.shape), np.nan)
    for name, column in columns.items():
        if str(name) not in space.names:
            raise DataError(unknown_name("column of known", str(name), space.names))
        numbers = read_numbers(column, f"column {name} of known")
        if numbers.shape not in ((), (rows,)):
            raise DataError(f"column {name} of known has shape {numbers.shape}: give one number or {rows}, a row each.")
        values[:, space.names.index(str(name))] = numbers
    return values


def _refuse_constant(values: np.ndarray, space: ArraySpace) -> None:
    if values.ndim > 2:  # a constant pixel or step is common; a constant whole is not
        if np.ptp(values) == 0:
            raise DataError(f"every value of Y is {values.flat[0]:g}: there is nothing to predict.")
        return
    for column in np.flatnonzero(np.ptp(values, axis=0) == 0):
        name = space.names[column] if space.names else f"column {column}"
        raise DataError(f"target {name} is {values[0, column]:g} in every row: there is nothing to predict. Drop it.")
