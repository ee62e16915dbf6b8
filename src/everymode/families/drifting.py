"""Drifting: a generator of one step whose draws are moved, in training, towards the data and away from each other.

The draws q of the network drift by a field that is 0 where they are spread as the data p are,

    V(y) = sum over data of weights (y_data - y) - sum over other draws of weights (y_draw - y),

and the loss is the squared distance of a draw to where it drifts, held. The weights are of the kernel
exp(-|y - y'| / h), normalised over the draws and over what moves them, and each side's by how much of the other's there
is, so that at p = q the two pulls cancel exactly. A small h tells near modes apart, a large one reaches far ones: the
fields of several are added, each scaled to a mean square of 1.

What moves a draw has to be of the same x, and there is one y for most x. So every row of a batch has several draws,
which repel each other, and beside its own y those of rows whose x is near: `neighbours` of all training rows, drawn
without repetition by exp(-|x - x'|^2 / 2 b^2), where no label differs. b is how far the so-many-th neighbour is: more
of them are more answers to learn from, and more of a blur in x.

Reference:
    Generative modeling via drifting (Deng et al., 2026), https://arxiv.org/abs/2602.04770; the kernel on x is ours

Fails: where the modes move with x by much within b; with many dimensions, where all are about as far apart as any; with
fewer draws and neighbours than it takes to have several for every mode.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from everymode.couplings import condition_distances
from everymode.errors import check_number
from everymode.families.base import Abilities, Family
from everymode.randomness import Source, normal, uniform
from everymode.spaces import Condition, count_rows, place, repeat_rows, take_rows

__all__ = ["Drifting"]

_SCALES = (0.02, 0.05, 0.2)  # h, in root mean squares of standardised answers
_NEVER = 1e6  # of a kernel's logarithm; finite, where a row has no other
_KNOWN = 20_000  # rows in which neighbours are looked for, at most


class Drifting(Family):
    """A drifting model.

    Args:
        draws: draws for each row of a batch.
        neighbours: answers that attract them, of rows whose x is near.
    """

    name: ClassVar[str] = "drifting"
    abilities: ClassVar[Abilities] = Abilities()
    batch_share: ClassVar[float] = 0.125
    judged_by_draws: ClassVar[bool] = True  # its loss stays as it is

    def __init__(self, *, draws: int = 16, neighbours: int = 32) -> None:
        super().__init__()
        self.draws = check_number("draws", draws, 2, 100_000, integer=True)
        self.neighbours = check_number("neighbours", neighbours, 1, 100_000, integer=True)

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Keep the rows among which neighbours are looked for."""
        self._known = y[:_KNOWN], take_rows(x, slice(0, _KNOWN))

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event), of noise in one step."""
        rows, like = self._rows(embedding)
        noise = normal((rows, *self.event), generator, like=like)
        return noise + self.network(noise, like.new_zeros(1).expand(rows), embedding)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared distance of each row's draws to where they drift, averaged over draws and event."""
        rows = len(y)
        drawn = self.draw(repeat_rows(self.encode(x), self.draws), generator=generator)
        drawn = drawn.reshape(rows, self.draws, -1).float()
        with torch.no_grad():
            data = torch.cat([y.flatten(1)[:, None].float(), self._near(x, generator, like=y)], dim=1)
            wanted = drawn + drift(drawn, data)
        return (drawn - wanted).square().mean(dim=(1, 2))

    def _near(self, x: Condition, generator: Source, *, like: Tensor) -> Tensor:
        """Return answers of rows whose x is near, (batch, neighbours, d)."""
        answers, known = self._known
        many = min(self.neighbours, len(answers))
        apart, differs = condition_distances(x, place(known, like.device))
        apart = apart + _NEVER * differs
        width = apart.kthvalue(many, dim=1, keepdim=True).values.clamp_min(1e-12)
        chance = uniform((count_rows(x), len(answers)), generator, like=like).clamp(1e-9, 1 - 1e-7)
        chosen = (-0.5 * apart / width - (-chance.log()).log()).topk(many, dim=1).indices  # Gumbel's trick
        return answers.flatten(1).to(like.device)[chosen].float()


def drift(drawn: Tensor, data: Tensor) -> Tensor:
    """Return the drift of draws.

    Args:
        drawn: draws of the model for each row, (batch, n, d).
        data: answers for each row, (batch, m, d).

    Returns:
        (batch, n, d); the field of each scale has a mean square of 1 in every row.
    """
    n, size = drawn.shape[1:]
    to_drawn = torch.cdist(drawn, drawn) + _NEVER * torch.eye(n, device=drawn.device)
    both = torch.cat([torch.cdist(drawn, data), to_drawn], dim=2) / math.sqrt(size)
    total = torch.zeros_like(drawn)
    for scale in _SCALES:
        logits = -both / scale
        weights = (0.5 * (logits.log_softmax(dim=2) + logits.log_softmax(dim=1))).exp()
        pull, push = weights.split((data.shape[1], n), dim=2)
        pulled, pushed = pull * push.sum(dim=2, keepdim=True), push * pull.sum(dim=2, keepdim=True)
        field = pulled @ data - pushed @ drawn
        total = total + field / field.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-8)
    return total
