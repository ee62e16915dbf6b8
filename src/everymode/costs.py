"""What guidance costs: the answers that are lost, at several weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from everymode.errors import DataError, SettingError, check_number
from everymode.estimator import OneToManyRegressor
from everymode.guidance import Autoguidance, Classifier, ClassifierFree
from everymode.inputs import count_of
from everymode.metrics import Tally, energy_score, prdc
from everymode.problems import Problem

__all__ = ["guidance_cost"]


def guidance_cost(
    model: OneToManyRegressor,
    X: Any,
    guide: ClassifierFree | Classifier | Autoguidance | None = None,
    *,
    weights: Sequence[float] = (1.5, 2.0, 4.0),
    Y: Any = None,
    problem: Problem | None = None,
    n: int = 200,
    random_state: int = 0,
) -> pd.DataFrame:
    """Return what guided draws cover of the unguided ones, one row a weight.

    The first row is no guidance: other draws of the same model, and so the best that the numbers can be.

    Args:
        model: fitted, of a family with a velocity.
        X: rows to ask about.
        guide: `ClassifierFree()` if None; its own weight does not count.
        weights: what to try.
        Y: the true answers of these rows, for the energy score.
        problem: where X is from, if that is known, for the modes that are found.
        n: draws a row, at least 2.
        random_state: of the draws.

    Returns:
        A frame with the columns

        - weight
        - recall, coverage: share of the unguided draws that are near guided ones (see `everymode.metrics.prdc`)
        - spread: standard deviation of the draws of one row, in that of the unguided ones
        - energy_score: with Y; lower is better
        - mode_recall, valid_share: with a problem; share of its modes that are found, and of draws that are valid.

    Raises:
        UnsupportedError: the family cannot be guided.
        SettingError: the model cannot be guided so, or a weight is out of range.
    """
    guide = ClassifierFree() if guide is None else guide
    if not isinstance(guide, (ClassifierFree, Classifier, Autoguidance)):
        raise SettingError(f"guide={guide!r}: give ClassifierFree(...), Classifier(...) or Autoguidance(...).")
    n, rows = check_number("n", n, 2, integer=True), count_of(X)

    def draws(weight: float, seed: int) -> np.ndarray:
        return model.sample(X, n, guide=replace(guide, weight=weight), random_state=seed).reshape(rows, n, -1)

    reference = draws(guide.neutral, random_state)
    truth = None if Y is None else np.asarray(Y, dtype=np.float64).reshape(-1, reference.shape[2])
    if truth is not None and len(truth) != rows:
        raise DataError(f"X has {rows} rows, but Y has {len(truth)}: they must have equal length.")
    table = []
    for weight in (guide.neutral, *(w for w in weights if w != guide.neutral)):
        guided = draws(weight, random_state + 1)
        near = prdc(guided, reference)
        found = {"weight": float(weight), "recall": near["recall"].value, "coverage": near["coverage"].value}
        found["spread"] = float(np.sqrt(guided.var(axis=1).mean() / reference.var(axis=1).mean()))
        if truth is not None:
            found["energy_score"] = energy_score(truth, guided).value
        if problem is not None:
            tally = Tally.of(problem, X, guided)
            found |= {"mode_recall": tally.mode_recall().value, "valid_share": tally.valid_share().value}
        table.append(found)
    return pd.DataFrame(table)
