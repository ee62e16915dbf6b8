"""Run folders: a fresh one each time, with `latest` pointing at the newest. A run never overwrites another."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from everymode.errors import CheckpointError, FileError
from everymode.files import atomically, write_json
from everymode.tables import is_categorical
from everymode.version import __version__

__all__ = [
    "RUN_FILE",
    "check_free",
    "count_seen",
    "describe_machine",
    "fresh_folder",
    "new_run",
    "read_run",
    "write_run",
]

RUN_FILE = "run.json"
_DATA_FILE = "data.parquet"


def check_free(folder: Path | None) -> None:
    """Raise `FileError` if `folder` is given and holds something, before any work is done that would go there."""
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder} exists already, and a run never overwrites another: choose another --out.")


def new_run(verb: str, folder: str | Path | None = None) -> Path:
    """Make and return a fresh run folder: `folder` if given, else `runs/<verb>/<date-time>` with a `latest` beside it.

    Raises:
        FileError: `folder` exists and is not empty, or cannot be made.
    """
    if folder is not None:
        path = Path(folder)
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the folder {path}: {error.strerror}.") from error
        return path
    root = Path("runs") / verb
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        path = root / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise FileError(f"cannot make the folder {path}: {error.strerror}. Choose another with --out.") from error
        _point_latest(root, path)
        return path
    raise FileError(f"{root} holds a thousand runs of this second; choose a folder with --out.")


def fresh_folder(path: Path) -> Path:
    """Return `path`, or the first of `path`-2, `path`-3, ... that is not there."""
    taken = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return path if not path.exists() else next(other for other in taken if not other.exists())


def _point_latest(root: Path, path: Path) -> None:
    fresh, latest = root / f".latest.{os.getpid()}", root / "latest"
    try:
        fresh.symlink_to(path.name, target_is_directory=True)
        os.replace(fresh, latest)
    except OSError:  # a file system without links, or a user's own folder of that name: the run stands all the same
        fresh.unlink(missing_ok=True)


def write_run(folder: Path, settings: Mapping[str, Any], data: pd.DataFrame) -> None:
    """Write what is needed to resume a run: its settings and a copy of the columns that it was given.

    Raises:
        FileError: the disk is full or the folder cannot be written.
    """
    with atomically(folder / _DATA_FILE) as file:
        data.to_parquet(file, index=False)
    write_json(folder / RUN_FILE, {**settings, "version": __version__, "machine": describe_machine()})


def read_run(folder: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return (settings, data) of a run folder.

    Raises:
        CheckpointError: the folder is no run, or its files are damaged.
    """
    folder = Path(folder)
    if not (folder / RUN_FILE).is_file():
        raise CheckpointError(f"{folder} is no run folder: it holds no {RUN_FILE}. `everymode fit` makes one.")
    try:
        settings = json.loads((folder / RUN_FILE).read_text())
        data = pd.read_parquet(folder / _DATA_FILE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the run in {folder} is damaged: {error}") from error
    return settings, data


def count_seen(rows: pd.DataFrame, data: pd.DataFrame) -> int:
    """Return how many of `rows` are in the data of a run, alike in all of its columns."""
    seen = set(_cells(data, data.columns))
    return sum(row in seen for row in _cells(rows, data.columns))


def _cells(frame: pd.DataFrame, columns: Iterable[str]) -> Iterator[tuple[float | str, ...]]:
    """Return the rows, numbers as floats and all else as text: files of one table may differ in these kinds."""
    cells = [frame[name].astype(str if is_categorical(frame[name]) else "float64") for name in columns]
    return zip(*cells, strict=True)


def describe_machine() -> dict[str, Any]:
    """Return versions and hardware, JSON-ready, without anything that names the machine."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
