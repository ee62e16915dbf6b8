"""Stochastic differential equations.

References:
    Numerical solution of stochastic differential equations (Kloeden and Platen, 1992): Euler-Maruyama.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from everymode.randomness import Source, normal
from everymode.solvers.runge_kutta import Field, check_times

__all__ = ["euler_maruyama"]


def euler_maruyama(
    drift: Field, diffusion: Callable[[Tensor], Tensor], y: Tensor, times: Tensor, generator: Source
) -> Iterator[tuple[float, Tensor]]:
    """Integrate dy = drift(y, t) dt + diffusion(t) dW through `times`.

    Args:
        drift: (y (batch, *event), t scalar tensor) -> (batch, *event).
        diffusion: standard deviation of the noise per square root of time, a function of scalar t.
        y: the state at times[0].
        times: (steps + 1,), rising or falling.
        generator: where the noise comes from.

    Yields:
        (time, state) for each of `times`, the first included.
    """
    values = check_times(times)
    yield values[0], y
    for start, end in pairwise(values):
        h, t = end - start, torch.tensor(start, dtype=y.dtype, device=y.device)
        noise = normal(tuple(y.shape), generator, like=y)
        y = y + h * drift(y, t) + math.sqrt(abs(h)) * diffusion(t) * noise
        yield end, y
