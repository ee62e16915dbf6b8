"""The mode table: families side by side, each number beside its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from everymode.metrics import Measure

__all__ = ["TRUTH", "ModeTable", "Row"]

TRUTH = "truth"
"""The name under which real draws are judged like a family's: the floor, as a row of its own."""

_ENDS = ("low", "high", "floor")


@dataclass(frozen=True)
class Row:
    """What one model answers, in numbers. None where it is not known.

    Attributes:
        family: the model's family.
        valid_share: share of the draws that are valid answers.
        modes_found, modes_total: distinct answers found, and how many there are; a mean over seeds may be no integer.
        mode_recall: share of a row's modes that its draws find.
        probability_error: total variation between the shares of the modes and their probabilities.
        mode_entropy: entropy of the shares of the modes, in nats; its floor is that of real draws.
        energy_score: a proper score, in the units of y; lower is better.
        sliced_wasserstein: distance to real draws for the same x, in standard deviations of y; lower is better.
        c2st: accuracy of a classifier that tells draws from real ones; 0.5 is perfect.
        precision, density: share of the draws among real ones, and how densely.
        recall, coverage: share of the real draws among those of the model, and near one of them.
        log_likelihood: mean log p(y | x) of fresh pairs in nats; higher is better.
        seconds: training time. nfe: network evaluations a draw. milliseconds: a draw, many drawn at once.
        parameters: fitted numbers.
    """

    family: str
    valid_share: Measure | None = None
    modes_found: float | None = None
    modes_total: int | None = None
    mode_recall: Measure | None = None
    probability_error: Measure | None = None
    mode_entropy: Measure | None = None
    energy_score: Measure | None = None
    sliced_wasserstein: Measure | None = None
    c2st: Measure | None = None
    precision: Measure | None = None
    recall: Measure | None = None
    density: Measure | None = None
    coverage: Measure | None = None
    log_likelihood: Measure | None = None
    seconds: float | None = None
    nfe: int | None = None
    milliseconds: float | None = None
    parameters: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return one flat, JSON-ready dict: a measure becomes its value, with _low, _high, _floor and _n beside it."""
        flat: dict[str, Any] = {}
        for name in _names():
            value = getattr(self, name)
            if name in MEASURES:
                described = {} if value is None else value.to_dict()
                flat[name] = described.get("value")
                flat |= {f"{name}_{end}": described.get(end) for end in _ENDS}
            else:
                flat[name] = value
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Row:
        """Return the row that `to_dict` described."""
        values: dict[str, Any] = {}
        for name in _names():
            value = flat.get(name)
            if name in MEASURES and value is not None:
                value = Measure(value, *(flat.get(f"{name}_{end}") for end in _ENDS), n=0)
            values[name] = value
        return cls(**values)

    @classmethod
    def mean(cls, rows: Sequence[Row]) -> Row:
        """Return the mean over seeds. The interval of a measure holds the chance within seeds and that between them."""
        if len(rows) == 1:
            return rows[0]
        values: dict[str, Any] = {"family": rows[0].family}
        for name in _names()[1:]:
            known = [value for row in rows if (value := getattr(row, name)) is not None]
            if not known:
                values[name] = None
            elif name in MEASURES:
                values[name] = _mean_measure(known)
            else:
                mean = float(np.mean(known))
                values[name] = int(mean) if mean.is_integer() and name != "seconds" else mean
        return cls(**values)


def _names() -> list[str]:
    return [field.name for field in fields(Row)]


MEASURES = tuple(field.name for field in fields(Row) if "Measure" in str(field.type))


def _mean_measure(measures: Sequence[Measure]) -> Measure:
    """Return the mean of measures of several seeds.

    Its variance is that between the seeds, over their number; where the intervals of the single seeds are wider than
    what the seeds show, theirs is taken: three seeds know little of their own spread.
    """
    values = np.array([measure.value for measure in measures])
    value, seeds = float(values.mean()), len(values)
    halves = [(m.high - m.low) / 2 for m in measures if m.low is not None and m.high is not None]
    within = float(np.mean(np.square(halves))) if halves else 0.0
    between = float(values.var(ddof=1)) * 1.96**2 if seeds > 1 else 0.0
    half = math.sqrt(max(within, between) / seeds)
    floors = [m.floor for m in measures if m.floor is not None]
    low, high = (value - half, value + half) if math.isfinite(half) else (None, None)
    return Measure(value, low, high, float(np.mean(floors)) if floors else None, sum(m.n for m in measures))


@dataclass(frozen=True)
class ModeTable:
    """One row a family; prints as a table, and turns into a frame or JSON.

    Attributes:
        title: what was compared on.
        rows: one a family.
        note: what the numbers mean here: how many rows and draws, which floor.
        floor: what real draws score, as a row of its own.
        failures: what went wrong, by family.
    """

    title: str
    rows: tuple[Row, ...]
    note: str = ""
    floor: Row | None = None
    failures: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, family: str) -> Row:
        for row in self.rows:
            if row.family == family:
                return row
        raise KeyError(f"no family {family!r} in this table; there are {', '.join(r.family for r in self.rows)}")

    def to_dict(self) -> dict[str, Any]:
        """Return title, note, families by name, the floor and the failures, JSON-ready."""
        return {
            "title": self.title,
            "note": self.note,
            "families": {row.family: row.to_dict() for row in self.rows},
            "floor": None if self.floor is None else self.floor.to_dict(),
            "failures": dict(self.failures),
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> ModeTable:
        """Return the table that `to_dict` described."""
        floor = described.get("floor")
        return cls(
            described["title"],
            tuple(Row.from_dict(row) for row in described["families"].values()),
            described.get("note", ""),
            None if floor is None else Row.from_dict(floor),
            tuple(described.get("failures", {}).items()),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a pandas frame, one row a family."""
        return pd.DataFrame([row.to_dict() for row in self.rows]).set_index("family")

    def shown(self) -> list[dict[str, str]]:
        """Return the rows as short texts under the headings that people read; columns that nothing fills are left out.

        The floor stands beside each number, or as the last row where it is a row of its own.
        """
        rows = [*self.rows, *([replace(self.floor, family=TRUTH)] if self.floor is not None else [])]
        texts = [
            {name: "-" if row is None else text(row) for name, text in _COLUMNS.items()} | {"family": row.family}
            for row in (rows if self.floor is None else [_without_floors(row) for row in rows])
        ]
        texts += [{**dict.fromkeys(_COLUMNS, "-"), "family": f"{name}: failed"} for name, _ in self.failures]
        filled = [name for name in _COLUMNS if any(row[name] != "-" for row in texts)]
        return [{name: row[name] for name in filled} for row in texts]

    def __str__(self) -> str:
        shown = self.shown()
        widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in shown[0]}
        lines = [self.title, "  ".join(key.ljust(width) for key, width in widths.items())]
        lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()) for row in shown]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p><b>{self.title}</b></p>{pd.DataFrame(self.shown()).to_html(index=False)}<p>{self.note}</p>"


def _without_floors(row: Row) -> Row:
    measures = {name: getattr(row, name) for name in MEASURES}
    return replace(row, **{name: replace(m, floor=None) for name, m in measures.items() if m is not None})


def _percent(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    text = f"{100 * measure.value:.1f} %"
    if measure.low is not None and measure.high is not None:
        text += f" ({100 * max(0.0, measure.low):.1f} to {100 * min(1.0, measure.high):.1f})"
    return text


def _beside_floor(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    return f"{measure.value:.3f}" + ("" if measure.floor is None else f" (floor {measure.floor:.3f})")


def _modes(row: Row) -> str:
    return "-" if row.modes_found is None else f"{row.modes_found:.3g} of {row.modes_total}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "family": lambda row: row.family,
    "valid share": lambda row: _percent(row.valid_share),
    "modes": _modes,
    "probability error": lambda row: _beside_floor(row.probability_error),
    "entropy": lambda row: _beside_floor(row.mode_entropy),
    "energy score": lambda row: _beside_floor(row.energy_score),
    "sliced W2": lambda row: _beside_floor(row.sliced_wasserstein),
    "C2ST": lambda row: _beside_floor(row.c2st),
    "log-likelihood": lambda row: _beside_floor(row.log_likelihood),
    "seconds": lambda row: _number(row.seconds, ".1f"),
    "NFE": lambda row: _number(row.nfe, ".0f"),
    "ms a draw": lambda row: _number(row.milliseconds, ".3g"),
    "parameters": lambda row: _number(row.parameters, ",.0f"),
}
