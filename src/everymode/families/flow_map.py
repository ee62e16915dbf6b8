"""Families that jump along a flow: a network for the average velocity between two times.

With v the velocity of a flow, its average from time t to a later time s along the way of y_t is

    u(y_t, t, s) = (y_s - y_t) / (s - t),        and        v = u - (s - t) du/dt,

du/dt = (d/dt + v . d/dy) u. A jump from noise to an answer is one evaluation, where a solver takes many small steps.
The families differ in what they fit u by. A teacher, if there is one, tells them v, in place of y and its noise.

Times are angles here (the cosine path, y_t = sin y + cos noise): with data of unit variance y_t has unit variance at
all of them, and what the network has to tell is of order one.

References:
    Mean flows for one-step generative modeling (Geng et al., 2025), https://arxiv.org/abs/2505.13447: u and v
    Simplifying, stabilizing and scaling continuous-time consistency models (Lu and Song, 2025),
        https://arxiv.org/abs/2410.11081: angles
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from everymode.errors import check_number
from everymode.families.base import Abilities, Family, mean_over_event
from everymode.families.continuous import Continuous, velocity_on
from everymode.networks import Sizes
from everymode.networks.embeddings import TimeEmbedding
from everymode.paths import CosinePath
from everymode.randomness import Source, normal
from everymode.solvers import last, time_grid
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["FlowMap"]


class FlowMap(Family):
    """A family that answers in a few jumps.

    Args:
        steps: jumps from noise to an answer; NFE.
    """

    abilities: ClassVar[Abilities] = Abilities(velocity=True, trajectory=True)
    judged_by_draws: ClassVar[bool] = True  # its loss is against what it says itself
    path: ClassVar[CosinePath] = CosinePath()

    def __init__(self, *, steps: int = 1) -> None:
        super().__init__()
        self.steps = check_number("steps", steps, 1, 100_000, integer=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make `encoder`, `network`, and the embedding of the time to jump."""
        super().assemble(y_space, x_space, sizes)
        self.span = TimeEmbedding(sizes.width, fastest=4.0)

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        return self.steps

    def average(self, y_t: Tensor, t: Tensor, s: Tensor, embedding: Any) -> Tensor:
        """Return the average velocity from times t to times s, both (batch,), at y_t (batch, *event)."""
        span = self.span(s - t)
        embedding = embedding + (span if embedding.ndim == 2 else span[:, None])  # beside every token of x
        return 0.5 * math.pi * self.network(y_t, t, embedding)

    def velocity(self, y_t: Tensor, t: Tensor, x: Condition) -> Tensor:
        """Return dy/dt at (y_t, t), (batch, *event)."""
        t = t.expand(len(y_t)) if t.ndim == 0 else t
        return self.average(y_t, t, t, self.encode(x))

    def trajectory(self, x: Condition, times: Tensor, *, generator: Source = None) -> Iterator[tuple[float, Tensor]]:
        """Yield (time, states (batch, *event)) at each of `times`, from noise to data: a jump from one to the next."""
        return self._states(self.encode(x), times, generator)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): noise, moved in `steps` jumps."""
        return last(self._states(embedding, time_grid(self.steps), generator))

    def _states(self, embedding: Any, times: Tensor, generator: Source) -> Iterator[tuple[float, Tensor]]:
        rows, like = self._rows(embedding)
        y, ends = normal((rows, *self.event), generator, like=like), times.tolist()
        yield ends[0], y
        for start, end in pairwise(ends):
            y = self._jumped(y, start, end, embedding, generator)
            yield end, y

    # For subclasses ------------------------------------------------------------------------------------------------

    def _jumped(self, y: Tensor, start: float, end: float, embedding: Any, generator: Source) -> Tensor:
        """Return the states (batch, *event) at time `end`, for those at `start`."""
        t, s = (y.new_full((1,), at).expand(len(y)) for at in (start, end))
        return y + (end - start) * self.average(y, t, s, embedding)

    def _flowing(self, y_t: Tensor, t: Tensor, x: Condition, told: Tensor) -> Tensor:
        """Return the velocity to fit at y_t (batch, *event): the teacher's, or the one `told` by y and its noise."""
        teacher = self.teacher
        if not isinstance(teacher, Continuous):
            return told
        with torch.no_grad():
            return velocity_on(self.path, teacher, y_t, t, teacher.encode(x)).to(told.dtype)

    def _along(self, y_t: Tensor, t: Tensor, s: Tensor, embedding: Any, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return u(y_t, t, s) and (s - t) du/dt for dy/dt = `tangent`, both (batch, *event)."""
        _forward_derivatives()
        with sdpa_kernel(SDPBackend.MATH):  # the others have no forward derivative
            both: Any = torch.func.jvp(
                lambda state, time: self.average(state, time, s, embedding), (y_t, t), (tangent, torch.ones_like(t))
            )
        found, slope = both
        return found, (s - t).reshape(-1, *(1,) * (y_t.ndim - 1)) * slope

    @staticmethod
    def _error(found: Tensor, wanted: Tensor) -> Tensor:
        """Return the squared error of velocities (batch, *event) in units of the network's answer, (batch,)."""
        return mean_over_event((found - wanted).square()) / (0.5 * math.pi) ** 2


@cache
def _forward_derivatives() -> None:
    """Load torch's rules for forward derivatives, which warns of how they were made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))
