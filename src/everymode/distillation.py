"""Distillation: a family of few steps that learns from a trained model of many.

The student is trained on draws of the teacher, as many as are asked for; a family that can use more of the teacher than
its draws does so: `mean_flow`, `shortcut` and `consistency` its velocity, `reflow` the pairs of noise and answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from everymode.errors import check_number
from everymode.estimator import OneToManyRegressor
from everymode.families import Family
from everymode.inputs import count_of, take_given

__all__ = ["distill", "lesson"]


def distill(
    teacher: OneToManyRegressor,
    X: Any,
    into: str | Family = "mean_flow",
    *,
    rows: int = 50_000,
    random_state: int = 0,
    **settings: Any,
) -> OneToManyRegressor:
    """Return a fitted model of another family that answers as the teacher does.

    Args:
        teacher: fitted.
        X: conditions as in its `fit`; every one is asked about equally often.
        into: the student's family.
        rows: draws of the teacher to learn from, about; at least one a row of X.
        random_state: of the draws and of the training.
        **settings: of `OneToManyRegressor`; width and depth are the teacher's by default.

    Raises:
        DataError: X is not of the teacher's columns or shape.

    Examples:
        >>> import everymode as em
        >>> x, y = em.problems.get("fork").sample(500, seed=0)
        >>> teacher = em.OneToManyRegressor(steps=50, random_state=0).fit(x, y)
        >>> student = em.distill(teacher, x, "mean_flow", rows=1000, steps=50)
        >>> student.nfe
        1
    """
    sizes = {"width": teacher.width_, "depth": teacher.depth, "network": teacher.network}
    student = OneToManyRegressor(into, random_state=random_state, **{**sizes, **settings})
    return student.fit(*lesson(teacher, X, rows=rows, seed=random_state), teacher=teacher)


def lesson(teacher: OneToManyRegressor, X: Any, *, rows: int, seed: int) -> tuple[Any, np.ndarray]:
    """Return X, every row as often as it takes to have `rows` of them, and one draw of the teacher for each."""
    asked = count_of(X)
    draws = max(1, round(check_number("rows", rows, 1, integer=True) / max(1, asked)))
    answers = teacher.sample(X, draws, random_state=seed)
    return take_given(X, np.arange(asked).repeat(draws)), answers.reshape(asked * draws, *answers.shape[2:])
