"""What x and y look like: shapes, names, and the standardisation that travels with the model.

A space turns what a user has (arrays, columns) into standardised tensors and back. Families and networks see the
tensors only. `log_jacobian` is the log-determinant of that standardisation, so that a density of the standardised
tensor becomes a density in the units of the user: log p(y) = log p(encode(y)) + log_jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from everymode.errors import DataError, nearest

__all__ = [
    "FEW_VALUES",
    "ArraySpace",
    "Column",
    "Condition",
    "DictSpace",
    "ImageSpace",
    "LabelSpace",
    "PixelSpace",
    "SequenceSpace",
    "Space",
    "TableSpace",
    "VectorSpace",
    "array_space",
    "count_rows",
    "place",
    "repeat_rows",
    "space_from_dict",
    "take_rows",
]

FEW_VALUES = 16
"""Events of no more values are where modes are many and sharp, and where full covariances and even draws are cheap."""

Condition = Tensor | dict[str, Tensor]
"""A standardised x: one tensor, or a dict of them (a table with categorical columns, a robot's observation)."""


# Rows of a condition ---------------------------------------------------------------------------------------------


def count_rows(x: Condition) -> int:
    """Return the number of rows of x."""
    return len(next(iter(x.values()))) if isinstance(x, dict) else len(x)


def take_rows(x: Condition, index: Tensor | slice) -> Condition:
    """Return the rows of x at `index`."""
    if isinstance(x, dict):
        return {key: _take(value, index) for key, value in x.items()}
    return _take(x, index)


def _take(values: Tensor, index: Tensor | slice) -> Tensor:
    return values[index] if isinstance(index, slice) else values.index_select(0, index)


def repeat_rows(x: Condition, n: int) -> Condition:
    """Return every row of x `n` times, copies side by side; a single row is expanded, so that networks can tell."""
    if n == 1:
        return x
    if isinstance(x, dict):
        return {key: _repeat(value, n) for key, value in x.items()}
    return _repeat(x, n)


def _repeat(x: torch.Tensor, n: int) -> torch.Tensor:
    return x.expand(n, *x.shape[1:]) if len(x) == 1 else x.repeat_interleave(n, dim=0)


def place(x: Condition, device: torch.device | str) -> Condition:
    """Return x on `device`."""
    if isinstance(x, dict):
        return {key: value.to(device) for key, value in x.items()}
    return x.to(device)


# Spaces of numbers -----------------------------------------------------------------------------------------------


def _finite(values: np.ndarray, what: str, names: Sequence[str] = ()) -> None:
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    rows = np.flatnonzero(bad.reshape(len(values), -1).any(axis=1))
    where = f"{len(rows)} row(s), the first at {', '.join(map(str, rows[:5]))}"
    if values.ndim == 2:
        columns = np.flatnonzero(bad.any(axis=0))
        labels = [names[c] if c < len(names) else f"column {c}" for c in columns[:5]]
        where += f"; column(s) {', '.join(map(str, labels))}"
    raise DataError(f"{what} holds NaN or infinite values in {where}. Drop or fill these cells first.")


@dataclass(frozen=True)
class Space:
    """Base of all spaces. Frozen: fitted once, saved as JSON with the model."""

    kind: ClassVar[str] = "space"

    def encode(self, values: Any) -> Condition:
        """Return standardised tensors, float32 (codes: int64), rows first."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, from which `space_from_dict` makes the space again."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class ArraySpace(Space):
    """Numbers of one event shape, standardised by a shift and a scale a channel.

    `shift` and `scale` have one entry a channel: the last axis of vectors and sequences, the first of images.
    """

    shape: tuple[int, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    names: tuple[str, ...] = ()

    channel_axis: ClassVar[int] = -1

    def __post_init__(self) -> None:
        for name in ("shape", "shift", "scale", "names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        channels = self.shape[self.channel_axis] if self.shape else 0
        if len(self.shift) != channels or len(self.scale) != channels:
            raise DataError(
                f"{self.kind}: {channels} channel(s) in shape {self.shape}, but {len(self.shift)} shift(s) and "
                f"{len(self.scale)} scale(s)."
            )
        if not all(s > 0 and math.isfinite(s) for s in self.scale):
            raise DataError(f"{self.kind}: every scale must be positive and finite; they are {self.scale}.")

    @classmethod
    def fit(cls, values: np.ndarray, names: Sequence[str] = ()) -> ArraySpace:
        """Return the space of `values` (rows, *event), with each channel's mean and standard deviation.

        A channel that never varies keeps a scale of 1.

        Raises:
            DataError: cells are NaN or infinite.
        """
        values = np.asarray(values, dtype=np.float64)
        _finite(values, "the data", names)
        shape = values.shape[1:]
        axis = cls.channel_axis % len(shape)
        moved = np.moveaxis(values, axis + 1, -1).reshape(math.prod(values.shape) // max(1, shape[axis]), shape[axis])
        shift = moved.mean(axis=0) if len(moved) else np.zeros(shape[axis])
        deviation = np.sqrt(np.mean((moved - shift) ** 2, axis=0)) if len(moved) else np.ones(shape[axis])
        # what floating point leaves of a constant column is no spread
        constant = deviation <= 1e-13 * np.maximum(np.abs(shift), 1e-12)
        scale = np.where(constant | ~(deviation > 0), 1.0, deviation)
        return cls(shape, tuple(map(float, shift)), tuple(map(float, scale)), tuple(names))

    @property
    def size(self) -> int:
        """Number of values in one event."""
        return math.prod(self.shape)

    @property
    def value_names(self) -> tuple[str, ...]:
        """A name for each value: that of its column, or y; y0, y1, ... where columns have none or hold several."""
        return self.names if len(self.names) == self.size else default_names(self.size)

    @property
    def log_jacobian(self) -> float:
        """log |d encode(y) / d y|: minus the sum of the logs of the scales, each counted as often as it is used."""
        repeats = self.size // max(1, len(self.scale))
        return -repeats * sum(math.log(s) for s in self.scale)

    def _channels(self, values: tuple[float, ...]) -> np.ndarray:
        shape = [1] * len(self.shape)
        shape[self.channel_axis] = len(values)
        return np.asarray(values).reshape(shape)

    def per_value(self, values: tuple[float, ...]) -> np.ndarray:
        """Return one number a channel (a shift, a scale) spread over the event's shape."""
        return np.broadcast_to(self._channels(values), self.shape)

    @property
    def middle(self) -> np.ndarray:
        """An event as the user has it that stands for what is not known: the mean."""
        return self.per_value(self.shift)

    def spread_over(self, values: np.ndarray) -> np.ndarray:
        """Return one thing a value as the user has it, (rows, *event), as one a standardised value."""
        return values

    def check(self, values: Any, what: str = "the data") -> np.ndarray:
        """Return `values` as float64 (rows, *event), or raise `DataError` naming both shapes or the bad cells."""
        try:
            array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what} holds text where numbers belong: {error}") from None
        if array.shape[1:] != self.shape or array.ndim != len(self.shape) + 1:
            raise DataError(f"{what} has shape {array.shape}, but each row must have shape {self.shape}.")
        _finite(array, what, self.names)
        return array

    def encode(self, values: Any) -> Tensor:
        """Return (values - shift) / scale as float32 (rows, *event)."""
        array = self.check(values)
        return torch.from_numpy(((array - self._channels(self.shift)) / self._channels(self.scale)).astype(np.float32))

    def decode(self, values: Tensor) -> np.ndarray:
        """Return standardised values (..., *event) in the user's units, as float64."""
        array = values.detach().cpu().numpy().astype(np.float64)
        return array * self._channels(self.scale) + self._channels(self.shift)


@dataclass(frozen=True)
class VectorSpace(ArraySpace):
    """Events (d,): the columns of a table."""

    kind: ClassVar[str] = "vector"


@dataclass(frozen=True)
class SequenceSpace(ArraySpace):
    """Events (horizon, d): a robot's next actions, a walker's next positions. One scale a value, over all steps.

    Values that are angles are told by their sine and cosine, so that where a turn ends is a place like any other. The
    standardised event is then (horizon, d + angles): first the other values, then all sines, then all cosines. It is
    decoded to the angle within half a turn of `centres`, the middle of the range that the data had: angles that were
    told from 0 to 2 pi come back so. More than one turn cannot be told.

    Attributes:
        angles: which of the d values are angles in radians, rising.
        centres: the middle of the range of each.
    """

    angles: tuple[int, ...] = ()
    centres: tuple[float, ...] = ()

    kind: ClassVar[str] = "sequence"

    def __post_init__(self) -> None:
        for name in ("angles", "centres"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    @classmethod
    def over(
        cls, values: np.ndarray, horizon: int, *, names: Sequence[str] = (), angles: Sequence[int] = ()
    ) -> SequenceSpace:
        """Return the space of windows of `horizon` consecutive rows of `values` (steps, d).

        Args:
            values: in the order of time.
            horizon: steps of a window.
            names: of the d values.
            angles: which of them are angles in radians.

        Raises:
            DataError: cells are NaN or infinite.
        """
        values, turned = np.asarray(values, dtype=np.float64), tuple(sorted(angles))
        _finite(values, "the data", names)
        others = [index for index in range(values.shape[1]) if index not in turned]
        plain = VectorSpace.fit(values[:, others])
        around = tuple((values[:, index].min() + values[:, index].max()) / 2 for index in turned)
        return cls(
            (horizon, len(others) + 2 * len(turned)),
            (*plain.shift, *(0.0 for _ in turned + turned)),
            (*plain.scale, *(1.0 for _ in turned + turned)),
            tuple(names),
            turned,
            tuple(map(float, around)),
        )

    @property
    def given_shape(self) -> tuple[int, ...]:
        """Shape of an event as the user has it, (horizon, d)."""
        return (self.shape[0], self.shape[1] - len(self.angles))

    @property
    def _others(self) -> list[int]:
        """Which of the d values are no angles."""
        return [index for index in range(self.given_shape[1]) if index not in self.angles]

    @property
    def middle(self) -> np.ndarray:
        """An event as the user has it that stands for what is not known, (horizon, d): means, and centres of angles."""
        event = np.empty(self.given_shape)
        event[:, self._others] = self.shift[: len(self._others)]
        event[:, list(self.angles)] = self.centres
        return event

    def spread_over(self, values: np.ndarray) -> np.ndarray:
        """Return one thing a value (rows, horizon, d) as one a standardised value, (rows, horizon, d + angles)."""
        return values[..., [*self._others, *self.angles, *self.angles]]

    def check(self, values: Any, what: str = "the data") -> np.ndarray:
        """Return `values` as float64 (rows, horizon, d + angles), angles told by sines and cosines."""
        if not self.angles:
            return super().check(values, what)
        array = np.asarray(values, dtype=np.float64)
        if array.shape[1:] != self.given_shape:
            raise DataError(f"{what} has shape {array.shape}, but each row must have shape {self.given_shape}.")
        _finite(array, what, self.names)  # a sine of infinity would only warn
        turned = array[..., list(self.angles)]
        told = [np.delete(array, list(self.angles), axis=-1), np.sin(turned), np.cos(turned)]
        return super().check(np.concatenate(told, axis=-1), what)

    def decode(self, values: Tensor) -> np.ndarray:
        """Return standardised values (..., horizon, d + angles) in the user's units, (..., horizon, d), as float64."""
        array = super().decode(values)
        if not self.angles:
            return array
        count = len(self.angles)
        plain, sines, cosines = np.split(array, [array.shape[-1] - 2 * count, array.shape[-1] - count], axis=-1)
        centres = np.asarray(self.centres)
        turned = np.arctan2(sines, cosines) - centres
        angles = centres + turned - 2 * np.pi * np.round(turned / (2 * np.pi))
        decoded = np.empty((*array.shape[:-1], array.shape[-1] - count))
        decoded[..., self._others] = plain
        decoded[..., list(self.angles)] = angles
        return decoded


@dataclass(frozen=True)
class ImageSpace(ArraySpace):
    """Events (channels, height, width). One scale a channel, over all pixels."""

    kind: ClassVar[str] = "image"
    channel_axis: ClassVar[int] = 0


@dataclass(frozen=True)
class PixelSpace(Space):
    """Windows of pictures of bytes, (horizon, height, width, channels), which stay bytes until a network has them.

    Attributes:
        horizon: pictures a row.
        shape: of one picture as networks see it, (channels, height, width).
    """

    kind: ClassVar[str] = "pixels"
    horizon: int = 1
    shape: tuple[int, ...] = (3, 96, 96)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def given_shape(self) -> tuple[int, ...]:
        """Shape of a row as the user has it, (horizon, height, width, channels)."""
        channels, *sides = self.shape
        return (self.horizon, *sides, channels)

    def encode(self, values: Any) -> Tensor:
        """Return uint8 (rows, horizon, channels, height, width)."""
        array = np.asarray(values)
        if array.dtype != np.uint8 or array.shape[1:] != self.given_shape:
            raise DataError(
                f"pictures have shape {array.shape} and dtype {array.dtype}, but each row must have shape "
                f"{self.given_shape}, in bytes (uint8)."
            )
        return torch.from_numpy(np.ascontiguousarray(array)).movedim(-1, -3)


_BY_RANK: dict[int, type[ArraySpace]] = {1: VectorSpace, 2: SequenceSpace, 3: ImageSpace}


def default_names(size: int) -> tuple[str, ...]:
    """Return the names of so many values that have none: y; or y0, y1, ..."""
    return ("y",) if size == 1 else tuple(f"y{index}" for index in range(size))


def array_space(values: np.ndarray, names: Sequence[str] = (), what: str = "the data") -> ArraySpace:
    """Return the fitted space that suits the rank of `values` (rows, *event): vector, sequence or image."""
    rank = values.ndim - 1
    if rank not in _BY_RANK:
        raise DataError(
            f"{what} has shape {values.shape}: give (rows, d) for vectors, (rows, horizon, d) for sequences or "
            "(rows, channels, height, width) for images."
        )
    return _BY_RANK[rank].fit(values, names)


# Spaces of codes, columns and parts ------------------------------------------------------------------------------


def _codes(values: Any, categories: tuple[Any, ...], what: str) -> np.ndarray:
    lookup = {category: code for code, category in enumerate(categories)}
    flat = [v.item() if isinstance(v, np.generic) else v for v in values]
    unseen = sorted({str(v) for v in flat if v not in lookup})
    if unseen:
        close = nearest(unseen[0], [str(c) for c in categories])
        hint = f" The nearest known: {', '.join(close)}." if close else ""
        listed = ", ".join(map(str, categories[:20])) + (", ..." if len(categories) > 20 else "")
        raise DataError(
            f"{what} holds {'categories' if len(unseen) > 1 else 'a category'} never seen in training: "
            f"{', '.join(map(repr, unseen[:5]))}.{hint} Known: {listed}."
        )
    return np.fromiter((lookup[v] for v in flat), dtype=np.int64, count=len(flat))


@dataclass(frozen=True)
class LabelSpace(Space):
    """One label a row, coded 0 .. k - 1 in the order of `categories`."""

    kind: ClassVar[str] = "label"
    categories: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))

    @classmethod
    def fit(cls, values: Any) -> LabelSpace:
        """Return the space of the labels that occur."""
        return cls(
            tuple(v.item() if isinstance(v, np.generic) else v for v in sorted(set(np.asarray(values).tolist())))
        )

    def encode(self, values: Any) -> Tensor:
        """Return codes (rows,), int64."""
        return torch.from_numpy(_codes(np.asarray(values).ravel().tolist(), self.categories, "the label column"))


@dataclass(frozen=True)
class Column:
    """One column of a table: numeric with a shift and a scale, or categorical with its categories."""

    name: str
    categories: tuple[Any, ...] | None = None
    shift: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class TableSpace(Space):
    """Columns of a table, some of them categorical. Encodes to `numeric` (rows, k) and `categorical` (rows, m)."""

    kind: ClassVar[str] = "table"
    columns: tuple[Column, ...] = field(default=())

    def __post_init__(self) -> None:
        columns = tuple(c if isinstance(c, Column) else Column(**c) for c in self.columns)
        fixed = (
            Column(c.name, None if c.categories is None else tuple(c.categories), c.shift, c.scale) for c in columns
        )
        object.__setattr__(self, "columns", tuple(fixed))

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in the order of the table."""
        return tuple(c.name for c in self.columns)

    @property
    def numeric(self) -> tuple[Column, ...]:
        """The columns of numbers."""
        return tuple(c for c in self.columns if c.categories is None)

    @property
    def categorical(self) -> tuple[Column, ...]:
        """The columns of categories."""
        return tuple(c for c in self.columns if c.categories is not None)

    @classmethod
    def fit(cls, columns: Mapping[str, np.ndarray], categorical: Sequence[str]) -> TableSpace:
        """Return the space of named columns (rows,); those in `categorical` are coded, the others standardised."""
        fitted = []
        for name, values in columns.items():
            if name in categorical:
                seen = {v.item() if isinstance(v, np.generic) else v for v in values}
                fitted.append(Column(name, tuple(sorted(seen, key=lambda v: (str(type(v)), v)))))
            else:
                space = VectorSpace.fit(np.asarray(values, dtype=np.float64)[:, None], (name,))
                fitted.append(Column(name, None, space.shift[0], space.scale[0]))
        return cls(tuple(fitted))

    def encode(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return {'numeric': float32 (rows, k), 'categorical': int64 (rows, m)} for a mapping of columns (rows,)."""
        numeric, codes = [], []
        for column in self.columns:
            data = values[column.name]
            if column.categories is not None:
                codes.append(_codes(list(data), column.categories, f"column {column.name!r}"))
                continue
            try:
                numbers = np.asarray(data, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(f"column {column.name!r} holds text where numbers belong: {error}") from None
            _finite(numbers[:, None], "the table", (column.name,))
            numeric.append((numbers - column.shift) / column.scale)
        rows = len(next(iter(values.values())))
        stack = np.stack(numeric, axis=1) if numeric else np.zeros((rows, 0))
        coded = np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int64)
        return {"numeric": torch.from_numpy(stack.astype(np.float32)), "categorical": torch.from_numpy(coded)}


@dataclass(frozen=True)
class DictSpace(Space):
    """Several named spaces at once: an observation of state and images, a label beside a vector."""

    kind: ClassVar[str] = "dict"
    parts: Mapping[str, Space] = field(default_factory=dict)

    def encode(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return each part's tensor by its name; parts that are tables are not nested."""
        missing = [key for key in self.parts if key not in values]
        if missing:
            raise DataError(f"x lacks {', '.join(missing)}; it must hold {', '.join(self.parts)}.")
        encoded = {}
        for key, space in self.parts.items():
            tensor = space.encode(values[key])
            if not isinstance(tensor, Tensor):
                raise DataError(f"part {key!r} of x is a {space.kind}; give its columns as parts of their own.")
            encoded[key] = tensor
        return encoded

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"kind": self.kind, "parts": {key: space.to_dict() for key, space in self.parts.items()}}


_KINDS: dict[str, type[Space]] = {
    cls.kind: cls for cls in (VectorSpace, SequenceSpace, ImageSpace, PixelSpace, LabelSpace, TableSpace, DictSpace)
}


def space_from_dict(description: Mapping[str, Any]) -> Space:
    """Return the space that `Space.to_dict` described."""
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in _KINDS:
        raise DataError(f"unknown kind of space {kind!r}; known: {', '.join(_KINDS)}.")
    if kind == "dict":
        return DictSpace({key: space_from_dict(part) for key, part in settings["parts"].items()})
    return _KINDS[kind](**settings)
