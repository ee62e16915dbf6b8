"""Demonstrations: episodes of observations and actions, laid end to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from everymode.errors import DataError, unknown_name

__all__ = ["ACTION", "STATE", "Demonstrations"]

STATE, ACTION = "state", "action"
_BLOCK = 10_000  # rows


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Episodes of a task, laid end to end along the first axis, one row a control step.

    Arrays may be memory-mapped: nothing here reads more of them than it is asked for, apart from `check_finite`.

    Attributes:
        observations: by name: numbers (steps, ...) such as `state` (steps, d), pixels (steps, height, width, channels)
            of dtype uint8, or labels (steps,), whole numbers or text.
        actions: (steps, d).
        episode_ends: (episodes,), rising: episode e is the rows from the end of the one before it up to its own.
        rate: control steps a second; None where it is not known.
        angles: which values are angles in radians, by the name of the observation, or 'action'.
        names: the names of values, by the name of the observation, or 'action'.
        ways: (episodes,), which of `way_names` each episode took; None where it is not known.
        way_names: names of the ways.
        source: where they are from, for titles and errors.

    Raises:
        DataError: rows differ, ends do not rise or do not fit, an episode is empty, or an angle names no value.
    """

    observations: Mapping[str, Any]
    actions: Any
    episode_ends: np.ndarray
    rate: float | None = None
    angles: Mapping[str, Sequence[int]] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ways: np.ndarray | None = None
    way_names: Sequence[str] = ()
    source: str = "demonstrations"

    def __post_init__(self) -> None:
        object.__setattr__(self, "episode_ends", np.asarray(self.episode_ends, dtype=np.int64))
        if not self.observations:
            raise DataError(f"{self.source}: there is no observation; give at least one, such as {STATE!r}.")
        if len(getattr(self.actions, "shape", ())) != 2:
            raise DataError(f"{self.source}: actions have shape {np.shape(self.actions)}; give (steps, d).")
        rows = {ACTION: len(self.actions), **{name: len(values) for name, values in self.observations.items()}}
        if len(set(rows.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in rows.items())
            raise DataError(f"{self.source}: observations and actions differ in steps: {told}.")
        self._check_ends()
        for name, indices in self.angles.items():
            self._check_angles(name, indices)
        if self.ways is not None and len(self.ways) != self.n_episodes:
            raise DataError(f"{self.source}: {len(self.ways)} ways are given for {self.n_episodes} episodes.")

    def _check_ends(self) -> None:
        ends = self.episode_ends
        if ends.ndim != 1 or not len(ends):
            raise DataError(f"{self.source}: episode_ends has shape {ends.shape}; give (episodes,), at least one.")
        lengths = np.diff(ends, prepend=0)
        if (lengths <= 0).any():
            where = int(np.flatnonzero(lengths <= 0)[0])
            raise DataError(f"{self.source}: episode_ends must rise; episode {where} has {int(lengths[where])} steps.")
        if ends[-1] != self.steps:
            raise DataError(
                f"{self.source}: the last episode ends at step {int(ends[-1])}, but there are {self.steps} steps: the "
                "file is cut short, or episode_ends belongs to another."
            )

    def _check_angles(self, name: str, indices: Sequence[int]) -> None:
        known = [*self.observations, ACTION]
        if name not in known:
            raise DataError(f"{self.source}: angles: {unknown_name('observation', name, known)}")
        shape = self.actions.shape if name == ACTION else np.shape(self.observations[name])
        if len(shape) != 2 or not all(0 <= index < shape[1] for index in indices):
            raise DataError(f"{self.source}: angles of {name!r} are {list(indices)}, but it has shape {shape}.")

    @property
    def steps(self) -> int:
        """Number of control steps, over all episodes."""
        return len(self.actions)

    @property
    def n_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episode_ends)

    @property
    def starts(self) -> np.ndarray:
        """The first row of each episode, (episodes,)."""
        return np.concatenate([[0], self.episode_ends[:-1]])

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, (episodes,)."""
        return np.diff(self.episode_ends, prepend=0)

    def episode(self, index: int) -> slice:
        """Return the rows of an episode."""
        return slice(int(self.starts[index]), int(self.episode_ends[index]))

    def __iter__(self) -> Iterator[slice]:
        """Yield the rows of each episode."""
        return (self.episode(index) for index in range(self.n_episodes))

    def take(self, episodes: Sequence[int] | np.ndarray) -> Self:
        """Return some of the episodes, in the order asked; arrays are copied."""
        chosen = np.asarray(episodes, dtype=np.int64)
        if not len(chosen):
            raise DataError(f"{self.source}: no episode is asked for; there are {self.n_episodes}.")
        rows = np.concatenate([np.arange(*self.episode(index).indices(self.steps)) for index in chosen])
        return replace(
            self,
            observations={name: np.asarray(values)[rows] for name, values in self.observations.items()},
            actions=np.asarray(self.actions)[rows],
            episode_ends=np.cumsum(self.lengths[chosen]),
            ways=None if self.ways is None else np.asarray(self.ways)[chosen],
        )

    def check_finite(self) -> None:
        """Raise `DataError` that names the array, the episode and the step where a number is NaN or infinite."""
        for name, values in {**self.observations, ACTION: self.actions}.items():
            rows = _not_finite(values)
            if len(rows):
                row = int(rows[0])
                episode = int(np.searchsorted(self.episode_ends, row, side="right"))
                raise DataError(
                    f"{self.source}: {name} holds NaN or infinite values in {len(rows)} step(s), the first in "
                    f"episode {episode}, step {row - int(self.starts[episode])}. Drop these episodes first."
                )


def _not_finite(values: Any) -> np.ndarray:
    """Return the rows with a number that is not finite; a block at a time, as not all may fit in memory."""
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(values), _BLOCK):
        block = np.asarray(values[start : start + _BLOCK])
        if block.dtype.kind != "f":
            break
        found.append(start + np.flatnonzero(~np.isfinite(block.reshape(len(block), -1)).all(axis=1)))
    return np.concatenate(found)
