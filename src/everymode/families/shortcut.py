"""Shortcut models: a network for jumps of 1, 1/2, 1/4, ... of the way, where a long jump is two of half its length.

A network that is told how far to jump is trained as flow matching for no distance, and for a distance d by itself:

    u(y_t, t, t + d) = 1/2 u(y_t, t, t + d/2) + 1/2 u(y', t + d/2, t + d),    y' = y_t + d/2 u(y_t, t, t + d/2),

the right-hand side held. No derivative is taken, and errors add up over the seven halvings of the way instead.

Reference:
    One step diffusion via shortcut models (Frans et al., 2025), https://arxiv.org/abs/2410.12557

Fails: what the short jumps do not know yet the long ones are taught all the same, so the longest are learned last; with
one jump from noise, answers far apart are bridged.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from everymode.errors import check_number
from everymode.families.flow_map import FlowMap
from everymode.families.times import draw_times
from everymode.randomness import Source, normal, uniform
from everymode.spaces import Condition

__all__ = ["Shortcut"]

_HALVINGS = 7  # the shortest jump that is taught by two others is 1/64; below it, the flow itself


class Shortcut(FlowMap):
    """A shortcut model.

    Args:
        steps: jumps from noise to an answer; NFE. Powers of two are what it was trained for.
        consistent: weight of agreeing with two jumps of half the length, against flow matching.
    """

    name: ClassVar[str] = "shortcut"
    batch_share: ClassVar[float] = 0.5

    def __init__(self, *, steps: int = 1, consistent: float = 0.5) -> None:
        super().__init__(steps=steps)
        self.consistent = check_number("consistent", consistent, 0.0, 1.0)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of the average velocity of each row, averaged over the event, (batch,)."""
        rows = len(y)
        noise = normal(tuple(y.shape), generator, like=y)
        embedding = self.encode(x)
        t = draw_times("auto", self.path, rows, generator, like=y)
        y_t, told = self.path.interpolate(y, noise, t)
        flow = self._error(self.average(y_t, t, t, embedding), self._flowing(y_t, t, x, told))
        length = 0.5 ** (uniform((rows,), generator, like=y) * _HALVINGS).floor()  # 1, 1/2, ..., 1/64
        t = (uniform((rows,), generator, like=y) / length).floor() * length
        y_t, _ = self.path.interpolate(y, noise, t)
        with torch.no_grad():
            two = self._two_jumps(y_t, t, t + length, embedding)
        jump = self._error(self.average(y_t, t, t + length, embedding), two)
        return (1 - self.consistent) * flow + self.consistent * jump

    def _two_jumps(self, y_t: Tensor, t: Tensor, s: Tensor, embedding: Tensor) -> Tensor:
        """Return the average velocity of two jumps that each go half the way, (batch, *event)."""
        shortest = 0.5 ** (_HALVINGS - 1)
        middle = 0.5 * (t + s)
        half = (middle - t).reshape(-1, *(1,) * (y_t.ndim - 1))
        end = torch.where(s - t > shortest, middle, t)  # the shortest are two steps of the flow
        first = self.average(y_t, t, end, embedding)
        end = torch.where(s - t > shortest, s, middle)
        return 0.5 * (first + self.average(y_t + half * first, middle, end, embedding))
