"""Adaptive steps: Dormand and Prince's method of order 5, by torchdiffeq.

References:
    A family of embedded Runge-Kutta formulae (Dormand and Prince, 1980),
        https://doi.org/10.1016/0771-050X(80)90013-3
    Neural ordinary differential equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366: torchdiffeq
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from everymode.errors import check_number
from everymode.solvers.runge_kutta import integrate, last

__all__ = ["integrate_adaptively"]

_MOST_STEPS = 1000
_FALLBACK_STEPS = 200  # of rk4


def integrate_adaptively(
    field: Callable[[Tensor, Tensor], Tensor], y: Tensor, start: float, end: float, *, tolerance: float = 1e-5
) -> Tensor:
    """Return the state at `end` of dy/dt = field(y, t) from y at `start`, (batch, *event), computed in float64.

    The steps are those of the whole batch, and small enough for the worst of its rows. Where the field is so rough that
    steps would have to be shorter than floating point can tell apart, or more than 1000, 200 steps of 'rk4' are taken
    instead.

    Args:
        field: the velocity, (y (batch, *event) in float64, t scalar) -> (batch, *event).
        y: the state at `start`.
        start: time.
        end: time; earlier or later.
        tolerance: of a step's error, absolute and relative.
    """
    from torchdiffeq import odeint  # it takes a while to load

    tolerance = check_number("tolerance", tolerance, 1e-12, 1.0)
    y = y.double()
    times = torch.tensor([start, end], dtype=torch.float64, device=y.device)
    options = {"norm": lambda error: error.abs().max(), "max_num_steps": _MOST_STEPS}
    try:
        states = odeint(
            lambda t, state: field(state, t).double(), y, times, rtol=tolerance, atol=tolerance, options=options
        )
    except AssertionError as error:
        if not any(known in str(error) for known in ("underflow in dt", "max_num_steps", "non-finite")):
            raise
        grid = torch.linspace(start, end, _FALLBACK_STEPS + 1, dtype=torch.float64)
        return last(integrate(lambda state, t: field(state, t).double(), y, grid, "rk4"))
    return states[-1]  # pyright: ignore[reportIndexIssue, reportReturnType]
