"""Windows over episodes: what was seen up to a step and what was done from it on, by index arithmetic.

A window of h observations ends with the present step, and one of H actions begins with it. At the start of an episode
its first observation stands for those before it, at its end its last action for those after it, so that every step of
every episode is a row, however short the episode is. Observations are never copied: a row is looked up when a batch
asks for it, from memory or from a mapped file, and pictures stay bytes until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from everymode.errors import DataError
from everymode.policies.demonstrations import ACTION, Demonstrations
from everymode.spaces import DictSpace, LabelSpace, PixelSpace, SequenceSpace, Space

__all__ = [
    "Windows",
    "action_windows",
    "observation_windows",
    "past_rows",
    "spaces_of",
    "steps_of",
    "take_windows",
    "upcoming_rows",
]

_MOST_ON_DEVICE = 8 * 2**30  # bytes of one observation that go to an accelerator


def past_rows(episode_ends: np.ndarray, horizon: int) -> np.ndarray:
    """Return the rows of the last `horizon` observations at each step, oldest first, (steps, horizon).

    Args:
        episode_ends: (episodes,), rising.
        horizon: of a window.
    """
    starts = np.repeat(np.concatenate([[0], episode_ends[:-1]]), np.diff(episode_ends, prepend=0))
    rows = np.arange(len(starts))[:, None] + np.arange(1 - horizon, 1)
    return np.maximum(rows, starts[:, None])


def upcoming_rows(episode_ends: np.ndarray, horizon: int) -> np.ndarray:
    """Return the rows of the next `horizon` actions at each step, the present one's first, (steps, horizon).

    Args:
        episode_ends: (episodes,), rising.
        horizon: of a window.
    """
    ends = np.repeat(episode_ends, np.diff(episode_ends, prepend=0))
    rows = np.arange(len(ends))[:, None] + np.arange(horizon)
    return np.minimum(rows, ends[:, None] - 1)


class Windows:
    """Windows of an observation, in the place of a tensor (rows, horizon, *shape) that is never made.

    Args:
        steps: what is looked up, step first: a tensor, or pictures as an array that may be a mapped file.
        rows: of each window, (rows, horizon), whole numbers.
        device: where batches go.
    """

    def __init__(self, steps: Any, rows: Tensor, device: torch.device | str = "cpu") -> None:
        self.steps, self.rows, self.device = steps, rows, torch.device(device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor whose place this takes."""
        event = self.steps.shape[1:]
        if not isinstance(self.steps, Tensor):  # a picture: (height, width, channels) becomes (channels, height, width)
            event = (event[-1], *event[:-1])
        return (*self.rows.shape, *event)

    @property
    def ndim(self) -> int:
        """Number of axes of that tensor."""
        return len(self.shape)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the windows at `index` (batch,), as a tensor (batch, horizon, *shape); `dim` is 0."""
        rows = self.rows.index_select(0, index.to(self.rows.device))
        if isinstance(self.steps, Tensor):
            return self.steps.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        needed, where = np.unique(rows.numpy(), return_inverse=True)  # a mapped file is read once a step, in order
        pictures = torch.from_numpy(np.ascontiguousarray(self.steps[needed]))
        pictures = pictures.to(self.device).movedim(-1, 1)
        places = torch.from_numpy(where.reshape(rows.shape)).to(self.device)
        return pictures.index_select(0, places.flatten()).unflatten(0, rows.shape)

    def __getitem__(self, index: slice) -> Tensor:
        """Return the windows of a slice."""
        return self.index_select(0, torch.arange(*index.indices(len(self))))

    def take(self, index: Tensor) -> Self:
        """Return these windows alone; nothing is looked up."""
        return type(self)(self.steps, self.rows.index_select(0, index), self.device)

    def to(self, device: torch.device | str) -> Self:
        """Return the windows with their batches on `device`; pictures move there too, unless they are a mapped file
        or too many.
        """
        device = torch.device(device)
        if isinstance(self.steps, Tensor):
            return type(self)(self.steps.to(device), self.rows.to(device), device)
        mapped = not isinstance(self.steps, np.ndarray) or isinstance(self.steps, np.memmap)
        if device.type == "cpu" or mapped or self.steps.nbytes > _MOST_ON_DEVICE:
            return type(self)(self.steps, self.rows, device)
        pictures = torch.from_numpy(np.ascontiguousarray(np.moveaxis(self.steps, -1, 1))).to(device)
        return type(self)(pictures, self.rows.to(device), device)


def spaces_of(
    demonstrations: Demonstrations, observation_horizon: int, prediction_horizon: int
) -> tuple[DictSpace, SequenceSpace]:
    """Return the spaces of windows of observations and of actions, standardised as the demonstrations ask for.

    Raises:
        DataError: an observation is neither numbers (steps, ...), pictures of bytes, nor labels (steps,).
    """
    parts: dict[str, Space] = {}
    for name, values in demonstrations.observations.items():
        parts[name] = _space_of(demonstrations, name, values, observation_horizon)
    action = SequenceSpace.over(
        np.asarray(demonstrations.actions),
        prediction_horizon,
        names=tuple(demonstrations.names.get(ACTION, ())),
        angles=tuple(demonstrations.angles.get(ACTION, ())),
    )
    return DictSpace(parts), action


def _space_of(demonstrations: Demonstrations, name: str, values: Any, horizon: int) -> Space:
    shape, dtype = np.shape(values), getattr(values, "dtype", np.asarray(values).dtype)
    if len(shape) == 1 and dtype.kind in "iuUSOT":
        return LabelSpace.fit(values)
    if len(shape) == 4 and dtype == np.uint8:
        return PixelSpace(horizon, (shape[3], *shape[1:3]))
    if len(shape) > 3 or dtype.kind not in "iufb":
        raise DataError(
            f"{demonstrations.source}: {name} has shape {shape} and dtype {dtype}: give numbers (steps, ...), pictures "
            "(steps, height, width, channels) in bytes (uint8), or labels (steps,), whole numbers or text."
        )
    given = {"names": demonstrations.names.get(name, ()), "angles": demonstrations.angles.get(name, ())}
    return SequenceSpace.over(np.asarray(values).reshape(len(values), -1), horizon, **given)


def observation_windows(demonstrations: Demonstrations, space: DictSpace) -> dict[str, Any]:
    """Return the standardised observations at each step by name: `Windows`, and of labels those of the present step."""
    found: dict[str, Any] = {}
    for name, part in space.parts.items():
        values = demonstrations.observations[name]
        if isinstance(part, LabelSpace):
            found[name] = part.encode(values)
        elif isinstance(part, PixelSpace):
            found[name] = Windows(values, torch.from_numpy(past_rows(demonstrations.episode_ends, part.horizon)))
        elif isinstance(part, SequenceSpace):
            rows = torch.from_numpy(past_rows(demonstrations.episode_ends, part.shape[0]))
            found[name] = Windows(_standardised(values, part), rows)
    return found


def action_windows(demonstrations: Demonstrations, space: SequenceSpace) -> Tensor:
    """Return the standardised actions from each step on, (steps, horizon, d)."""
    rows = torch.from_numpy(upcoming_rows(demonstrations.episode_ends, space.shape[0]))
    return _standardised(demonstrations.actions, space)[rows]


def _standardised(values: Any, space: SequenceSpace) -> Tensor:
    """Return (steps, d) as the space of windows standardises them, one step at a time."""
    one = replace(space, shape=(1, space.shape[1]))
    return one.encode(np.asarray(values).reshape(len(values), 1, -1))[:, 0]


def steps_of(demonstrations: Demonstrations, episodes: np.ndarray) -> Tensor:
    """Return the rows of some episodes, in the order of time, (rows,)."""
    member = np.repeat(np.isin(np.arange(demonstrations.n_episodes), episodes), demonstrations.lengths)
    return torch.from_numpy(np.flatnonzero(member))


def take_windows(x: Mapping[str, Any], index: Tensor) -> dict[str, Any]:
    """Return the rows of observations at `index`, still not looked up."""
    return {
        name: part.take(index) if isinstance(part, Windows) else part.index_select(0, index) for name, part in x.items()
    }
