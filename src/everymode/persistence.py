"""Trained families as files: weights, settings, spaces and standardisation in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everymode.errors import CheckpointError, FileError, SettingError
from everymode.families import Family, get_family
from everymode.networks import NetworkFactory
from everymode.spaces import ArraySpace, space_from_dict
from everymode.training import read_tensors, write_tensors

__all__ = ["MODEL_FILE", "read_model", "write_model"]

MODEL_FILE = "model.safetensors"


def write_model(
    path: str | Path,
    family: Family,
    header: Mapping[str, Any],
    *,
    width: int | None,
    depth: int | None,
    network: str | NetworkFactory | None,
    kind: str = "model",
) -> Path:
    """Write a built family to `path`, whole or not at all.

    Args:
        path: ends in .safetensors.
        family: built.
        header: what else belongs to the model, JSON-ready.
        size: width and depth, as they were given to `Family.build`.

    Raises:
        FileError: it cannot be written; an older file of that name survives.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise FileError(f"a model is written as .safetensors; {path.name!r} has another ending.")
    if family.y_space is None or family.x_space is None:
        raise FileError("a family without parameters has nothing to write; build and train it first.")
    described = {
        "family": {"name": family.name, "settings": family.settings(), "size": {"width": width, "depth": depth}},
        "network": network if isinstance(network, str) else None,
        "own_network": callable(network),
        "y_space": family.y_space.to_dict(),
        "x_space": family.x_space.to_dict(),
    }
    return write_tensors(path, family.state_dict(), {**header, **described}, kind=kind)


def read_model(
    path: str | Path, *, network: NetworkFactory | None = None, kind: str = "model"
) -> tuple[Family, dict[str, Any]]:
    """Return (built family, header) of a file that `write_model` wrote, or of the run folder that holds it.

    The header's `network` is the one that the family was built with.

    Args:
        path: the .safetensors file or the folder.
        network: the factory of a model that was trained with a network of its user's own.
        kind: what the file is; a folder holds it as KIND.safetensors.

    Raises:
        CheckpointError: the file is absent, damaged, truncated, foreign, or of a version that does not fit.
    """
    path = Path(path)
    path = path / f"{kind}.safetensors" if path.is_dir() else path
    tensors, header = read_tensors(path, kind=kind)
    if header.get("own_network") and network is None:
        raise CheckpointError(f"{path} was trained with a network of its user's own: give its factory with network=.")
    try:
        described = header["family"]
        x_space, y_space = space_from_dict(header["x_space"]), space_from_dict(header["y_space"])
        if not isinstance(y_space, ArraySpace):
            raise SettingError(f"a target cannot be a {y_space.kind}.")
        family = get_family(described["name"], described["settings"])
        header["network"] = header.get("network") if network is None else network
        family = family.build(y_space, x_space, network=header["network"], **described["size"])
        family.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} was written by everymode {header.get('version')} and does not fit this version: {error}"
        ) from error
    return family.eval(), header
