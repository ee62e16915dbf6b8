"""Diffusion Policy's zarr (format 2): a folder, or a zip of one, with `data/NAME` and `meta/episode_ends`.

Every array in `data` with a row a step is an observation, `img` by the name `image`; `data/action` (steps, d) are the
actions. A chunk that is not there reads as zeros in zarr, whether it was left out because it is empty or got lost;
it is taken for lost in arrays of more than one number a step, where whole chunks of zeros are unheard of.

References:
    Diffusion policy: visuomotor policy learning via action diffusion (Chi et al., 2023),
        https://arxiv.org/abs/2303.04137; the layout is that of its `ReplayBuffer`
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import FileError, require
from everymode.policies.demonstrations import ACTION
from everymode.policies.readers.contents import Contents, needed, push_t
from everymode.policies.readers.stored import Stored, as_pixels, damaged

__all__ = ["LOOKS_FOR", "read", "recognises"]

LOOKS_FOR = "a folder or .zip with data/action and meta/episode_ends (the zarr of Diffusion Policy)"
_PARTS, _ENDS = ("data", "meta"), "meta/episode_ends/.zarray"


def recognises(path: Path) -> bool:
    """Return whether a path is of this format."""
    if path.is_dir():
        return (path / _ENDS).is_file() or (path / "meta" / ".zgroup").is_file() or path.suffix == ".zarr"
    return path.suffix == ".zip" and path.is_file()


def read(path: Path) -> Contents:
    """Return what is in a folder or a zip.

    Raises:
        FileError: it is damaged, or chunks are missing.
        DataError: actions or the ends of episodes are missing.
    """
    root = _root(path)
    data, meta = (dict(sorted(root[part].arrays())) if part in root else {} for part in _PARTS)
    source = path.name
    action, name = needed(source, data, ACTION, "actions"), needed(source, meta, "episode_ends")
    ends = _stored(path, f"meta/{name}", meta[name])
    stored = {name: _stored(path, f"data/{name}", array) for name, array in data.items()}
    actions = stored.pop(action)
    observations = {{"img": "image"}.get(name, name): as_pixels(values) for name, values in stored.items()}
    return Contents(observations, actions, np.asarray(ends), source, **push_t(observations, actions))


def _root(path: Path) -> Any:
    zarr = require("zarr", "policies", "demonstrations in zarr")
    try:
        if path.is_dir():
            return zarr.open_group(zarr.storage.LocalStore(path, read_only=True), mode="r", zarr_format=2)
        with zipfile.ZipFile(path) as file:
            inside = [name for name in file.namelist() if name.endswith(_ENDS)]
        store = zarr.storage.ZipStore(path, read_only=True, mode="r")
        prefix = min(inside, key=len).removesuffix(_ENDS).rstrip("/") if inside else ""
        return zarr.open_group(store, path=prefix, mode="r", zarr_format=2)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(str(path), error) from error


def _stored(path: Path, name: str, array: Any) -> Stored:
    lost = array.nchunks - array.nchunks_initialized
    one = int(np.prod(array.shape[1:])) == 1 and not name.startswith("meta/")
    if lost and not one:
        raise FileError(
            f"{path}: {lost} of {array.nchunks} chunks of {name} are missing, and would be read as zeros. Copy or "
            "download it again; where they are meant, write them with write_empty_chunks."
        )
    return Stored([array], f"{path}: {name}")
