"""Choosing a solver by measurement: the cheapest whose draws are where an exact solver's are.

A draw of a flow is a function of its noise, so a solver's error can be seen draw by draw: its distance to where fine
steps take the same noise. Methods and grids are tried on fresh noise for some x, in ever more evaluations, until one of
them is within the tolerance; its mean distance and two standard errors are, for other x come later.

One of the grids is the model's own. Along its finest ways the velocity changes much in some places and hardly in others;
steps are spread so that each sees about as much of it, in the square root, which evens out the local error of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from everymode.randomness import new_generator, normal
from everymode.solvers import SAMPLERS, SOLVERS, SPACINGS, Tableau, get_method, get_solver, integrate, last, time_grid
from everymode.spaces import Condition, count_rows, repeat_rows, take_rows

if TYPE_CHECKING:
    from everymode.families.continuous import Continuous

__all__ = ["AUTO", "FOUND", "KNOTS", "Choice", "choose", "found_times"]

AUTO, FOUND = "auto", "found"
KNOTS = 65
_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_ROWS, _DRAWS = 64, 32
_FINE = 128  # steps of the classical Runge-Kutta method
_DETERMINISTIC = tuple(name for name in dict.fromkeys((*SOLVERS, *SAMPLERS)) if name != "ddpm")


@dataclass(frozen=True)
class Choice:
    """How draws are to be made.

    Attributes:
        method: solver or sampler.
        spacing: of its times.
        steps: how many. nfe: the network evaluations that they are.
        error: mean distance of a draw to the exact one, in standard deviations of y, with two standard errors.
    """

    method: str
    spacing: str
    steps: int
    nfe: int
    error: float


def found_times(knots: Tensor, steps: int) -> Tensor:
    """Return `steps + 1` times in float64 for the model's own grid, told at KNOTS even parts of its measure."""
    place = torch.linspace(0, KNOTS - 1, steps + 1, dtype=torch.float64)
    low = place.floor().long().clamp(max=KNOTS - 2)
    times = knots[low].double() + (place - low) * (knots[low + 1] - knots[low]).double()
    times[0], times[-1] = 0.0, 1.0
    return times


def choose(family: Continuous, x: Condition, *, tolerance: float, seed: int) -> tuple[Choice, Tensor]:
    """Return the cheapest choice within the tolerance, or the best where none is, and the knots of the own grid.

    Args:
        family: built and trained.
        x: conditions, rows first, standardised; the first of them are asked about.
        tolerance: mean distance of a draw to the exact one, in standard deviations of y.
        seed: of the noise.
    """
    asked = take_rows(x, slice(0, _ROWS))
    embedding = repeat_rows(family.encode(asked), _DRAWS)
    rows, like = count_rows(asked) * _DRAWS, next(family.parameters())
    start = family.prior_scale * normal((rows, *family.event), new_generator(seed, like.device), like=like)
    exact, knots = _finest(family, start, embedding)
    best: Choice | None = None
    for nfe in _LADDER:
        for method, spacing, steps in _candidates(nfe):
            times = found_times(knots, steps) if spacing == FOUND else SPACINGS[spacing](family.on_path, steps)
            drawn = last(family.followed(get_method(method, prefer="solver"), start, times, embedding))
            away = (drawn - exact).flatten(1).square().mean(dim=1).sqrt().double()
            error = float(away.mean() + 2 * away.std() / len(away) ** 0.5)
            if best is None or error < best.error:
                best = Choice(method, spacing, steps, nfe, error)
        if best is not None and best.error <= tolerance:
            break
    assert best is not None
    return best, knots


def _candidates(nfe: int) -> list[tuple[str, str, int]]:
    """Return the methods, spacings and steps that cost exactly so much."""
    found = []
    for name in _DETERMINISTIC:
        method = get_method(name, prefer="solver")
        spacings = (FOUND, "uniform") if isinstance(method, Tableau) else ("karras", FOUND)
        for steps in range(max(1, nfe // 8), nfe + 1):
            if method.evaluations(steps) == nfe:
                found += [(name, spacing, steps) for spacing in spacings]
    return found


def _finest(family: Continuous, start: Tensor, embedding: Any) -> tuple[Tensor, Tensor]:
    """Return where fine steps end, (rows, *event), and the knots of the model's own grid, (KNOTS,)."""
    times = time_grid(_FINE)
    ways = integrate(lambda y, t: family.field(y, t, embedding), start, times, get_solver("rk4"))
    changes, before, y = [], None, start
    for t, y in ways:  # noqa: B007
        velocity = family.field(y, t, embedding)
        if before is not None:
            changes.append((velocity - before).flatten(1).square().mean().sqrt())
        before = velocity
    density = torch.stack(changes).double().cpu().sqrt()
    density = density + 0.05 * density.mean()  # nowhere without any step
    measure = torch.cat([density.new_zeros(1), density.cumsum(0) / density.sum()])
    wanted = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
    place = torch.searchsorted(measure, wanted).clamp(1, _FINE)
    part = (wanted - measure[place - 1]) / (measure[place] - measure[place - 1])
    return y, (times[place - 1] + part * (times[place] - times[place - 1])).float()


