"""Tables of what the benchmarks measured: read from `benchmarks/results` when a page is built, and never typed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import everymode as em

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


@dataclass(frozen=True)
class Result:
    """Rows, and where they are from."""

    rows: list[dict[str, str]]
    source: str


@cache
def read(name: str) -> Any:
    """Return the file of a benchmark."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def source(name: str, note: str = "") -> str:
    """Return the sentence that stands below a table."""
    told = read(name)
    return f"{note} Measured by `{told['command']}`, {told['date']}; `benchmarks/results/{name}.json`.".strip()


def problems() -> Result:
    """Return the problems."""
    rows = []
    for name in em.problems.names():
        problem = em.problems.get(name)
        rows.append({"problem": f"`{name}`", "what it is": problem.title, "x": _names(problem.x_names)})
        rows[-1]["y"] = _names(problem.y_names)
    return Result(rows, "As `everymode.problems` tells them.")


def figures() -> Result:
    """Return the figures."""
    rows = [{"kind": f"`{kind}`", "what it shows": em.plots.summary(kind)} for kind in em.plots.kinds()]
    return Result(rows, "As `everymode.plots` tells them.")


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
