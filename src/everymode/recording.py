"""Recording a tape: what fitted models answer, and how a flow gets there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from everymode.errors import DataError
from everymode.estimator import OneToManyRegressor
from everymode.inputs import as_fitted, encode_condition
from everymode.problems import Problem
from everymode.randomness import new_generator
from everymode.spaces import place, repeat_rows
from everymode.tables import is_categorical
from everymode.tape import Motion, Tape

__all__ = ["record", "record_motion", "record_table"]

_FIELD_TIMES = (0.0, 0.25, 0.5, 0.75, 0.95)


def record_motion(
    model: OneToManyRegressor,
    x: Any,
    *,
    label: np.ndarray | None = None,
    particles: int = 800,
    steps: int = 60,
    field_times: Sequence[float] = _FIELD_TIMES,
    side: int = 17,
    seed: int = 0,
) -> Motion:
    """Return the particles of a flow from noise to data for one x, and its field on a lattice, in the units of y.

    Args:
        model: fitted; its family has a trajectory and a velocity, its y is a vector.
        x: one row, as the model takes it.
        label: the numbers of that row, (dx,), where x holds more than numbers.
        particles: how many.
        steps: solver steps, recorded one by one.
        field_times: when the field is recorded.
        side: points along each side of the lattice (1-D y: five times as many along the line).
        seed: of the noise.

    Raises:
        DataError: the model's y is not a vector, or the family does not move particles.
    """
    family, space = model.family_, model.y_space_
    if space.kind != "vector" or not (family.abilities.trajectory and family.abilities.velocity):
        raise DataError(
            f"family {family.name!r} on a {space.kind} has no motion to record; it needs a vector and a flow."
        )
    device = next(family.parameters()).device
    condition = place(encode_condition(model, as_fitted(model, x), model.x_space_), device)
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    generator = new_generator(seed, device)
    with torch.inference_mode():
        walk = family.trajectory(repeat_rows(condition, particles), times, generator=generator)
        states = np.stack([space.decode(state) for _, state in walk])  # (T, particles, dy)
        grid = _lattice(states, side)
        encoded = space.encode(grid).to(device)
        lattice_x = repeat_rows(condition, len(grid))
        velocities = [family.velocity(encoded, torch.tensor(t, device=device), lattice_x) for t in field_times]
        field = np.stack([velocity.cpu().numpy() for velocity in velocities]) * space.per_value(space.scale)
    return Motion(
        times.numpy(), states, np.asarray(field_times), grid, field, np.reshape(x if label is None else label, -1)
    )


def _lattice(states: np.ndarray, side: int) -> np.ndarray:
    """Return points (G, dy) over the box that the particles (T, n, dy) visit; above two dimensions, where they end."""
    low, high = states.min(axis=(0, 1)), states.max(axis=(0, 1))
    margin = 0.05 * (high - low)
    size = len(low)
    if size > 2:
        return states[-1]
    points = side if size == 2 else 5 * side
    axes = [np.linspace(a, b, points) for a, b in zip(low - margin, high + margin, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, size)


def record(
    models: Mapping[str, OneToManyRegressor],
    *,
    title: str,
    observed: tuple[np.ndarray, np.ndarray],
    x: np.ndarray,
    x_names: Sequence[str],
    y_names: Sequence[str],
    problem: Problem | None = None,
    scores: Sequence[Mapping[str, Any]] | None = None,
    draws: int = 400,
    questions: pd.DataFrame | None = None,
    motion_row: int | None = None,
    seed: int = 0,
) -> Tape:
    """Return a tape of fitted models: their draws for the probes x, what is true there, and the motion of the flows.

    Args:
        models: by the name that figures show.
        title: of the figures.
        observed: (x (n, dx), y (n, dy)) that were seen.
        x: probes, (rows, dx).
        x_names, y_names: names of the columns, with units.
        problem: if given, its true draws, modes and validity are recorded too.
        scores: rows of the mode table; see `everymode.tape.SCORES`.
        draws: draws a probe.
        questions: what the models are asked, where that is more than the numbers in `x`.
        motion_row: the probe whose particles are followed; no motion if None.
        seed: of all draws.
    """
    asked = x if questions is None else questions
    drawn = {}
    for name, model in models.items():
        sampled = model.sample(as_fitted(model, asked), draws, random_state=seed)
        drawn[name] = sampled.reshape(len(x), draws, -1)
    motion = {}
    if motion_row is not None:
        row = asked[motion_row : motion_row + 1]
        for name, model in models.items():
            if model.family_.abilities.trajectory and model.family_.abilities.velocity:
                motion[name] = record_motion(model, row, label=x[motion_row], seed=seed)
    known: dict[str, Any] = {}
    if problem is not None:
        known["truth"] = problem.sample_given(x, draws, seed)
        known["valid"] = {name: problem.valid(x, values) for name, values in drawn.items()}
        known["modes"] = [(modes.locations, modes.probabilities) for modes in problem.modes(x)]
    return Tape(title, x_names, y_names, *observed, x, draws=drawn, motion=motion, scores=scores, **known)


def record_table(
    models: Mapping[str, OneToManyRegressor],
    X: pd.DataFrame,
    Y: pd.DataFrame,
    *,
    title: str,
    problem: Problem | None = None,
    scores: Sequence[Mapping[str, Any]] | None = None,
    probes: int = 48,
    draws: int = 400,
    seed: int = 0,
) -> Tape:
    """Return a tape of models fitted on a table.

    The probes run along the column of X with the most distinct numbers; the other numbers are held at their medians,
    and categories at the most frequent one. The motion is that of the probe at three quarters of the way.

    Args:
        models: by the name that figures show.
        X, Y: the columns.
        title: of the figures.
        problem: where the table is from, if that is known.
        scores: rows of the mode table.
        probes: number of x asked about.
        draws: draws a probe.
        seed: of all draws.

    Raises:
        DataError: X holds no column of numbers.
    """
    numeric = [c for c in X.columns if not is_categorical(X[c])]
    if not numeric:
        raise DataError("figures run along a column of numbers, and X holds categories only.")
    along = max(numeric, key=lambda column: X[column].nunique())
    middle = {c: X[c].median() if c in numeric else X[c].mode().iloc[0] for c in X.columns}
    questions = pd.DataFrame([middle] * probes).loc[:, list(X.columns)]
    low, high = np.quantile(X[along].to_numpy(dtype=np.float64), [0.005, 0.995])
    questions[along] = np.linspace(low, high, probes)
    return record(
        models,
        title=title,
        observed=(X.loc[:, numeric].to_numpy(dtype=np.float64), Y.to_numpy(dtype=np.float64)),
        x=questions.loc[:, numeric].to_numpy(dtype=np.float64),
        x_names=[str(c) for c in numeric],
        y_names=[str(c) for c in Y.columns],
        problem=problem,
        scores=scores,
        draws=draws,
        questions=questions,
        motion_row=3 * probes // 4,
        seed=seed,
    )
