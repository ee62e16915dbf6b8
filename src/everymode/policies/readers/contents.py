"""What a file of demonstrations holds, before anybody chose from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everymode.errors import DataError, nearest, unknown_name
from everymode.policies.demonstrations import ACTION, STATE

__all__ = ["Contents", "Keys", "needed", "pick", "push_t"]

Keys = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Contents:
    """All that a file holds, unread where the format allows.

    Attributes:
        observations: by name; `Stored` or arrays (steps, ...).
        actions: (steps, d).
        ends: (episodes,).
        source: the file, for titles and errors.
        only_asked: observations that are read if they are asked for by name, and else left out.
        rate, angles, names, ways, way_names: as in `Demonstrations`.
    """

    observations: Mapping[str, Any]
    actions: Any
    ends: np.ndarray
    source: str
    only_asked: Sequence[str] = ()
    rate: float | None = None
    angles: Mapping[str, Sequence[int]] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ways: np.ndarray | None = None
    way_names: Sequence[str] = ()


def pick(contents: Contents, keys: Keys | None) -> dict[str, Any]:
    """Return the observations that are asked for, by the names that they shall have.

    Raises:
        DataError: one is not there; the nearest names are told.
    """
    there = contents.observations
    if keys is None:
        return {name: values for name, values in there.items() if name not in contents.only_asked}
    if isinstance(keys, str):
        raise DataError(f"keys={keys!r}: give a list of names, such as [{keys!r}].")
    wanted = dict(keys) if isinstance(keys, Mapping) else {name: name for name in keys}
    for name in wanted.values():
        if name not in there:
            raise DataError(f"{contents.source}: {unknown_name('observation', name, there)}")
    return {shown: there[name] for shown, name in wanted.items()}


def needed(source: str, there: Mapping[str, Any], *names: str) -> str:
    """Return the first of `names` that is there.

    Raises:
        DataError: none is; the nearest names are told.
    """
    for name in names:
        if name in there:
            return name
    close = nearest(names[0], there)
    hint = f" Did you mean {' or '.join(map(repr, close))}? Rename it in the file." if close else ""
    raise DataError(f"{source} has no {names[0]!r}, only {', '.join(there) or 'nothing at all'}.{hint}")


_PUSH_T = {
    "rate": 10.0,
    "angles": {STATE: (4,)},
    "names": {
        STATE: ("agent x", "agent y", "block x", "block y", "block angle"),
        ACTION: ("target x", "target y"),
    },
}


def push_t(observations: Mapping[str, Any], actions: Any) -> dict[str, Any]:
    """Return what is known of Push-T, if these are demonstrations of it, to be told by their shapes; else nothing.

    References:
        Implicit behavioral cloning (Florence et al., 2021), https://arxiv.org/abs/2109.00137, for the task;
        Diffusion policy (Chi et al., 2023), https://arxiv.org/abs/2303.04137, for the data: 10 Hz, the angle fifth
    """
    shapes = {name: tuple(values.shape[1:]) for name, values in observations.items()}
    told = shapes.get(STATE) == (5,) and shapes.get("keypoint") == (9, 2) and tuple(actions.shape[1:]) == (2,)
    return dict(_PUSH_T) if told else {}
