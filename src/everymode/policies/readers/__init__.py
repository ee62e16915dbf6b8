"""Demonstrations from files, as they are: one file a format. A new module with these names is a new format.

`LOOKS_FOR` says what tells the format, `recognises(path)` whether a path is of it, and `read(path)` returns its
`Contents`. The modules in `_NO_FORMATS` are what they share.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from everymode.errors import DataError, FileError, SettingError, check_choice, check_number
from everymode.policies.demonstrations import Demonstrations
from everymode.policies.readers import hub
from everymode.policies.readers.contents import Contents, Keys, pick
from everymode.policies.readers.stored import Stored

__all__ = ["IN_MEMORY", "formats", "read_demonstrations"]

IN_MEMORY = 2 * 2**30
"""Bytes: observations that take no more in all are held in memory, unless it is said otherwise."""

_NO_FORMATS = ("contents", "frames", "hdf5", "hub", "stored")
_PARTED = "robomimic"  # the format whose files tell parts of themselves by filter keys


def formats() -> list[str]:
    """Return the names of all formats."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_FORMATS)


def read_demonstrations(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    format: str = "auto",
    *,
    keys: Keys | None = None,
    angles: Mapping[str, Sequence[int]] | None = None,
    rate: float | None = None,
    subset: str | None = None,
    in_memory: bool | None = None,
) -> Demonstrations:
    """Return the demonstrations in a file or a folder.

    Args:
        path: of the file or folder; 'hub:owner/name' for a data set of the Hugging Face Hub; several .npz files of the
            same steps, such as pictures beside states.
        format: one of `formats()`, or 'auto': found from the path and what is there.
        keys: which observations, by their names in the file, as a list or as {name to have: name in the file}; None:
            all of them.
        angles: which values are angles in radians, by the name of the observation; beside those that are known.
        rate: control steps a second, if the file does not tell.
        subset: of a robomimic file, a filter key such as 'train'; None: all of it.
        in_memory: whether observations are read at once (True) or as they are asked for (False); None: at once where
            they take `IN_MEMORY` bytes or less in all. Actions always are. What can only be read whole, compressed
            members of .npz and videos, is refused where it is not to be read at once.

    Raises:
        FileError: nothing is there, it is damaged or cut short, or it is of no format that is known.
        DataError: what is in it cannot be used: a name that is not there, rows that differ, NaN.
        MissingExtraError: the format needs a package that is not installed.
        SettingError: a setting is out of range.
    """
    check_choice("format", format, ["auto", *formats()])
    check_number("rate", rate, 0.0, optional=True, exclusive_low=True)
    contents = _contents(path, format, subset)
    observations = pick(contents, keys)
    sizes = {name: _nbytes(values) for name, values in observations.items()}
    at_once = sum(sizes.values()) <= IN_MEMORY if in_memory is None else in_memory
    found = Demonstrations(
        {name: _held(values, at_once) for name, values in observations.items()},
        _actions(contents),
        contents.ends,
        rate=contents.rate if rate is None else float(rate),
        angles={**{n: i for n, i in contents.angles.items() if n in (*observations, "action")}, **(angles or {})},
        names={n: told for n, told in contents.names.items() if n in (*observations, "action")},
        ways=contents.ways,
        way_names=contents.way_names,
        source=contents.source,
    )
    found.check_finite()
    return found


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _contents(path: Any, format: str, subset: str | None) -> Contents:
    several = not isinstance(path, str | os.PathLike)
    paths = [_located(one) for one in (path if several else [path])]
    if not paths:
        raise FileError("no file is given.")
    name = format if format != "auto" else _recognised(paths[0])
    if len(paths) > 1 and name != "npz":
        raise SettingError(f"{len(paths)} files are given together: only .npz files of the same steps can be.")
    if subset is None:
        return _module(name).read(*paths)
    if name != _PARTED:
        raise SettingError(f"subset={subset!r}: only files of {_PARTED} tell parts of themselves; this is {name}.")
    return _module(name).read(*paths, subset=subset)


def _located(path: str | os.PathLike[str]) -> Path:
    if isinstance(path, str) and path.startswith(hub.PREFIX):
        return hub.fetch(path)
    if not Path(path).exists():
        raise FileError(f"{path}: there is no such file or folder.")
    return Path(path)


def _recognised(path: Path) -> str:
    for name in formats():
        if _module(name).recognises(path):
            return name
    looked = "; ".join(f"{name}: {_module(name).LOOKS_FOR}" for name in formats())
    raise FileError(f"{path} is of no format that is known. Looked for: {looked}.")


def _nbytes(values: Any) -> int:
    return int(np.prod(values.shape)) * values.dtype.itemsize


def _held(values: Any, at_once: bool) -> Any:
    if not isinstance(values, Stored) or (not at_once and values.sliceable):
        return values
    if not at_once:
        raise DataError(
            f"{values.where} can only be read whole, {values.nbytes / 2**30:.2g} GiB of memory: pass in_memory=True, "
            "or leave it out by naming others in keys."
        )
    return np.asarray(values)


def _actions(contents: Contents) -> np.ndarray:
    actions = np.asarray(contents.actions)
    if actions.ndim == 1 and actions.dtype.kind not in "f":
        raise DataError(
            f"{contents.source}: actions are {actions.dtype} labels (steps,); a policy acts by numbers (steps, d)."
        )
    return actions[:, None] if actions.ndim == 1 else actions
