"""Choosing a solver by measurement: the cheapest whose draws are where an exact solver's are.

A draw of a flow is a function of its noise, so a solver's error can be seen draw by draw: its distance to where fine
steps take the same noise. Methods and grids are tried in ever more evaluations until one is within the tolerance, its
mean distance and three standard errors together, so that it is for other noise as well.

One of the grids is the flow's own. Along its finest ways the velocity changes much at some times and hardly at others;
steps are spread so that each sees about as much of it, in the square root, which evens out the local error of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from everymode.paths import Path
from everymode.solvers.exponential import SAMPLERS, SPACINGS, Sampler
from everymode.solvers.methods import get_method
from everymode.solvers.runge_kutta import SOLVERS, Tableau, get_solver, integrate, time_grid

__all__ = ["AUTO", "CHOSEN_FROM", "FOUND", "KNOTS", "Choice", "choose", "found_times"]

AUTO, FOUND = "auto", "found"
_RANDOM = ("ddpm", "heun_churn")
CHOSEN_FROM = tuple(name for name in dict.fromkeys((*SOLVERS, *SAMPLERS)) if name not in _RANDOM)
KNOTS = 65
_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_MOST_STAGES = 8
_FINE = 128  # steps of the classical Runge-Kutta method

Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Choice:
    """How draws are to be made.

    Attributes:
        method: solver or sampler.
        spacing: of its times.
        steps: how many.
        error: mean distance of a draw to the exact one, a root mean square over its values, and three standard errors.
    """

    method: str
    spacing: str
    steps: int
    error: float


def found_times(knots: Tensor, steps: int) -> Tensor:
    """Return `steps + 1` times from 0 to 1 in float64 of the flow's own grid, told at so many even parts, (KNOTS,)."""
    knots = knots.double().cpu()
    place = torch.linspace(0, KNOTS - 1, steps + 1, dtype=torch.float64)
    low = place.floor().long().clamp(max=KNOTS - 2)
    times = knots[low] + (place - low) * (knots[low + 1] - knots[low])
    times[0], times[-1] = 0.0, 1.0
    return times


def choose(
    start: Tensor,
    field: Field,
    follow: Callable[[Tableau | Sampler, Tensor], Tensor],
    path: Path,
    *,
    tolerance: float,
    most: int = 128,
) -> tuple[Choice, Tensor]:
    """Return the cheapest choice within the tolerance, or the best there is, and the flow's own grid, (KNOTS,).

    Args:
        start: noise, (batch, *event).
        field: the velocity, (y_t, t scalar tensor) -> (batch, *event).
        follow: (method, times) -> where it takes `start`, (batch, *event).
        path: for grids that follow its noise.
        tolerance: mean distance of a draw to the exact one.
        most: evaluations, at most.
    """
    exact, knots = _finest(start, field)
    tried: list[Choice] = []
    for nfe in (count for count in _LADDER if count <= most):
        for name, spacing, steps in _candidates(nfe):
            times = found_times(knots, steps) if spacing == FOUND else SPACINGS[spacing](path, steps)
            away = follow(get_method(name, prefer="solver"), times) - exact
            distances = away.flatten(1).square().mean(dim=1).sqrt().double()
            error = distances.mean() + 3 * distances.std() / len(distances) ** 0.5
            tried.append(Choice(name, spacing, steps, float(error)))
        if min(choice.error for choice in tried) <= tolerance:
            break
    return min(tried, key=lambda choice: choice.error), knots


def _candidates(nfe: int) -> list[tuple[str, str, int]]:
    """Return the methods, spacings and steps that cost exactly so much."""
    found = []
    for name in CHOSEN_FROM:
        method = get_method(name, prefer="solver")
        spacings = ("uniform", FOUND) if isinstance(method, Tableau) else ("karras", FOUND)
        for steps in range(max(1, nfe // _MOST_STAGES), nfe + 1):
            if method.evaluations(steps) == nfe:
                found += [(name, spacing, steps) for spacing in spacings]
    return found


def _finest(start: Tensor, field: Field) -> tuple[Tensor, Tensor]:
    """Return where fine steps end, (batch, *event), and the flow's own grid, (KNOTS,)."""
    times, changes, before, y = time_grid(_FINE), [], None, start
    for time, y in integrate(field, start, times, get_solver("rk4")):
        velocity = field(y, start.new_tensor(time))
        if before is not None:
            changes.append((velocity - before).flatten(1).square().mean().sqrt())
        before = velocity
    density = torch.stack(changes).double().cpu().sqrt()
    density = density + 0.05 * density.mean()  # nowhere without any step
    measure = torch.cat([density.new_zeros(1), density.cumsum(0) / density.sum()])
    wanted = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
    place = torch.searchsorted(measure, wanted).clamp(1, _FINE)
    part = (wanted - measure[place - 1]) / (measure[place] - measure[place - 1])
    return y, times[place - 1] + part * (times[place] - times[place - 1])
