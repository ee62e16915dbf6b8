"""NumPy's `.npz`: `state`, `action`, `episode_ends` and others as members; pictures may be in a file of their own.

Members: `action` (steps, d); `episode_ends` (episodes,); every other one with a row a step is an observation, `img` by
the name `image`. Optional: `rate` in Hz, `ways` (episodes,) and `way_names`. Members that are not compressed
(`np.savez`) are read in parts, from the file as it lies on the disk; compressed ones only as a whole.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError, FileError
from everymode.policies.demonstrations import ACTION
from everymode.policies.readers.contents import Contents, needed, push_t
from everymode.policies.readers.stored import Stored, as_pixels, damaged

__all__ = ["LOOKS_FOR", "read", "recognises"]

LOOKS_FOR = "a .npz file with the members action and episode_ends (NumPy)"
_ENDS, _TOLD = "episode_ends", ("rate", "ways", "way_names")
_LOCAL_HEADER = 30  # bytes of a member's header in the zip, before its name


def recognises(path: Path) -> bool:
    """Return whether a path is of this format."""
    return path.suffix == ".npz" and path.is_file()


def read(path: Path, *more: Path) -> Contents:
    """Return what is in a file, or in several of the same steps.

    Raises:
        FileError: a file is damaged.
        DataError: actions or the ends of episodes are missing.
    """
    members: dict[str, Any] = {}
    for file in (path, *more):
        members |= _members(file)
    source = path.name
    if not {ACTION, "actions", _ENDS} & set(members):
        raise DataError(
            f"{source} has neither {ACTION!r} nor {_ENDS!r}, only {', '.join(members) or 'nothing at all'}. If another "
            "file of the same steps has them, give both: the one with the actions first."
        )
    action, ends = needed(source, members, ACTION, "actions"), needed(source, members, _ENDS)
    actions, episode_ends = members.pop(action), np.asarray(members.pop(ends))
    told = {name: np.asarray(members.pop(name)) for name in _TOLD if name in members}
    observations = {
        {"img": "image"}.get(name, name): as_pixels(values)
        for name, values in members.items()
        if len(values.shape) and len(values) == len(actions)
    }
    if not observations:
        shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in members.items()) or "nothing else"
        raise DataError(f"{source}: no observation has the {len(actions)} steps of the actions; it holds {shapes}.")
    known = push_t(observations, actions)
    if "rate" in told:
        known["rate"] = float(told["rate"])
    return Contents(
        observations,
        actions,
        episode_ends,
        source,
        ways=told.get("ways"),
        way_names=tuple(map(str, told.get("way_names", ()))),
        **known,
    )


def _members(path: Path) -> dict[str, Stored | np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            return {
                entry.filename.removesuffix(".npy"): _member(path, file, entry)
                for entry in file.infolist()
                if entry.filename.endswith(".npy")
            }
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise error if isinstance(error, DataError | FileError) else damaged(str(path), error) from error


def _member(path: Path, file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Stored | np.ndarray:
    name = entry.filename.removesuffix(".npy")
    with file.open(entry) as opened:
        version = np.lib.format.read_magic(opened)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(opened)
        start = opened.tell()
    if dtype.hasobject:
        raise DataError(f"{path}: {name} holds Python objects, which are not unpickled. Save numbers or text instead.")
    part = _Compressed(path, entry.filename, shape, dtype)
    if not shape:
        return part[...]
    if entry.compress_type != zipfile.ZIP_STORED or fortran or not int(np.prod(shape)):
        return Stored([part], f"{path}: {name}", sliceable=False)
    with open(path, "rb") as raw:  # the lengths in a member's own header may differ from those in the directory
        raw.seek(entry.header_offset)
        local = raw.read(_LOCAL_HEADER)
    begin = entry.header_offset + _LOCAL_HEADER + int.from_bytes(local[26:28], "little")
    begin += int.from_bytes(local[28:30], "little")
    return Stored([np.memmap(path, dtype, "r", begin + start, shape)], f"{path}: {name}")


@dataclass(frozen=True)
class _Compressed:
    """A member that is read as a whole, when it is asked for."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        with zipfile.ZipFile(self.path) as file, file.open(self.member) as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)[rows]
