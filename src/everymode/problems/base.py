"""The contract of a problem whose every valid answer is known, and what all problems share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import DataError, check_number

__all__ = ["Modes", "NotKnownError", "Problem", "draw_labels", "turn"]

# Rows are worked through in blocks, so that memory stays bounded however many are asked for.
_BLOCK_ROWS = 1024
_BLOCK_DRAWS = 16_384


class NotKnownError(ValueError):
    """The problem has no such quantity in closed form; the message says why."""


@dataclass(frozen=True)
class Modes:
    """The distinct valid answers for one x, most probable first.

    Attributes:
        labels: `(k,)` integers, indices into the problem's `mode_names`.
        locations: `(k, dy)`; where a mode is a curve, one representative point on it.
        probabilities: `(k,)`, sum 1.
        spreads: `(k,)`, root-mean-square distance of the mode's draws from its location, or from its curve.
    """

    labels: np.ndarray
    locations: np.ndarray
    probabilities: np.ndarray
    spreads: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def ranked(
        cls,
        labels: ArrayLike,
        locations: ArrayLike,
        probabilities: ArrayLike,
        spreads: ArrayLike,
        drop_below: float = 0.01,
    ) -> Modes:
        """Drop the modes whose probability is under `drop_below`, renormalise, and sort."""
        probabilities = np.asarray(probabilities, float)
        kept = np.flatnonzero(probabilities >= drop_below)
        kept = kept[np.argsort(-probabilities[kept], kind="stable")]
        return cls(
            np.asarray(labels, int)[kept],
            np.asarray(locations, float)[kept],
            probabilities[kept] / probabilities[kept].sum(),
            np.asarray(spreads, float)[kept],
        )


@dataclass(frozen=True)
class Problem(ABC):
    """A source of pairs (x, y) for which every valid y of every x is known.

    `x` is `(rows, dx)` and `y` is `(rows, n, dy)`: n draws for each row. All arrays are float64, and all
    randomness comes from the `seed` given. A subclass is a frozen dataclass whose fields are its settings,
    all of them positive numbers; it fills in the class attributes and the hooks whose names start with an
    underscore. The public methods here check their input, then call the hooks on blocks of rows.

    Attributes:
        name: what `problems.get` knows it by.
        title: one short sentence.
        x_names, y_names: a name for each column.
        mode_names: the labels of modes, over all x.
        answers: "one" or "several".
        exact: whether the density is known.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    x_names: ClassVar[tuple[str, ...]]
    y_names: ClassVar[tuple[str, ...]]
    mode_names: ClassVar[tuple[str, ...]]
    answers: ClassVar[str] = "several"
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field in fields(self):
            check_number(f"{self.name}.{field.name}", getattr(self, field.name), 0, exclusive_low=True)

    def sample(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw n pairs: x `(n, dx)` and y `(n, dy)`."""
        return self._draw_pairs(_count(n), np.random.default_rng(seed))

    def sample_x(self, n: int, seed: int) -> np.ndarray:
        """Draw n conditions, `(n, dx)`."""
        return self._draw_x(_count(n), np.random.default_rng(seed))

    def sample_given(self, x: ArrayLike, n: int, seed: int) -> np.ndarray:
        """Draw n valid answers for each row of x, `(rows, n, dy)`."""
        x = self._checked_x(x)
        rng = np.random.default_rng(seed)
        draws = np.empty((len(x), _count(n), len(self.y_names)))
        for block in _blocks(len(x), n):
            draws[block] = self._draw_y(x[block], n, rng)
        return draws

    def log_density(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """log p(y | x) in nats, `(rows, n)`. Raises `NotKnownError` where `exact` is False."""
        x, y = self._checked(x, y)
        result = np.empty(y.shape[:2])
        for block in _blocks(*y.shape[:2]):
            result[block] = self._log_density(x[block], y[block])
        return result

    def modes(self, x: ArrayLike) -> list[Modes]:
        """The distinct valid answers, one `Modes` a row of x."""
        x = self._checked_x(x)
        return [modes for block in _blocks(len(x), 1) for modes in self._modes(x[block])]

    def assign(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """The label of the mode each draw belongs to, `(rows, n)` integers; -1 for an invalid draw."""
        x, y = self._checked(x, y)
        labels = np.empty(y.shape[:2], int)
        for block in _blocks(*y.shape[:2]):
            labels[block] = self._assign(x[block], y[block])
        return labels

    def valid(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Whether each draw is a valid answer for its x, `(rows, n)`; each problem states its own rule."""
        return self.assign(x, y) >= 0

    def mean(self, x: ArrayLike) -> np.ndarray:
        """E[y | x], `(rows, dy)`: what squared error would learn."""
        x = self._checked_x(x)
        result = np.empty((len(x), len(self.y_names)))
        for block in _blocks(len(x), 1):
            result[block] = self._mean(x[block])
        return result

    @abstractmethod
    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray: ...

    @abstractmethod
    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray: ...

    @abstractmethod
    def _log_density(self, x: np.ndarray, y: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _modes(self, x: np.ndarray) -> list[Modes]: ...

    @abstractmethod
    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _mean(self, x: np.ndarray) -> np.ndarray: ...

    def _draw_pairs(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = self._draw_x(n, rng)
        y = np.concatenate([self._draw_y(x[block], 1, rng)[:, 0] for block in _blocks(n, 1)])
        return x, y

    def _checked_x(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, float)
        if x.ndim != 2 or x.shape[1] != len(self.x_names):
            raise DataError(
                f"{self.name}: x must have shape (rows, {len(self.x_names)}), "
                f"its columns being {', '.join(self.x_names)}; got {x.shape}"
            )
        _refuse_non_finite(x, f"{self.name}: x")
        return x

    def _checked(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        x, y = self._checked_x(x), np.asarray(y, float)
        if y.ndim != 3 or y.shape[0] != len(x) or y.shape[2] != len(self.y_names):
            raise DataError(
                f"{self.name}: y must have shape ({len(x)}, n, {len(self.y_names)}) beside x of shape "
                f"{x.shape}, its columns being {', '.join(self.y_names)}; got {y.shape}"
            )
        _refuse_non_finite(y, f"{self.name}: y")
        return x, y


def draw_labels(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n indices for each row of `weights (rows, k)`, with those probabilities: `(rows, n)` integers."""
    rows, k = weights.shape
    cumulative = np.cumsum(weights, axis=1)
    cumulative /= cumulative[:, -1:]
    # One sorted list holds all rows: row r occupies the interval [r, r + 1).
    first = np.arange(rows)[:, None]
    found = np.searchsorted((cumulative + first).ravel(), rng.random((rows, n)) + first, side="right")
    return np.clip(found - first * k, 0, k - 1)


def turn(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turn points `(rows, n, 2)` anticlockwise by `angle (rows,)`, in radians."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    first, second = points[..., 0], points[..., 1]
    return np.stack([cos * first - sin * second, sin * first + cos * second], axis=-1)


def _blocks(rows: int, n: int) -> Iterator[slice]:
    step = min(_BLOCK_ROWS, max(1, _BLOCK_DRAWS // max(n, 1)))
    return (slice(start, start + step) for start in range(0, rows, step))


def _count(n: int) -> int:
    return check_number("n", n, 1, integer=True)


def _refuse_non_finite(values: np.ndarray, what: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=tuple(range(1, values.ndim))))
        columns = np.flatnonzero(bad.any(axis=tuple(range(values.ndim - 1))))
        more = ", ..." if len(rows) > 5 else ""
        raise DataError(
            f"{what} has {bad.sum()} non-finite numbers, in rows {', '.join(map(str, rows[:5]))}{more} "
            f"and columns {', '.join(map(str, columns))}; remove them first"
        )
