"""Figures of a record, one a file. A new module in this folder is a new figure; nothing else has to be told.

A record is what was found, as arrays: a `Tape` (what models answered), a `Comparison` (families on tasks) or what a
lesson measured. Each figure module has three names: `SUMMARY` (one line), `NEEDS` (the fields of the record that it
cannot do without) and `figure(record)`. Modules whose name starts with an underscore, and `style`, are no figures.
No figure touches pyplot or matplotlib's global settings, so they can be drawn inside any program.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sized
from pathlib import Path
from types import ModuleType
from typing import Protocol

from matplotlib.figure import Figure

from everymode.errors import DataError, unknown_name
from everymode.plots.style import house

__all__ = ["DOTS_PER_INCH", "Record", "draw", "kinds", "kinds_for", "save", "save_all", "summary"]

DOTS_PER_INCH = 150


class Record(Protocol):
    """Anything with a title; figures ask it for the fields that they need."""

    @property
    def title(self) -> str:
        """One line."""
        ...


def kinds() -> list[str]:
    """The names of all figures, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name != "style" and not name.startswith("_"))


def summary(kind: str) -> str:
    """What a figure shows, in one line."""
    return _module(kind).SUMMARY


def draw(kind: str, record: Record) -> Figure:
    """Draws one figure.

    Raises:
        ValueError: there is no such figure, or the record lacks what it needs; both are named.
    """
    module = _module(kind)
    missing = _missing(module, record)
    if missing:
        raise DataError(
            f"the figure {kind!r} needs {' and '.join(module.NEEDS)}; the {type(record).__name__.lower()} "
            f"{record.title!r} has no {' and no '.join(missing)}."
        )
    with house():
        return module.figure(record)


def kinds_for(record: Record) -> list[str]:
    """The names of the figures that a record has everything for."""
    return [kind for kind in kinds() if not _missing(_module(kind), record)]


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Writes `name`.png and `name`.svg into the folder (made if need be): the same figure, the same bytes."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{name}.png", target / f"{name}.svg"]
    with house():
        figure.savefig(paths[0], dpi=DOTS_PER_INCH, metadata={"Software": None})
        figure.savefig(paths[1], dpi=DOTS_PER_INCH, metadata={"Date": None})
    return paths


def save_all(record: Record, folder: str | os.PathLike[str]) -> list[tuple[Figure, str]]:
    """Draws and writes every figure that a record has everything for; returns each with what it shows, in one line."""
    shown = []
    for kind in kinds_for(record):
        figure = draw(kind, record)
        save(figure, folder, kind)
        shown.append((figure, summary(kind)))
    return shown


def _missing(module: ModuleType, record: Record) -> list[str]:
    return [name for name in module.NEEDS if not _filled(getattr(record, name, None))]


def _module(kind: str) -> ModuleType:
    known = kinds()
    if kind not in known:
        raise ValueError(unknown_name("figure", kind, known))
    return importlib.import_module(f"{__name__}.{kind}")


def _filled(value: object) -> bool:
    return value is not None and not (isinstance(value, Sized) and len(value) == 0)
