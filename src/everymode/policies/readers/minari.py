"""Minari's HDF5: a folder with `data/main_data.hdf5`, in it `episode_0/observations` and `episode_0/actions`.

An episode of N actions has N + 1 observations; the last, which nobody acted on, is left out. An array of observations
is `state`, or `image` if these are pictures; those of a dict are named by their path, such as `desired_goal/kettle`.

References:
    Minari (Younis et al., 2024), https://minari.farama.org/content/dataset_standards/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError
from everymode.policies.demonstrations import STATE
from everymode.policies.readers.contents import Contents
from everymode.policies.readers.hdf5 import episodes, joined, leaves, open_file
from everymode.policies.readers.stored import as_pixels

__all__ = ["LOOKS_FOR", "read", "recognises"]

LOOKS_FOR = "a folder with data/main_data.hdf5 (Minari)"
_FILE, _ABOUT, _OBSERVATIONS = "main_data.hdf5", "metadata.json", "observations"


def recognises(path: Path) -> bool:
    """Return whether a path is of this format."""
    return path.name == _FILE or (
        path.is_dir() and any((folder / _ABOUT).is_file() for folder in (path, path / "data"))
    )


def read(path: Path) -> Contents:
    """Return what is in a data set.

    Raises:
        FileError: the file is damaged.
        DataError: it is not in HDF5, there are no episodes, or the actions are not one array of numbers.
    """
    folder = path.parent if path.is_file() else path / "data" if (path / "data").is_dir() else path
    about = json.loads((folder / _ABOUT).read_text()) if (folder / _ABOUT).is_file() else {}
    source = about.get("dataset_id") or path.name
    if about.get("data_format", "hdf5") != "hdf5":
        raise DataError(
            f"{source} is kept as {about['data_format']}, and only HDF5 is read. Write it again with "
            "minari.create_dataset_from_buffers(..., data_format='hdf5')."
        )
    file = folder / _FILE
    groups = episodes(file, open_file(file), "episode_")
    if hasattr(groups[0].get("actions"), "items"):
        raise DataError(
            f"{source}: its actions are several arrays, {', '.join(leaves(groups[0]['actions']))}: no policy."
        )
    actions = joined(file, groups, "actions")
    lengths = [part.shape[0] for part in actions.parts]
    if hasattr(groups[0].get(_OBSERVATIONS), "items"):
        names = {name: f"{_OBSERVATIONS}/{name}" for name in sorted(leaves(groups[0][_OBSERVATIONS]))}
    else:
        names = {STATE: _OBSERVATIONS}
    observations: dict[str, Any] = {
        shown: as_pixels(joined(file, groups, name, lengths)) for shown, name in names.items()
    }
    if names == {STATE: _OBSERVATIONS} and observations[STATE].ndim == 4:
        observations = {"image": observations[STATE]}
    return Contents(observations, actions, np.cumsum(lengths), source)
