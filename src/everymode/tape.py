"""Tapes: what was asked of the models and what they answered, recorded once and read by every figure.

A tape holds arrays and short texts only, in the units of `y`, so a figure can be drawn again years later on a
machine that has neither the model nor torch.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError
from everymode.files import atomically

__all__ = ["SCORES", "Motion", "Tape"]

FORMAT = "everymode.tape/1"

SCORES = (
    "family",
    "valid_share",
    "valid_share_low",
    "valid_share_high",
    "modes_found",
    "modes_total",
    "probability_error",
    "energy_score",
    "energy_score_floor",
    "seconds",
    "nfe",
    "parameters",
)
"""The keys of one row of `Tape.scores`; a value that is not known is None, or its key is left out."""


@dataclass(frozen=True, eq=False)
class Motion:
    """One model's particles on their way from noise (t = 0) to data (t = 1), for one x, in the units of y.

    `field` is the velocity the model has learned, at `field_times` on the points of `grid`: for a y of two
    numbers a square lattice, flattened; for a y of one number a line.
    """

    times: np.ndarray  # (T,), rising, in [0, 1]
    states: np.ndarray  # (T, n, dy)
    field_times: np.ndarray  # (F,), rising, in [0, 1]
    grid: np.ndarray  # (G, dy)
    field: np.ndarray  # (F, G, dy), units of y per unit of t
    x: np.ndarray  # (dx,)

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name, axes in _MOTION_AXES.items():
            object.__setattr__(self, name, _array(f"motion's {name}", getattr(self, name), axes, sizes))
        if len(self.times) < 2 or (np.diff(self.times) <= 0).any():
            raise DataError(f"motion's times must rise and be two or more; got {self.times.tolist()[:5]}.")


@dataclass(frozen=True, eq=False)
class Tape:
    """Observed data, the x that were asked about, and what each family answered.

    Arrays are checked when the tape is made: every shape against the others, and every number finite.

    Raises:
        DataError: a shape that disagrees with the rest, or a number that is not finite; it names the field.
    """

    title: str
    x_names: Sequence[str]  # (dx,); a unit belongs in the name: "height (m)"
    y_names: Sequence[str]  # (dy,)
    observed_x: np.ndarray  # (observed, dx)
    observed_y: np.ndarray  # (observed, dy)
    x: np.ndarray  # (rows, dx): the probes
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)  # family -> (rows, n, dy); n may differ
    truth: np.ndarray | None = None  # (rows, n, dy): draws of the true p(y | x)
    valid: Mapping[str, np.ndarray] | None = None  # family -> bool (rows, n): is each draw a valid answer?
    modes: Sequence[tuple[np.ndarray, np.ndarray]] | None = None  # a row: locations (k, dy), probabilities (k,)
    motion: Mapping[str, Motion] = field(default_factory=dict)  # family -> its particles for one x
    scores: Sequence[Mapping[str, Any]] | None = None  # one row a family, keys from SCORES

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("x_names", tuple(self.x_names))
        keep("y_names", tuple(self.y_names))
        sizes = {"dx": len(self.x_names), "dy": len(self.y_names)}
        keep("observed_x", _array("observed_x", self.observed_x, ("observed", "dx"), sizes))
        keep("observed_y", _array("observed_y", self.observed_y, ("observed", "dy"), sizes))
        keep("x", _array("x", self.x, ("rows", "dx"), sizes))
        drawn: dict[str, np.ndarray] = {}
        for family, values in self.draws.items():
            drawn[family] = _array(f"draws[{family!r}]", values, ("rows", "", "dy"), sizes)
        keep("draws", drawn)
        if self.truth is not None:
            keep("truth", _array("truth", self.truth, ("rows", "", "dy"), sizes))
        if self.valid is not None:
            keep("valid", {family: _validity(family, v, drawn) for family, v in self.valid.items()})
        if self.modes is not None:
            keep("modes", [_modes(row, pair, sizes) for row, pair in enumerate(self.modes)])
            if len(self.modes) != len(self.x):
                raise DataError(f"modes has {len(self.modes)} rows and x has {len(self.x)}; give one pair a row of x.")
        for family, motion in self.motion.items():
            if (len(motion.x), motion.states.shape[2]) != (sizes["dx"], sizes["dy"]):
                raise DataError(
                    f"motion[{family!r}] has x {motion.x.shape} and states {motion.states.shape}; "
                    f"this tape has {sizes['dx']} columns of x and {sizes['dy']} of y."
                )
        keep("motion", dict(self.motion))
        if self.scores is not None:
            keep("scores", [_score(row) for row in self.scores])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the tape to one .npz file, atomically: the file is whole or it is not there."""
        arrays = {"observed_x": self.observed_x, "observed_y": self.observed_y, "x": self.x}
        arrays |= {f"draws/{family}": values for family, values in self.draws.items()}
        arrays |= {f"valid/{family}": values for family, values in (self.valid or {}).items()}
        if self.truth is not None:
            arrays["truth"] = self.truth
        for row, (locations, probabilities) in enumerate(self.modes or ()):
            arrays |= {f"modes/{row}/locations": locations, f"modes/{row}/probabilities": probabilities}
        for family, motion in self.motion.items():
            arrays |= {f"motion/{family}/{name}": getattr(motion, name) for name in _MOTION_AXES}
        header = {
            "format": FORMAT,
            "title": self.title,
            "x_names": self.x_names,
            "y_names": self.y_names,
            "draws": list(self.draws),
            "truth": self.truth is not None,
            "valid": None if self.valid is None else list(self.valid),
            "modes": None if self.modes is None else len(self.modes),
            "motion": list(self.motion),
            "scores": self.scores,
        }
        with atomically(path) as file:
            np.savez_compressed(file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tape:
        """Reads what `save` wrote. Nothing is unpickled.

        Raises:
            DataError: the file is damaged, or is not a tape.
            FileNotFoundError: there is no such file.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                if header["format"] != FORMAT:
                    raise DataError(f"its format is {header['format']!r}, not {FORMAT!r}")
                return cls(
                    title=header["title"],
                    x_names=header["x_names"],
                    y_names=header["y_names"],
                    observed_x=stored["observed_x"],
                    observed_y=stored["observed_y"],
                    x=stored["x"],
                    draws={family: stored[f"draws/{family}"] for family in header["draws"]},
                    truth=stored["truth"] if header["truth"] else None,
                    valid=None
                    if header["valid"] is None
                    else {family: stored[f"valid/{family}"] for family in header["valid"]},
                    modes=None
                    if header["modes"] is None
                    else [
                        (stored[f"modes/{row}/locations"], stored[f"modes/{row}/probabilities"])
                        for row in range(header["modes"])
                    ],
                    motion={
                        family: Motion(**{name: stored[f"motion/{family}/{name}"] for name in _MOTION_AXES})
                        for family in header["motion"]
                    },
                    scores=header["scores"],
                )
        except FileNotFoundError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, *_BROKEN) as problem:
            reason = str(problem).rstrip(".")
            raise DataError(f"{os.fspath(path)} is damaged, or is no everymode tape: {reason}.") from problem


_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError)  # what a damaged archive raises on reading

_MOTION_AXES = {
    "times": ("T",),
    "states": ("T", "particles", "dy"),
    "field_times": ("F",),
    "grid": ("G", "dy"),
    "field": ("F", "G", "dy"),
    "x": ("dx",),
}


def _array(name: str, values: object, axes: tuple[str, ...], sizes: dict[str, int]) -> np.ndarray:
    """The values as finite floats, of the shape that `axes` and the sizes known so far ask for."""
    array = np.asarray(values)
    array = array if np.issubdtype(array.dtype, np.floating) else array.astype(float)
    wanted = tuple(sizes.get(axis, axis or "n") for axis in axes)
    agrees = len(wanted) == array.ndim and all(
        isinstance(want, str) or want == got for want, got in zip(wanted, array.shape, strict=True)
    )
    if not agrees:
        raise DataError(f"{name} has shape {array.shape}; expected ({', '.join(map(str, wanted))}).")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name} holds a number that is not finite, the first at {where}; leave such draws out.")
    sizes |= {axis: size for axis, size in zip(axes, array.shape, strict=True) if axis}
    return array


def _validity(family: str, values: object, draws: dict[str, np.ndarray]) -> np.ndarray:
    array = np.asarray(values)
    if family not in draws:
        raise DataError(f"valid has the family {family!r}, of which the tape has no draws.")
    if array.dtype != np.bool_ or array.shape != draws[family].shape[:2]:
        raise DataError(
            f"valid[{family!r}] is {array.dtype} of shape {array.shape}; "
            f"expected bool of shape {draws[family].shape[:2]}, one a draw."
        )
    return array


def _modes(row: int, pair: tuple[object, object], sizes: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    own = {"dy": sizes["dy"]}
    locations = _array(f"modes[{row}]'s locations", pair[0], ("modes", "dy"), own)
    return locations, _array(f"modes[{row}]'s probabilities", pair[1], ("modes",), own)


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of scores with plain Python values, so that it can be written as JSON."""
    unknown = [key for key in row if key not in SCORES]
    if unknown or "family" not in row:
        raise DataError(f"scores has a row with the keys {list(row)}; allowed are {', '.join(SCORES)}.")
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in plain.items()}
