"""Checkpoints: safetensors with a JSON header, written so that a crash, a full disk or a power cut loses nothing.

See `everymode.files` for how they are written. Reading never unpickles, and a checksum over the tensors tells a
damaged file from a good one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from everymode.errors import CheckpointError
from everymode.files import write_atomically
from everymode.version import __version__

__all__ = ["read_tensors", "write_tensors"]

_KEY = "everymode"


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
        FileError: the file cannot be written.
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
