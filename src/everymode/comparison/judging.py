"""Judging fitted models: on fresh x of a problem whose answers are known, or on rows held out of a table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from everymode.comparison.table import TRUTH, ModeTable, Row
from everymode.estimator import OneToManyRegressor
from everymode.inputs import as_fitted, count_of
from everymode.metrics import energy_score, evaluate, log_likelihood
from everymode.problems import Problem
from everymode.tables import as_numbers

__all__ = ["floor_row", "judge", "judge_on_rows"]


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
    reference, real = (problem.sample_given(x, draws, seed + stream) for stream in (1, 3))
    truth = np.asarray(problem.log_density(x, y[:, None])[:, 0]) if problem.exact else None
    found = []
    for name, model in models.items():
        known = as_fitted(model, x)
        started = time.perf_counter()
        drawn = model.sample(known, draws, random_state=seed + 2)
        seconds = time.perf_counter() - started
        numbers: dict[str, Any] = evaluate(problem, x, y, _three_axes(drawn), reference, seed=seed, real=real)
        if model.has_density:
            log_prob = model.log_prob(known, y if drawn.ndim == 3 else y[:, 0])
            numbers["log_likelihood"] = log_likelihood(log_prob, truth, seed=seed)
        found.append(Row(name, **numbers, **_costs(model, seconds / (len(x) * draws))))
    note = f"{len(x)} x, {draws} draws each; floor: as many real draws. Intervals hold 95 %."
    return ModeTable(f"{problem.name}: {problem.title}", tuple(found), note)


def floor_row(problem: Problem, *, rows: int = 100, draws: int = 200, seed: int = 0) -> Row:
    """Return what real draws score where `judge` with these arguments scores a model's."""
    x, y = problem.sample(rows, seed)
    reference, real, other = (problem.sample_given(x, draws, seed + stream) for stream in (1, 3, 4))
    numbers: dict[str, Any] = evaluate(problem, x, y, other, reference, seed=seed, real=real)
    if problem.exact:
        truth = np.asarray(problem.log_density(x, y[:, None])[:, 0])
        numbers["log_likelihood"] = log_likelihood(truth, truth, seed=seed)
    return Row(TRUTH, **numbers)


def judge_on_rows(
    models: Mapping[str, OneToManyRegressor], X: Any, Y: Any, *, draws: int = 200, seed: int = 0, title: str = "table"
) -> ModeTable:
    """Return the table of fitted models on rows that they have not seen, where only one answer a row is known.

    The energy score and the likelihood can be measured there; which answers are valid is not known.
    """
    y = as_numbers(Y, count_of(X))
    found = []
    for name, model in models.items():
        started = time.perf_counter()
        drawn = model.sample(X, draws, random_state=seed).reshape(len(y), draws, -1)
        seconds = time.perf_counter() - started
        numbers: dict[str, Any] = {"energy_score": energy_score(y, drawn, seed=seed)}
        if model.has_density:
            numbers["log_likelihood"] = log_likelihood(model.log_prob(X, Y), seed=seed)
        found.append(Row(name, **numbers, **_costs(model, seconds / (len(y) * draws))))
    note = f"{len(y)} held-out rows, {draws} draws each. Which answers are valid is not known for a table of data."
    return ModeTable(title, tuple(found), note)


def _costs(model: OneToManyRegressor, seconds_a_draw: float) -> dict[str, Any]:
    return {
        "seconds": model.fit_seconds_,
        "nfe": model.nfe,
        "milliseconds": 1000 * seconds_a_draw,
        "parameters": model.n_parameters_,
    }


def _three_axes(draws: np.ndarray) -> np.ndarray:
    return draws[..., None] if draws.ndim == 2 else draws
