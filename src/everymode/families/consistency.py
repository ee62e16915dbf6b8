"""Consistency models in continuous time: from anywhere on the way, the answer at its end.

f(y_t, t) = y_t + (1 - t) u(y_t, t) is to be the same all along a way of the flow, so that df/dt = 0, which is

    u = v + (1 - t) du/dt,        du/dt = (d/dt + v . d/dy) u.

The right-hand side, held, is regressed on. It is linear in v: in its place stands the velocity of a pair of y and
noise, whose mean given y_t is v, or the teacher's (distillation), which spares the variance. One jump goes to the end
of the way; with more, noise is put back on what it found, less each time, and it jumps again.

References:
    Consistency models (Song et al., 2023), https://arxiv.org/abs/2303.01469
    Simplifying, stabilizing and scaling continuous-time consistency models (Lu and Song, 2025),
        https://arxiv.org/abs/2410.11081

Fails: without a teacher, the velocity of one pair in place of the mean makes for a noisy derivative; with one jump from
noise, answers far apart are bridged.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from everymode.families.flow_map import FlowMap
from everymode.families.times import draw_times
from everymode.randomness import Source, normal
from everymode.spaces import Condition

__all__ = ["Consistency"]


class Consistency(FlowMap):
    """A consistency model, trained in continuous time.

    Args:
        steps: jumps; NFE.
    """

    name: ClassVar[str] = "consistency"

    def __init__(self, *, steps: int = 1) -> None:
        super().__init__(steps=steps)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of the compound velocity of each row, averaged over the event, (batch,)."""
        noise = normal(tuple(y.shape), generator, like=y)
        t = draw_times("uniform", self.path, len(y), generator, like=y)
        y_t, told = self.path.interpolate(y, noise, t)
        wanted = self._flowing(y_t, t, x, told)
        found, change = self._along(y_t, t, torch.ones_like(t), self.encode(x), wanted)
        return self._error(found - change.detach(), wanted)

    def _jumped(self, y: Tensor, start: float, end: float, embedding: Any, generator: Source) -> Tensor:
        """Return the answers to the states at `start`, with the noise of time `end` put back on them."""
        answers = super()._jumped(y, start, 1.0, embedding, generator)
        if end == 1:
            return answers
        s = y.new_full((1,), end).expand(len(y))
        return self.path.interpolate(answers, normal(tuple(y.shape), generator, like=y), s)[0]
