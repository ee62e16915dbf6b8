"""Figures of a tape, one a file. A new module in this folder is a new figure; nothing else has to be told.

Each figure module has three names: `SUMMARY` (one line), `NEEDS` (the fields of `Tape` that it cannot do
without) and `figure(tape)`. Modules whose name starts with an underscore, and `style`, are no figures.
No figure touches pyplot or matplotlib's global settings, so they can be drawn inside any program.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sized
from pathlib import Path
from types import ModuleType

from matplotlib.figure import Figure

from everymode.errors import DataError, unknown_name
from everymode.plots.style import house
from everymode.tape import Tape

__all__ = ["DOTS_PER_INCH", "draw", "kinds", "save", "summary"]

DOTS_PER_INCH = 150


def kinds() -> list[str]:
    """The names of all figures, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name != "style" and not name.startswith("_"))


def summary(kind: str) -> str:
    """What a figure shows, in one line."""
    return _module(kind).SUMMARY


def draw(kind: str, tape: Tape) -> Figure:
    """Draws one figure.

    Raises:
        ValueError: there is no such figure, or the tape lacks what it needs; both are named.
    """
    module = _module(kind)
    missing = [name for name in module.NEEDS if not _filled(getattr(tape, name))]
    if missing:
        raise DataError(
            f"the figure {kind!r} needs {' and '.join(module.NEEDS)}; the tape {tape.title!r} "
            f"has no {' and no '.join(missing)}."
        )
    with house():
        return module.figure(tape)


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Writes `name`.png and `name`.svg into the folder (made if need be): the same figure, the same bytes."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{name}.png", target / f"{name}.svg"]
    with house():
        figure.savefig(paths[0], dpi=DOTS_PER_INCH, metadata={"Software": None})
        figure.savefig(paths[1], dpi=DOTS_PER_INCH, metadata={"Date": None})
    return paths


def _module(kind: str) -> ModuleType:
    known = kinds()
    if kind not in known:
        raise ValueError(unknown_name("figure", kind, known))
    return importlib.import_module(f"{__name__}.{kind}")


def _filled(value: object) -> bool:
    return value is not None and not (isinstance(value, Sized) and len(value) == 0)
