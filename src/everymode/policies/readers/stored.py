"""Arrays that lie in files and are read as they are asked for."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from everymode.errors import DataError, FileError

__all__ = ["Stored", "as_pixels", "damaged"]

_CHANNELS = (1, 3, 4)
_DAMAGES = (OSError, EOFError, RuntimeError, ValueError, KeyError, zlib.error, zipfile.BadZipFile)


def damaged(where: str, error: BaseException) -> FileError:
    """Return the error of a file that cannot be read to its end."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return FileError(f"{where} is damaged or cut short: {reason}. Copy or download it again.")


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows that lie in one file or in several, end to end; asked for rows, it reads these and no others.

    Attributes:
        parts: arrays or datasets (rows, ...) of one kind, which take slices.
        where: the file and the name in it, for errors.
        convert: what is done to the rows that were read; it keeps their number.
        sliceable: whether a slice can be read without the rest.
    """

    parts: Sequence[Any]
    where: str
    convert: Callable[[np.ndarray], np.ndarray] | None = None
    sliceable: bool = True

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([part.shape[0] for part in self.parts])

    @cached_property
    def _like(self) -> np.ndarray:
        first = self.parts[0]
        like = np.empty((0, *first.shape[1:]), dtype=first.dtype)
        return self.convert(like) if self.convert else like

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, ...)."""
        return (len(self), *self._like.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._like.ndim

    @property
    def dtype(self) -> np.dtype:
        """The type of what is read."""
        return self._like.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return rows: a whole number, a slice, or an array of them of any shape, in any order, repeated or not."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._run(start, max(start, stop))
            rows = np.arange(start, stop, step)
        asked = np.asarray(rows)
        if asked.dtype == bool:
            asked = np.flatnonzero(asked)
        if asked.size and not (-len(self) <= asked.min() and asked.max() < len(self)):
            raise IndexError(f"{self.where}: rows from {asked.min()} to {asked.max()} of {len(self)}")
        distinct, back = np.unique(asked % len(self), return_inverse=True)
        if not len(distinct):
            return self._run(0, 0)
        runs = np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)
        read = np.concatenate([self._run(int(run[0]), int(run[-1]) + 1) for run in runs])
        return read[back.reshape(asked.shape)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows."""
        read = self._run(0, len(self))
        return read if dtype is None else read.astype(dtype, copy=False)

    def _run(self, start: int, stop: int) -> np.ndarray:
        if start >= stop:
            return self._like
        pieces = []
        for part, end in zip(self.parts, self._ends, strict=True):
            first = int(end) - part.shape[0]
            low, high = max(start, first), min(stop, int(end))
            if low < high:
                pieces.append(self._read(part, low - first, high - first))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _read(self, part: Any, low: int, high: int) -> np.ndarray:
        try:
            values = np.asarray(part[low:high])
        except (DataError, FileError):
            raise
        except _DAMAGES as error:
            raise damaged(self.where, error) from error
        return self.convert(values) if self.convert else values


def as_pixels(stored: Stored) -> Stored:
    """Return pictures as uint8 (rows, height, width, channels), and anything else as it is.

    Pictures are arrays of four axes of which the last, or else the second, is 1, 3 or 4 channels. Floats are taken for
    0 to 255, or for 0 to 1 where the first row has nothing above 1.
    """
    if stored.ndim != 4 or not {stored.shape[1], stored.shape[3]} & set(_CHANNELS):
        return stored
    first = stored.shape[3] not in _CHANNELS
    unit = stored.dtype.kind == "f" and len(stored) > 0 and float(stored[:1].max()) <= 1.0
    if not first and stored.dtype == np.uint8:
        return stored

    def convert(rows: np.ndarray) -> np.ndarray:
        turned = np.moveaxis(rows, 1, -1) if first else rows
        if turned.dtype == np.uint8:
            return turned
        return np.clip(np.rint(turned * (255.0 if unit else 1.0)), 0, 255).astype(np.uint8)

    return Stored(stored.parts, stored.where, convert, stored.sliceable)
