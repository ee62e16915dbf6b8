"""The mode table: families side by side, on equal terms, each number beside its floor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from everymode.errors import DataError, check_number
from everymode.estimator import OneToManyRegressor
from everymode.families import Family, get_family
from everymode.inputs import as_fitted, count_of
from everymode.metrics import Measure, energy_score, evaluate
from everymode.problems import Problem
from everymode.tables import as_frame

__all__ = ["ModeTable", "Row", "compare", "judge", "judge_on_rows"]


@dataclass(frozen=True)
class Row:
    """What one model answers, in numbers. None where it is not known.

    Attributes:
        family: the model's family.
        valid_share: share of the draws that are valid answers.
        modes_found, modes_total: distinct answers found, and how many there are.
        mode_recall: share of a row's modes that its draws find.
        probability_error: total variation between the shares of the modes and their probabilities.
        energy_score: a proper score, in the units of y; lower is better.
        seconds: training time. nfe: network evaluations a draw. parameters: trained numbers.
    """

    family: str
    valid_share: Measure | None = None
    modes_found: int | None = None
    modes_total: int | None = None
    mode_recall: Measure | None = None
    probability_error: Measure | None = None
    energy_score: Measure | None = None
    seconds: float | None = None
    nfe: int | None = None
    parameters: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return one flat, JSON-ready dict: a measure becomes its value, with _low, _high and _floor beside it."""
        flat: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Measure):
                described = value.to_dict()
                flat[name] = described["value"]
                flat |= {f"{name}_{end}": described[end] for end in ("low", "high", "floor")}
            else:
                flat[name] = value
                if name in ("valid_share", "mode_recall", "probability_error", "energy_score"):
                    flat |= {f"{name}_{end}": None for end in ("low", "high", "floor")}
        return flat


@dataclass(frozen=True)
class ModeTable:
    """One row a family; prints as a table, and turns into a frame or JSON.

    Attributes:
        title: what was compared on.
        rows: one a family.
        note: what the numbers mean here: how many rows and draws, which floor.
    """

    title: str
    rows: tuple[Row, ...]
    note: str = ""

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, family: str) -> Row:
        for row in self.rows:
            if row.family == family:
                return row
        raise KeyError(f"no family {family!r} in this table; there are {', '.join(r.family for r in self.rows)}")

    def to_dict(self) -> dict[str, Any]:
        """Return {'title', 'note', 'families': {name: numbers}}, JSON-ready."""
        return {"title": self.title, "note": self.note, "families": {r.family: r.to_dict() for r in self.rows}}

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a pandas frame, one row a family."""
        return pd.DataFrame([row.to_dict() for row in self.rows]).set_index("family")

    def shown(self) -> list[dict[str, str]]:
        """Return the rows as short texts under the headings that people read."""
        return [
            {
                "family": row.family,
                "valid share": _interval(row.valid_share, percent=True),
                "modes": "-" if row.modes_found is None else f"{row.modes_found} of {row.modes_total}",
                "probability error": _beside_floor(row.probability_error),
                "energy score": _beside_floor(row.energy_score),
                "seconds": "-" if row.seconds is None else f"{row.seconds:.1f}",
                "NFE": "-" if row.nfe is None else str(row.nfe),
                "parameters": "-" if row.parameters is None else f"{row.parameters:,}",
            }
            for row in self.rows
        ]

    def __str__(self) -> str:
        shown = self.shown()
        widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in shown[0]}
        lines = [self.title, "  ".join(key.ljust(width) for key, width in widths.items())]
        lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()) for row in shown]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p><b>{self.title}</b></p>{pd.DataFrame(self.shown()).to_html(index=False)}<p>{self.note}</p>"


def _interval(measure: Measure | None, *, percent: bool) -> str:
    if measure is None:
        return "-"
    scale, form = (100, "{:.1f}") if percent else (1, "{:.3f}")
    text = form.format(scale * measure.value) + (" %" if percent else "")
    if measure.low is not None and measure.high is not None:
        text += f" ({form.format(scale * measure.low)} to {form.format(scale * measure.high)})"
    return text


def _beside_floor(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    return f"{measure.value:.3f}" + ("" if measure.floor is None else f" (floor {measure.floor:.3f})")


def judge(
    problem: Problem,
    models: Mapping[str, OneToManyRegressor],
    *,
    rows: int = 100,
    draws: int = 200,
    seed: int = 0,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
) -> ModeTable:
    """Return the mode table of fitted models on fresh x of a problem whose answers are known.

    Args:
        problem: gives the truth.
        models: fitted, by the name they are shown under.
        rows: number of fresh x.
        draws: draws an x.
        seed: of the fresh rows, the real draws and the models' draws.
        pairs: (x, y) to judge on, in place of fresh ones: what was held out of a real table.
    """
    x, y = problem.sample(rows, seed) if pairs is None else pairs
    real = problem.sample_given(x, draws, seed + 1)
    found = []
    for name, model in models.items():
        drawn = _three_axes(model.sample(as_fitted(model, x), draws, random_state=seed + 2))
        numbers: dict[str, Any] = evaluate(problem, x, y, drawn, real, seed=seed)
        found.append(Row(name, **numbers, **_costs(model)))
    note = f"{len(x)} x, {draws} draws each; floor: as many real draws. Intervals hold 95 %."
    return ModeTable(f"{problem.name}: {problem.title}", tuple(found), note)


def judge_on_rows(
    models: Mapping[str, OneToManyRegressor], X: Any, Y: Any, *, draws: int = 200, seed: int = 0, title: str = "table"
) -> ModeTable:
    """Return the table of fitted models on rows that they have not seen, where only one answer a row is known.

    The energy score alone can be measured there: which answers are valid is not known.
    """
    frame = as_frame(Y)
    y = np.asarray(Y if frame is None else frame, dtype=np.float64).reshape(count_of(X), -1)
    found = []
    for name, model in models.items():
        drawn = model.sample(X, draws, random_state=seed).reshape(len(y), draws, -1)
        found.append(Row(name, energy_score=energy_score(y, drawn, seed=seed), **_costs(model)))
    note = f"{len(y)} held-out rows, {draws} draws each. Which answers are valid is not known for a table of data."
    return ModeTable(title, tuple(found), note)


def _costs(model: OneToManyRegressor) -> dict[str, Any]:
    return {"seconds": model.fit_seconds_, "nfe": model.nfe, "parameters": model.n_parameters_}


def _three_axes(draws: np.ndarray) -> np.ndarray:
    return draws[..., None] if draws.ndim == 2 else draws


def compare(
    X: Any,
    Y: Any,
    families: Iterable[str | Family] = ("mse", "flow_matching"),
    *,
    test_fraction: float = 0.2,
    draws: int = 200,
    random_state: int = 0,
    **settings: Any,
) -> ModeTable:
    """Fit families on the same rows with the same settings, and return their table on rows held out from all of them.

    Args:
        X, Y: as for `OneToManyRegressor.fit`.
        families: names or family objects.
        test_fraction: share of the rows held out.
        draws: draws a held-out row.
        random_state: of the split, the fits and the draws.
        settings: further parameters of `OneToManyRegressor`, the same for all.

    Raises:
        DataError, SettingError: as `fit` does.
    """
    check_number("test_fraction", test_fraction, 0.0, 0.9, exclusive_low=True)
    rows = count_of(X)
    if rows < 4:
        raise DataError(f"{rows} row(s) cannot be split into a part to fit and a part to judge on; give at least 4.")
    order = np.random.default_rng(random_state).permutation(rows)
    held = max(1, round(test_fraction * rows))
    out, kept = order[:held], order[held:]
    models = {}
    for chosen in families:
        family = get_family(chosen)
        model = OneToManyRegressor(family, random_state=random_state, **settings)
        models[family.name] = model.fit(_take(X, kept), _take(Y, kept))
    return judge_on_rows(models, _take(X, out), _take(Y, out), draws=draws, seed=random_state, title="held-out rows")


def _take(data: Any, rows: np.ndarray) -> Any:
    if isinstance(data, Mapping):
        return {key: _take(value, rows) for key, value in data.items()}
    frame = as_frame(data)
    if frame is None:
        return data[rows] if hasattr(data, "shape") else np.asarray(data)[rows]
    return frame.iloc[rows] if frame.shape[1] != 1 or np.ndim(data) > 1 else frame.iloc[rows, 0]
