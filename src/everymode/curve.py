"""What each step buys: how good the draws of a model are by the number of network evaluations, for every solver."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from everymode.errors import DataError, SettingError, check_number, unknown_name
from everymode.estimator import OneToManyRegressor
from everymode.families import Family
from everymode.inputs import as_fitted, count_of, take_given
from everymode.metrics import modes_found, sliced_wasserstein, valid_share
from everymode.problems import Problem

__all__ = ["NFE", "StepsCurve", "StepsPoint", "settings_for", "steps_curve", "with_settings"]

NFE = (1, 2, 4, 8, 16, 32, 100)
_FINE = {"steps": 64, "method": "rk4"}  # how the law of a flow is drawn, where nothing else tells it


@dataclass(frozen=True)
class StepsPoint:
    """A method at a number of evaluations.

    Attributes:
        method: solver or sampler; the family, where there is no choice of one.
        nfe: network evaluations a draw.
        valid_share: share of the draws that are valid answers. None where that is not known, as for the next two.
        modes_found, modes_total: distinct answers found, and how many there are.
        sliced_wasserstein: distance to the reference, in standard deviations of y; lower is better.
        milliseconds: for 1,000 draws, many drawn at once.
    """

    method: str
    nfe: int
    valid_share: float | None
    modes_found: int | None
    modes_total: int | None
    sliced_wasserstein: float
    milliseconds: float


@dataclass(frozen=True)
class StepsCurve:
    """All points, with what real draws score.

    Attributes:
        title: the model and the data.
        reference: what the distances are to.
        points: by method, then NFE.
        floor: distance between two sets of draws of the reference.
        valid_floor: share of valid ones among real draws; None where validity is not known.
    """

    title: str
    reference: str
    points: tuple[StepsPoint, ...]
    floor: float
    valid_floor: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return asdict(self)

    def best(self, nfe: int) -> StepsPoint:
        """Return the point of that NFE with the least distance."""
        return min((p for p in self.points if p.nfe == nfe), key=lambda point: point.sliced_wasserstein)

    def __str__(self) -> str:
        """Return a table: a row a method, a column an NFE."""
        counts = sorted({point.nfe for point in self.points})
        known = {(point.method, point.nfe): point for point in self.points}
        methods = list(dict.fromkeys(point.method for point in self.points))
        wide = max(len("solver"), *(len(name) for name in methods))
        lines = [self.title, f"{'solver':<{wide}}  " + "".join(f"{f'NFE {n}':>14}" for n in counts)]
        for method in methods:
            cells = [_cell(known.get((method, n))) for n in counts]
            lines.append(f"{method:<{wide}}  " + "".join(f"{cell:>14}" for cell in cells))
        shown = "share of valid draws, modes found" if self.valid_floor is not None else "distance"
        what = f"{shown}; sliced Wasserstein distance to {self.reference}: floor {self.floor:.3f}"
        return "\n".join([*lines, what])


def _cell(point: StepsPoint | None) -> str:
    if point is None:
        return "-"
    if point.valid_share is None:
        return f"{point.sliced_wasserstein:.3f}"
    return f"{point.valid_share:.2f} {point.modes_found}/{point.modes_total} {point.sliced_wasserstein:.2f}"


def settings_for(family: Family, method: str, nfe: int) -> dict[str, Any] | None:
    """Return the settings with which a family draws by that method in exactly `nfe` evaluations, or None."""
    if "steps" not in family.setting_names():
        return {} if family.nfe == nfe else None
    chosen = {family.method_setting: method} if family.method_setting else {}
    for stages in range(1, min(nfe, 8) + 1):
        settings = {**chosen, "steps": nfe // stages}
        if type(family)(**{**family.get_params(), **settings}).nfe == nfe:
            return settings
    return None


@contextmanager
def with_settings(family: Family, **settings: Any) -> Iterator[Family]:
    """Let a fitted family draw by other settings for a while."""
    before = {name: getattr(family, name) for name in settings}
    family.set_params(**settings)
    try:
        yield family
    finally:
        family.set_params(**before)


def steps_curve(
    model: OneToManyRegressor,
    asked: Problem | Any,
    *,
    nfe: Sequence[int] = NFE,
    methods: Sequence[str] | None = None,
    rows: int = 50,
    draws: int = 400,
    reference: OneToManyRegressor | None = None,
    seed: int = 0,
) -> StepsCurve:
    """Return what a fitted model answers by solver and number of evaluations.

    Args:
        model: fitted.
        asked: a problem whose answers are known, on which all is measured; or X, rows as in `fit`, for which the
            distance to fine draws is: those of `reference`, or the model's own by 64 steps of the classical
            Runge-Kutta method.
        nfe: network evaluations a draw.
        methods: solvers and samplers; all that the family has by default.
        rows: x of the problem, or rows of X, that are asked about, at most.
        draws: draws an x.
        reference: a fitted model whose draws are the reference, such as a student's teacher.
        seed: of the rows and of all draws.

    Raises:
        SettingError: an NFE is below 1, the family has no such method, or no method has any of these NFE.
    """
    family = model.family_
    for count in nfe:
        check_number("nfe", count, 1, integer=True)
    for name in methods or ():
        if name not in family.methods:
            raise SettingError(unknown_name(f"method of family {family.name!r}", name, family.methods))
    problem = asked if isinstance(asked, Problem) else None
    if problem is not None:
        _check_columns(model, problem)
    X = problem.sample(rows, seed)[0] if problem is not None else _some(asked, rows, seed)
    known = as_fitted(model, X)

    def drawn(stream: int) -> np.ndarray:
        values = model.sample(known, draws, random_state=seed + stream)
        return values.reshape(count_of(X), draws, -1)

    if problem is not None:
        first, second = (problem.sample_given(X, draws, seed + stream) for stream in (1, 2))
        told = "real draws"
    else:
        by = model if reference is None else reference
        first, second = (_fine(by, as_fitted(by, X), draws, seed + stream) for stream in (1, 2))
        told = "its own finest draws" if reference is None else f"draws of {by.family_.name}"
    points = []
    for method in methods or family.methods or (family.name,):
        for count in nfe:
            settings = settings_for(family, method, count)
            if settings is None:
                continue
            with with_settings(family, **settings):
                drawn(3)  # the first draws are slower
                started = time.perf_counter()
                values = drawn(3)
                seconds = time.perf_counter() - started
            found = modes_found(problem, X, values) if problem is not None else (None, None)
            points.append(
                StepsPoint(
                    method,
                    count,
                    None if problem is None else valid_share(problem, X, values).value,
                    *found,
                    sliced_wasserstein(values, first, seed=seed).value,
                    1e6 * seconds / values[..., 0].size,
                )
            )
    if not points:
        raise SettingError(f"family {family.name!r} draws in {family.nfe} evaluations: ask for nfe=({family.nfe},).")
    return StepsCurve(
        family.name if problem is None else f"{family.name} on {problem.name}",
        told,
        tuple(points),
        sliced_wasserstein(second, first, seed=seed).value,
        None if problem is None else valid_share(problem, X, second).value,
    )


def _check_columns(model: OneToManyRegressor, problem: Problem) -> None:
    x, y = problem.sample(1, 0)
    has, asks = (getattr(model, "n_features_in_", None), model.y_space_.size), (x.shape[1], y[0].size)
    if has != asks:
        raise DataError(
            f"problem {problem.name!r} gives {asks[0]} columns and asks for {asks[1]} values, and the model was fitted "
            f"on {has[0]} and {has[1]}: name the problem that its table is of."
        )


def _fine(model: OneToManyRegressor, X: Any, draws: int, seed: int) -> np.ndarray:
    family = model.family_
    settings = {family.method_setting: _FINE["method"], "steps": _FINE["steps"]} if family.method_setting else {}
    with with_settings(family, **settings):
        return model.sample(X, draws, random_state=seed).reshape(count_of(X), draws, -1)


def _some(X: Any, rows: int, seed: int) -> Any:
    """Return so many rows of X, at most."""
    return take_given(X, np.sort(np.random.default_rng(seed).permutation(count_of(X))[:rows]))
