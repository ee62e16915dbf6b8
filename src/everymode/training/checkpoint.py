"""Checkpoints: safetensors with a JSON header, written so that a crash, a full disk or a power cut loses nothing.

A file is written under a temporary name in its own folder, flushed to disk, then renamed over the old one: at every
moment the name holds either the old whole file or the new whole file. Reading never unpickles, and a checksum over
the tensors tells a damaged file from a good one.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from everymode import __version__
from everymode.errors import CheckpointError

__all__ = ["read_tensors", "write_atomically", "write_json", "write_tensors"]

_KEY = "everymode"


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path`, whole or not at all; what stood there survives a failure.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        kept = " The file that was there before is untouched." if path.exists() else ""
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}.{kept} Free some space or choose another folder."
        ) from error
    with contextlib.suppress(OSError):  # the rename itself; not every file system lets a folder be flushed
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def write_json(path: str | Path, content: Any) -> Path:
    """Write `content` as indented JSON, atomically. NaN is refused: it is not JSON."""
    return write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            value = zlib.crc32(flat.view(torch.uint8).numpy().data, value)
    return value


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, kind: str) -> Path:
    """Write tensors and a JSON-ready header to `path`, atomically.

    Args:
        path: where to.
        tensors: by name; copied to the CPU.
        header: settings, spaces, counters. The package's version, the kind and a checksum are added.
        kind: what this file is ('model', 'training'), checked when it is read.

    Raises:
        CheckpointError: the file cannot be written.
    """
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    whole = {**header, "kind": kind, "version": __version__, "checksum": _checksum(ready)}
    return write_atomically(path, safetensors.torch.save(ready, {_KEY: json.dumps(whole)}))


def read_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, header) of a file that `write_tensors` wrote.

    Raises:
        CheckpointError: the file is absent, damaged, truncated, foreign, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}.")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise CheckpointError(f"{path} is a safetensors file, but not one that everymode wrote.")
            header = json.loads(metadata[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except CheckpointError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is damaged, truncated or not a checkpoint ({error}). Use another copy of it."
        ) from error
    if header.get("checksum") != _checksum(tensors):
        raise CheckpointError(f"{path} is damaged: its tensors do not match their checksum. Use another copy of it.")
    if header.get("kind") != kind:
        raise CheckpointError(f"{path} holds a {header.get('kind')!r} checkpoint where a {kind!r} is needed.")
    return tensors, header
