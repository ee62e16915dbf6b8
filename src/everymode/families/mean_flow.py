"""MeanFlow: a network for the average velocity between two times, fitted by its own derivative.

Of the identity v = u - (s - t) du/dt the right-hand side, with the derivative held, is regressed on a velocity whose
mean given y_t is v: that of a pair of y and noise, or the teacher's (the v-loss of improved MeanFlow: what is fitted
does not depend on what is learned, and at s = t it is flow matching). du/dt is one Jacobian-vector product, along the
network's own u(y_t, t, t), which is v as far as it knows.

References:
    Mean flows for one-step generative modeling (Geng et al., 2025), https://arxiv.org/abs/2505.13447
    Improved mean flows: on the challenges of fastforward generative models (Geng et al., 2025),
        https://arxiv.org/abs/2512.02012

Fails: a derivative in time is learned, and with it everything that is rough in time; a step costs three times one of
flow matching; with one jump from noise, answers far apart are bridged where flow matching with many steps parts them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from everymode.errors import check_number
from everymode.families.flow_map import FlowMap
from everymode.families.times import draw_times
from everymode.randomness import Source, normal, stratified, uniform
from everymode.spaces import Condition

__all__ = ["MeanFlow"]


class MeanFlow(FlowMap):
    """Improved MeanFlow.

    Args:
        steps: jumps from noise to an answer; NFE.
        instant: share of the rows that are trained at s = t, as flow matching.
    """

    name: ClassVar[str] = "mean_flow"

    def __init__(self, *, steps: int = 1, instant: float = 0.5) -> None:
        super().__init__(steps=steps)
        self.instant = check_number("instant", instant, 0.0, 1.0)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of the compound velocity of each row, averaged over the event, (batch,)."""
        rows = len(y)
        noise = normal(tuple(y.shape), generator, like=y)
        ends = torch.stack([stratified(rows, generator, like=y), uniform((rows,), generator, like=y)])
        now = uniform((rows,), generator, like=y) < self.instant
        t = torch.where(now, draw_times("auto", self.path, rows, generator, like=y), ends.amin(dim=0))
        s = torch.where(now, t, ends.amax(dim=0))
        y_t, told = self.path.interpolate(y, noise, t)
        embedding = self.encode(x)
        wanted = self._flowing(y_t, t, x, told)
        with torch.no_grad():
            tangent = wanted if self.teacher is not None else self.average(y_t, t, t, embedding)
        found, change = self._along(y_t, t, s, embedding, tangent)
        return self._error(found - change.detach(), wanted)
