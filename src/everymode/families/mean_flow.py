"""MeanFlow: a network for the average velocity between two times, which one step can follow from noise to an answer.

With v the velocity of a flow, its average from time t to a later time s along the way of y_t is

    u(y_t, t, s) = (y_s - y_t) / (s - t),        and        v = u - (s - t) du/dt,

du/dt = (d/dt + v . d/dy) u being one Jacobian-vector product. The network's u is put into the right-hand side, with the
derivative held, and that is regressed on y - noise, whose mean given y_t is v (the v-loss of improved MeanFlow: what is
fitted does not depend on what is learned, and at s = t it is flow matching). The tangent is the network's own
u(y_t, t, t), which is v as far as it knows. Answers follow in `steps` jumps, one by default.

References:
    Mean flows for one-step generative modeling (Geng et al., 2025), https://arxiv.org/abs/2505.13447
    Improved mean flows: on the challenges of fastforward generative models (Geng et al., 2025),
        https://arxiv.org/abs/2512.02012

Fails: a derivative in time is learned, and with it everything that is rough in time; a step costs three times one of
flow matching; with one jump from noise, answers far apart are bridged where flow matching with many steps parts them.
"""

from __future__ import annotations

import warnings
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from everymode.errors import check_number
from everymode.families.base import Abilities, Family, mean_over_event
from everymode.networks import NetworkFactory, sizes_for
from everymode.networks.embeddings import TimeEmbedding
from everymode.paths import get_path
from everymode.randomness import Source, normal, stratified, uniform
from everymode.solvers import time_grid
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["MeanFlow"]


@cache
def _forward_derivatives() -> None:
    """Load torch's rules for forward derivatives, which warns of how they were made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


class MeanFlow(Family):
    """Improved MeanFlow on the linear path.

    Args:
        steps: jumps from noise to an answer; NFE.
        instant: share of the rows that are trained at s = t, as flow matching.
    """

    name: ClassVar[str] = "mean_flow"
    abilities: ClassVar[Abilities] = Abilities()

    def __init__(self, *, steps: int = 1, instant: float = 0.5) -> None:
        super().__init__()
        self.steps = check_number("steps", steps, 1, 100_000, integer=True)
        self.instant = check_number("instant", instant, 0.0, 1.0)

    def assemble(
        self,
        y_space: ArraySpace,
        x_space: Space,
        *,
        width: int | None,
        depth: int | None,
        network: NetworkFactory | None,
    ) -> None:
        """Make `encoder`, `network`, and the embedding of the time to jump."""
        super().assemble(y_space, x_space, width=width, depth=depth, network=network)
        self.span = TimeEmbedding(sizes_for(y_space, width, depth)[0], fastest=4.0)

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        return self.steps

    def average(self, y_t: Tensor, t: Tensor, s: Tensor, embedding: Any) -> Tensor:
        """Return the average velocity from times t to times s, both (batch,), at y_t (batch, *event)."""
        return self.network(y_t, t, embedding + self.span(s - t))

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of the compound velocity of each row, averaged over the event, (batch,)."""
        rows = len(y)
        noise = normal(tuple(y.shape), generator, like=y)
        ends = torch.stack([stratified(rows, generator, like=y), uniform((rows,), generator, like=y)])
        t, s = ends.amin(dim=0), ends.amax(dim=0)
        s = torch.where(uniform((rows,), generator, like=y) < self.instant, t, s)
        y_t, velocity = get_path("linear").interpolate(y, noise, t)
        embedding = self.encode(x)
        with torch.no_grad():
            tangent = self.average(y_t, t, t, embedding)
        _forward_derivatives()
        with sdpa_kernel(SDPBackend.MATH):  # the others have no forward derivative
            both: Any = torch.func.jvp(
                lambda state, time: self.average(state, time, s, embedding), (y_t, t), (tangent, torch.ones_like(t))
            )
        found, slope = both
        jump = (s - t).reshape(-1, *(1,) * (y.ndim - 1))
        return mean_over_event((found - jump * slope.detach() - velocity).square())

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): noise, moved in `steps` jumps."""
        rows, like = self._rows(embedding)
        y = normal((rows, *self.event), generator, like=like)
        times = time_grid(self.steps).tolist()
        for start, end in pairwise(times):
            t, s = (like.new_full((1,), at).expand(rows) for at in (start, end))
            y = y + (end - start) * self.average(y, t, s, embedding)
        return y
