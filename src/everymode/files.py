"""Files that are whole or absent: written under a temporary name, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from everymode.errors import FileError

__all__ = ["atomically", "write_atomically", "write_json"]


@contextlib.contextmanager
def atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes the name `path` only once it is whole and on the disk.

    At every moment the name holds either the old whole file or the new whole one: a crash, a full disk or a power cut
    loses nothing.

    Raises:
        FileError: the disk is full, or the folder cannot be written; what stood there is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        kept = " The file that was there before is untouched." if path.exists() else ""
        reason = error.strerror or error
        raise FileError(f"cannot write {path}: {reason}.{kept} Free some space or choose another folder.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    with contextlib.suppress(OSError):  # the rename itself; not every file system lets a folder be flushed
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write `content` to `path`, whole or not at all; see `atomically`."""
    with atomically(path) as file:
        file.write(content)
    return Path(path)


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write `content` as indented JSON, whole or not at all. NaN is refused: it is not JSON."""
    return write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
