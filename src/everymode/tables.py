"""Tables: reading them from files, and turning frames and arrays into spaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
from torch import Tensor

from everymode.errors import DataError, unknown_name
from everymode.spaces import Space, TableSpace, array_space

__all__ = [
    "alike",
    "as_frame",
    "as_numbers",
    "check_finite",
    "column_arrays",
    "condition_space",
    "holds_text",
    "is_categorical",
    "pick_columns",
    "read_numbers",
    "read_problem",
    "read_table",
    "share_of_ties",
    "split_targets",
    "to_numpy",
]


def read_table(path: str | Path) -> pd.DataFrame:
    """Return the table at `path`: .csv, .tsv, .parquet, or .npz with arrays of equal length.

    An array (rows, k) in an .npz becomes columns name_0 ... name_{k - 1}.

    Raises:
        DataError: there is no such file, it is of another kind, it cannot be read, or it has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    try:
        if path.suffix in (".csv", ".tsv", ".txt"):
            how: dict[str, Any] = {"sep": ","} if path.suffix == ".csv" else {"sep": None, "engine": "python"}
            # read as a header, the second of two equal names would become another one
            names = pd.read_csv(path, header=None, nrows=1, dtype=str, **how).iloc[0].dropna()
            _refuse_same_names(path, names)
            frame = pd.read_csv(path, **how)
        elif path.suffix in (".parquet", ".pq"):
            _refuse_same_names(path, pyarrow.parquet.read_schema(path).names)
            frame = pd.read_parquet(path)
        elif path.suffix == ".npz":
            frame = _read_npz(path)
        else:
            raise DataError(f"{path} is no table that can be read: give a .csv, .tsv, .parquet or .npz file.")
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be read as a table: {reason}.") from error
    if not len(frame):
        raise DataError(f"{path} has no rows.")
    frame.columns = [str(c) for c in frame.columns]
    return frame


def _refuse_same_names(path: Path, names: Iterable[Any]) -> None:
    twice = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"{path} has columns of the same name: {', '.join(twice)}. Rename them.")


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        columns: list[tuple[str, np.ndarray]] = []
        for name in arrays.files:
            array = arrays[name]
            if array.ndim == 1:
                columns.append((name, array))
            elif array.ndim == 2:
                columns += [(f"{name}_{i}", array[:, i]) for i in range(array.shape[1])]
            else:
                raise DataError(f"array {name!r} has shape {array.shape}; a table takes (rows,) and (rows, k).")
    _refuse_same_names(path, (name for name, _ in columns))
    lengths = {name: len(column) for name, column in columns}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the arrays differ in length: {', '.join(f'{k} {v}' for k, v in lengths.items())}.")
    return pd.DataFrame(dict(columns))


def pick_columns(frame: pd.DataFrame, names: Sequence[str], what: str) -> list[str]:
    """Return `names` if the frame has them all, once each; else raise `DataError` with the nearest names."""
    for name in names:
        if name not in frame.columns:
            raise DataError(unknown_name(f"{what} column", name, frame.columns))
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataError(f"{what} names {', '.join(twice)} more than once.")
    return list(names)


def split_targets(
    frame: pd.DataFrame, target: Sequence[str], given: Sequence[str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (X, Y) frames; without `given`, X is every column but the targets.

    Raises:
        DataError: a column is unknown, a target is also given, nothing is left for X, a target holds text.
    """
    target = pick_columns(frame, target, "target")
    if not target:
        raise DataError("name at least one target column.")
    if given is None:
        given = [c for c in frame.columns if c not in target]
    given = pick_columns(frame, given, "given")
    both = [c for c in target if c in given]
    if both:
        raise DataError(f"{', '.join(both)} cannot be both target and given.")
    if not given:
        raise DataError("no column is left to condition on: the table holds the target alone.")
    for name in target:
        if is_categorical(frame[name]):
            text = [v for v in frame[name].tolist() if not isinstance(v, (int, float))][:3]
            raise DataError(
                f"target {name!r} holds text or truth values where numbers belong, such as "
                f"{', '.join(map(repr, text)) or 'True'}. Code it as numbers, or choose another target."
            )
    return frame.loc[:, given], frame.loc[:, target]


def read_problem(
    path: str | Path, target: Sequence[str], given: Sequence[str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (X, Y) frames of the table at `path`, with every cell checked; see `read_table` and `split_targets`."""
    X, Y = split_targets(read_table(path), target, given)
    check_finite(X, str(path))
    check_finite(Y, str(path))
    return X, Y


def as_frame(data: Any) -> pd.DataFrame | None:
    """Return a pandas frame for a pandas or polars frame or series, None for anything else."""
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return data.to_frame()
    if hasattr(data, "to_pandas"):
        converted = data.to_pandas()
        return converted.to_frame() if isinstance(converted, pd.Series) else converted
    return None


def to_numpy(values: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def read_numbers(values: Any, what: str) -> np.ndarray:
    """Return an array, tensor, list or frame as float64.

    Raises:
        DataError: it holds text.
    """
    try:
        return np.asarray(to_numpy(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} holds text where numbers belong: {error}") from None


def as_numbers(Y: Any, rows: int) -> np.ndarray:
    """Return the answers beside `rows` rows of X as float64, (rows, values).

    Raises:
        DataError: Y is of another length, or holds text.
    """
    frame = as_frame(Y)
    values = read_numbers(Y if frame is None else frame, "Y")
    if values.shape[:1] != (rows,):
        raise DataError(f"X has {rows} rows, but Y has shape {values.shape}: they must have equal length.")
    return values.reshape(rows, -1)


def is_categorical(column: Any) -> bool:
    """Return whether a column of a frame holds categories: text, or truth values."""
    return not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def share_of_ties(column: np.ndarray) -> float:
    """Return the share of the values (rows,) that other rows share."""
    counts = np.unique(column, return_counts=True)[1]
    return float(counts[counts > 1].sum() / len(column))


def alike(frame: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with text in the columns that held text in training.

    A column of codes such as 1, 2, b holds text; a file with the codes 1 and 2 alone is read as numbers.
    """
    codes = [name for name in frame.columns if holds_text(trained[name]) and not holds_text(frame[name])]
    return frame.astype(dict.fromkeys(codes, str))


def holds_text(column: Any) -> bool:
    """Return whether a column of a frame holds text."""
    return not pd.api.types.is_numeric_dtype(column)  # truth values count as numbers


def check_finite(frame: pd.DataFrame, what: str) -> None:
    """Raise `DataError` naming rows and columns where cells are empty, NaN or infinite."""
    bad = np.array(frame.isna())
    for i, name in enumerate(frame.columns):
        if not is_categorical(frame[name]):
            bad[:, i] |= ~np.isfinite(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
    if not bad.any():
        return
    rows, columns = (
        np.flatnonzero(bad.any(axis=1)),
        [str(frame.columns[i]) for i in np.flatnonzero(bad.any(axis=0))],
    )
    raise DataError(
        f"{what} holds empty, NaN or infinite cells in {len(rows)} row(s), the first at "
        f"{', '.join(map(str, rows[:5]))}; column(s) {', '.join(columns[:5])}. Drop or fill these cells first."
    )


def condition_space(frame: pd.DataFrame) -> Space:
    """Return the space of the columns of X: a vector if all are numbers, else a table with categories."""
    check_finite(frame, "X")
    categorical = [str(c) for c in frame.columns if is_categorical(frame[c])]
    if not categorical:
        return array_space(frame.to_numpy(dtype=np.float64), [str(c) for c in frame.columns], "X")
    return TableSpace.fit(column_arrays(frame), categorical)


def column_arrays(frame: pd.DataFrame) -> Mapping[str, np.ndarray]:
    """Return the columns as arrays (rows,) by name, categories as plain Python values."""
    return {
        str(name): (
            np.array([v.item() if isinstance(v, np.generic) else v for v in frame[name].tolist()], dtype=object)
            if is_categorical(frame[name])
            else frame[name].to_numpy(dtype=np.float64)
        )
        for name in frame.columns
    }
