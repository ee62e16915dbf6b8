"""Explicit Runge-Kutta methods: a tableau is data, the loop is written once.

References:
    Solving ordinary differential equations I (Hairer, Norsett and Wanner, 1993): the tableaus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from everymode.errors import SettingError, check_choice, check_number

__all__ = [
    "SOLVERS",
    "Field",
    "Tableau",
    "check_times",
    "get_solver",
    "integrate",
    "last",
    "steps_for",
    "time_grid",
]

Field = Callable[[Tensor, Tensor], Tensor]
"""A velocity: (y (batch, *event), t scalar tensor) -> (batch, *event)."""


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: stage j is evaluated at t + nodes[j] h, from earlier stages by matrix[j]."""

    name: str
    order: int
    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Number of field evaluations a step."""
        return len(self.weights)

    def evaluations(self, steps: int) -> int:
        """Return how many evaluations so many steps cost."""
        return steps * self.stages


SOLVERS: dict[str, Tableau] = {
    tableau.name: tableau
    for tableau in (
        Tableau("euler", 1, (0.0,), ((),), (1.0,)),
        Tableau("midpoint", 2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
        Tableau("heun", 2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
        Tableau(
            "rk4",
            4,
            (0.0, 0.5, 0.5, 1.0),
            ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
            (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        ),
    )
}


def get_solver(solver: str | Tableau) -> Tableau:
    """Return the solver of that name, or the tableau itself; `SettingError` where there is none."""
    if isinstance(solver, Tableau):
        return solver
    return SOLVERS[check_choice("solver", solver, SOLVERS)]


def steps_for(nfe: int, solver: str | Tableau) -> int:
    """Return how many steps of `solver` cost `nfe` evaluations; `SettingError` where it does not divide."""
    stages = get_solver(solver).stages
    nfe = check_number("nfe", nfe, 1, integer=True)
    if nfe % stages:
        name = get_solver(solver).name
        raise SettingError(f"nfe={nfe} is no multiple of {stages}, the evaluations of one step of {name!r}.")
    return nfe // stages


def time_grid(steps: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Return `steps + 1` equally spaced times from 0 to 1, in float64."""
    steps = check_number("steps", steps, 1, integer=True)
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64, device=device)


def check_times(times: Tensor) -> list[float]:
    """Return `times` (steps + 1,) as numbers; `SettingError` unless they strictly rise or strictly fall."""
    if times.ndim != 1 or len(times) < 2:
        raise SettingError(f"times must be one row of at least two times; the shape is {tuple(times.shape)}.")
    values = [float(t) for t in times]
    gaps = [b - a for a, b in pairwise(values)]
    if not (all(g > 0 for g in gaps) or all(g < 0 for g in gaps)):
        raise SettingError("times must be strictly increasing or strictly decreasing.")
    return values


def integrate(field: Field, y: Tensor, times: Tensor, solver: str | Tableau) -> Iterator[tuple[float, Tensor]]:
    """Integrate dy/dt = field(y, t) through `times`, one step between neighbours.

    Args:
        field: the velocity; t comes as a scalar tensor of y's dtype.
        y: the state at times[0], (batch, *event).
        times: (steps + 1,), rising or falling.
        solver: a tableau or its name.

    Yields:
        (time, state) for each of `times`, the first included.

    Raises:
        SettingError: the solver is unknown or the times are not monotone.
    """
    tableau, values = get_solver(solver), check_times(times)
    yield values[0], y
    for start, end in pairwise(values):
        h = end - start
        slopes: list[Tensor] = []
        for node, row in zip(tableau.nodes, tableau.matrix, strict=True):
            stage = y
            for weight, slope in zip(row, slopes, strict=True):
                if weight:
                    stage = torch.add(stage, slope, alpha=h * weight)
            slopes.append(field(stage, torch.tensor(start + node * h, dtype=y.dtype, device=y.device)))
        for weight, slope in zip(tableau.weights, slopes, strict=True):
            if weight:
                y = torch.add(y, slope, alpha=h * weight)
        yield end, y


def last(states: Iterator[tuple[float, Tensor]]) -> Tensor:
    """Return the final state of a solver."""
    state = None
    for _, state in states:  # noqa: B007
        pass
    if state is None:
        raise SettingError("a solver needs at least one time.")
    return state
