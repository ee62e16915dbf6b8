"""robomimic's HDF5: `data/demo_0/obs/KEY` and `data/demo_0/actions`, and filter keys in `mask`.

The rate is the `control_freq` in the attribute `env_args`, where robosuite writes it. A filter key, such as `train` in
`mask/train`, names the demonstrations of a part.

References:
    What matters in learning from offline human demonstrations for robot manipulation (Mandlekar et al., 2021),
        https://arxiv.org/abs/2108.03298; https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError, unknown_name
from everymode.policies.readers.contents import Contents
from everymode.policies.readers.hdf5 import episodes, first_group, joined, leaves, open_file
from everymode.policies.readers.stored import as_pixels

__all__ = ["LOOKS_FOR", "read", "recognises"]

LOOKS_FOR = "a .hdf5 file with data/demo_0/obs (robomimic)"
SUFFIXES = (".hdf5", ".h5")


def recognises(path: Path) -> bool:
    """Return whether a path is of this format; a damaged file is."""
    return path.suffix in SUFFIXES and path.is_file() and first_group(path) in ("", "data", "mask")


def read(path: Path, *, subset: str | None = None) -> Contents:
    """Return what is in a file.

    Args:
        path: of the file.
        subset: a filter key; None: all demonstrations.

    Raises:
        FileError: the file is damaged.
        DataError: there are no demonstrations or no observations, or no such filter key.
    """
    file = open_file(path)
    if "data" not in file:
        raise DataError(f"{path.name} has no group 'data', only {', '.join(file) or 'nothing at all'}.")
    groups = episodes(path, file["data"], "demo_")
    if subset is not None:
        chosen = _chosen(path, file, subset)
        groups = [group for group in groups if group.name.rpartition("/")[2] in chosen]
        if not groups:
            raise DataError(f"{path.name}: mask/{subset} names none of the demonstrations.")
    if "obs" not in groups[0]:
        raise DataError(
            f"{path.name}: {groups[0].name} has no 'obs', only {', '.join(groups[0])}: states of the simulator alone. "
            "Render observations first, with robomimic's dataset_states_to_obs.py."
        )
    actions = joined(path, groups, "actions")
    lengths = [part.shape[0] for part in actions.parts]
    observations = {
        name: as_pixels(joined(path, groups, f"obs/{name}", lengths)) for name in sorted(leaves(groups[0]["obs"]))
    }
    return Contents(observations, actions, np.cumsum(lengths), path.name, rate=_rate(file["data"].attrs))


def _chosen(path: Path, file: Any, subset: str) -> set[str]:
    masks = file.get("mask", {})
    if subset not in masks:
        raise DataError(f"{path.name}: {unknown_name('filter key', subset, masks)}")
    return {name.decode() if isinstance(name, bytes) else str(name) for name in masks[subset][:]}


def _rate(attributes: Any) -> float | None:
    try:
        return float(json.loads(attributes["env_args"])["env_kwargs"]["control_freq"])
    except (KeyError, TypeError, ValueError):  # other simulators write other arguments
        return None
