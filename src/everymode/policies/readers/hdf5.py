"""What the formats in HDF5 share: a file that opens, its episodes in order, and their arrays laid end to end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError, FileError, require, unknown_name
from everymode.policies.readers.stored import Stored, damaged

__all__ = ["Cut", "episodes", "first_group", "joined", "leaves", "open_file"]


def open_file(path: Path) -> Any:
    """Return the file, open for as long as anything of it is in use.

    Raises:
        FileError: it is damaged.
    """
    h5py = require("h5py", "policies", "demonstrations in HDF5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise damaged(str(path), error) from error


def first_group(path: Path) -> str:
    """Return the name of the first group or dataset of a file, '' if there is none or it does not open."""
    try:
        with open_file(path) as file:
            return next(iter(file), "")
    except FileError:
        return ""


def episodes(path: Path, group: Any, prefix: str) -> list[Any]:
    """Return the groups `prefix`0, `prefix`1, ... in the order of their numbers.

    Raises:
        DataError: there is none.
    """
    names = [name for name in group if re.fullmatch(rf"{prefix}\d+", name)]
    if not names:
        raise DataError(f"{path.name} has no {prefix}0, only {', '.join(group) or 'nothing at all'}.")
    return [group[name] for name in sorted(names, key=lambda name: int(name.removeprefix(prefix)))]


def leaves(group: Any, inside: str = "") -> list[str]:
    """Return the paths of all datasets below a group, 'a/b' for b in a."""
    found = []
    for name, value in group.items():
        found += leaves(value, f"{inside}{name}/") if hasattr(value, "items") else [f"{inside}{name}"]
    return found


@dataclass(frozen=True)
class Cut:
    """The first rows of a dataset."""

    dataset: Any
    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, ...)."""
        return (self.rows, *self.dataset.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """That of the dataset."""
        return self.dataset.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.dataset[rows]


def joined(path: Path, groups: Sequence[Any], name: str, lengths: Sequence[int] | None = None) -> Stored:
    """Return the dataset `name` of every episode, end to end.

    Args:
        path: of the file.
        groups: one an episode.
        name: below each of them.
        lengths: rows of each that are taken; None: all.

    Raises:
        DataError: an episode lacks it, has fewer rows, or rows of another shape.
    """
    parts = []
    for index, group in enumerate(groups):
        if name not in group:
            raise DataError(f"{path.name}: {group.name}: {unknown_name('array', name, leaves(group))}")
        part = group[name]
        if part.shape[1:] != groups[0][name].shape[1:]:
            raise DataError(
                f"{path.name}: {part.name} has rows of shape {part.shape[1:]}, {groups[0][name].name} of "
                f"{groups[0][name].shape[1:]}: they must be alike."
            )
        if lengths is not None and len(part) < lengths[index]:
            raise DataError(f"{path.name}: {part.name} has {len(part)} rows for {lengths[index]} actions.")
        parts.append(part if lengths is None else Cut(part, lengths[index]))
    return Stored(parts, f"{path}: {name}")
