"""What is in demonstrations: how many, how long, in which ranges, and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from everymode.errors import check_number
from everymode.policies.demonstrations import ACTION, STATE, Demonstrations

__all__ = ["Overview", "Values", "overview"]

_BLOCK = 10_000  # rows that are read at once
_PIXEL_ROWS = 500  # pictures whose range is looked at
_LISTED, _UNNAMED = 20, 8  # values and labels that are told one by one


@dataclass(frozen=True)
class Values:
    """One observation, or the actions.

    Attributes:
        name: of it.
        kind: 'numbers', 'pixels' or 'labels'.
        shape: of one step.
        dtype: NumPy's name.
        low, high: least and greatest of each number, flattened (d,); of all pixels, (1,); () for labels.
        value_names: of the numbers, as many as there are, or none.
        angles: which of the numbers are angles in radians.
        constant: which of them never change.
        labels: the distinct ones, the first 20; () for numbers.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    value_names: tuple[str, ...] = ()
    angles: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()

    def value_name(self, index: int) -> str:
        """Return what a number is called."""
        return self.value_names[index] if self.value_names else f"{self.name} {index}"

    @property
    def told(self) -> str:
        """The ranges, or the labels, in a line."""
        if self.kind == "labels":
            return ", ".join(self.labels)
        if self.kind == "pixels":
            return f"{self.low[0]:g} to {self.high[0]:g}"
        if len(self.low) > (_LISTED if self.value_names else _UNNAMED):
            return f"{min(self.low):.4g} to {max(self.high):.4g} over {len(self.low)} values"
        turned = set(self.angles)
        return ", ".join(
            (f"{self.value_name(i)}: " if self.value_names else "")
            + f"{low:.4g} to {high:.4g}"
            + (" (angle)" if i in turned else "")
            for i, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        )


@dataclass(frozen=True)
class Overview:
    """What is in demonstrations.

    Attributes:
        source: where they are from.
        steps: of all episodes.
        lengths: of each episode in steps, (episodes,).
        rate: control steps a second; None where it is not known.
        values: the observations and, last, the actions.
        ways: episodes of each way, by name; empty where ways are not known.
        remarks: what a policy that learns from them should know: short episodes, values that never change.
        paths: what is drawn of each episode, (steps, 2) each; empty where nothing has two numbers.
        path_names: of the two numbers.
        path_ways: the way of each episode, (episodes,); None where ways are not known.
    """

    source: str
    steps: int
    lengths: np.ndarray
    rate: float | None
    values: tuple[Values, ...]
    ways: dict[str, int]
    remarks: tuple[str, ...]
    paths: tuple[np.ndarray, ...] = field(repr=False)
    path_names: tuple[str, str] = ("", "")
    path_ways: np.ndarray | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.source}: {len(self.lengths):,} episodes, {self.steps:,} steps"

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, JSON-ready."""
        return {
            "source": self.source,
            "episodes": len(self.lengths),
            "steps": self.steps,
            "length_min": int(self.lengths.min()),
            "length_median": float(np.median(self.lengths)),
            "length_max": int(self.lengths.max()),
            "rate": self.rate,
            "observations": [asdict(values) for values in self.values[:-1]],
            "actions": asdict(self.values[-1]),
            "ways": self.ways,
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        """Return what there is, a line each."""
        low, middle, high = self.lengths.min(), np.median(self.lengths), self.lengths.max()
        seconds = f" or {middle / self.rate:.3g} s at {self.rate:g} Hz" if self.rate else "; the rate is not known"
        lines = [self.title, f"  steps an episode: {low:,} to {high:,}, median {middle:g}{seconds}"]
        for values in self.values:
            shape = " x ".join(map(str, values.shape)) or "one"
            lines.append(f"  {values.name}: {shape} {values.kind} ({values.dtype}); {values.told}")
        if self.ways:
            lines.append(f"  ways: {', '.join(f'{name} {count}' for name, count in self.ways.items())}")
        return "\n".join([*lines, *(f"  {remark}" for remark in self.remarks)])


def overview(demonstrations: Demonstrations, *, prediction_horizon: int = 16) -> Overview:
    """Return what is in demonstrations.

    Args:
        demonstrations: of which everything but pictures is read, a block at a time.
        prediction_horizon: actions that a policy predicts; shorter episodes are remarked on.

    Raises:
        SettingError: the horizon is out of range.
    """
    horizon = check_number("prediction_horizon", prediction_horizon, 1, integer=True)
    named = {**demonstrations.observations, ACTION: demonstrations.actions}
    values = tuple(_values(demonstrations, name, array) for name, array in named.items())
    names, paths = _paths(demonstrations, values)
    ways = demonstrations.ways
    return Overview(
        demonstrations.source,
        demonstrations.steps,
        demonstrations.lengths,
        demonstrations.rate,
        values,
        _counted(demonstrations),
        tuple(_remarks(demonstrations, values, horizon)),
        paths,
        names,
        None if ways is None else np.asarray(ways),
    )


def _values(demonstrations: Demonstrations, name: str, array: Any) -> Values:
    shape, dtype = tuple(map(int, array.shape[1:])), np.dtype(array.dtype)
    if not shape and dtype.kind not in "f":
        distinct = np.unique(np.asarray(array).astype(str))
        more = (f"and {len(distinct) - _LISTED} more",) if len(distinct) > _LISTED else ()
        return Values(name, "labels", shape, str(dtype), labels=(*map(str, distinct[:_LISTED]), *more))
    if len(shape) == 3 and dtype == np.uint8:
        some = np.linspace(0, len(array) - 1, min(_PIXEL_ROWS, len(array))).astype(int)
        seen = np.asarray(array[some])
        return Values(name, "pixels", shape, "uint8", (float(seen.min()),), (float(seen.max()),))
    low, high = _range(array)
    told = tuple(map(str, demonstrations.names.get(name, ())))
    return Values(
        name,
        "numbers",
        shape,
        dtype.name,
        tuple(low.tolist()),
        tuple(high.tolist()),
        told if len(told) == len(low) else (),
        tuple(map(int, demonstrations.angles.get(name, ()))),
        tuple(np.flatnonzero(low == high).tolist()),
    )


def _range(array: Any) -> tuple[np.ndarray, np.ndarray]:
    lows, highs = [], []
    for start in range(0, len(array), _BLOCK):
        block = np.asarray(array[start : start + _BLOCK], dtype=np.float64)
        flat = block.reshape(len(block), -1)
        lows.append(flat.min(axis=0))
        highs.append(flat.max(axis=0))
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _counted(demonstrations: Demonstrations) -> dict[str, int]:
    if demonstrations.ways is None:
        return {}
    numbers, counts = np.unique(np.asarray(demonstrations.ways), return_counts=True)
    names = list(demonstrations.way_names)
    return {
        names[number] if 0 <= number < len(names) else f"way {number}": count
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    }


def _remarks(demonstrations: Demonstrations, values: Sequence[Values], horizon: int) -> list[str]:
    said = []
    short = int((demonstrations.lengths < horizon).sum())
    if short:
        said.append(
            f"{short:,} episode(s) are shorter than the {horizon} actions that a policy predicts: their last action "
            "stands for those after it"
        )
    for one in values:
        if one.constant and len(one.constant) == len(one.low):
            said.append(f"{one.name} never changes, and tells a policy nothing")
        elif one.constant:
            listed = ", ".join(map(one.value_name, one.constant[:_LISTED]))
            said.append(f"{one.name} has values that never change, which does no harm: {listed}")
    return said


def _paths(demonstrations: Demonstrations, values: Sequence[Values]) -> tuple[tuple[str, str], tuple[np.ndarray, ...]]:
    """Return two numbers to draw and the path of each episode: of the state, another observation, or the actions."""
    flat = [one for one in values if one.kind == "numbers" and len(one.shape) == 1 and one.shape[0] > 1]
    if not flat:
        return ("", ""), ()
    chosen = next((one for one in flat if one.name == STATE), flat[0])
    array = demonstrations.actions if chosen.name == ACTION else demonstrations.observations[chosen.name]
    drawn = tuple(np.asarray(array[rows], dtype=np.float64)[:, :2] for rows in demonstrations)
    return (chosen.value_name(0), chosen.value_name(1)), drawn
