"""Rectified flow, again: a flow trained on the pairs that another flow makes, whose ways are straighter.

A flow takes each noise to one answer. A second one is trained on those very pairs in place of independent ones: through
a point of its ways goes (nearly) one way only, so there is nothing to average, the ways are (nearly) straight, and one
Euler step follows them. Each round makes the pairs of the next. With a teacher the first flow is the teacher.

Times are drawn at both ends more than between, where two-way straightness is decided.

References:
    Flow straight and fast: learning to generate and transfer data with rectified flow (Liu, Gong and Liu, 2023),
        https://arxiv.org/abs/2209.03003
    Improving the training of rectified flows (Lee, Lin and Fanti, 2024), https://arxiv.org/abs/2405.20320: the times

Fails: it is never better than the flow that made its pairs; noise at the border between two answers is still bridged,
the less the sharper the network.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from everymode.errors import check_number
from everymode.families.base import Abilities, Part, energy_score
from everymode.families.continuous import carried
from everymode.families.flow_matching import FlowMatching
from everymode.networks import Sizes
from everymode.randomness import Source, mix, new_generator, normal, stratified, uniform
from everymode.solvers import SAMPLERS
from everymode.spaces import ArraySpace, Condition, Space, count_rows, place, take_rows

__all__ = ["Reflow"]

_PAIRS, _PAIRS_A_ROW = 20_000, 20  # that a round is trained on, at most; at least one a row
_VALUES = 4_000_000  # of y in all pairs, at most
_AT_ONCE = 4096
_STEEPNESS = 4.0  # of the density of times: cosh(4 (t - 1/2))


class Reflow(FlowMatching):
    """Rectified flow of two or more rounds.

    Args:
        rounds: how often a flow is trained on the pairs of the one before.
        solver: as of `flow_matching`, but for those that add noise: the flow of given pairs has no score.
        steps: number of solver steps for a draw; NFE = steps times the solver's stages.
    """

    name: ClassVar[str] = "reflow"
    abilities: ClassVar[Abilities] = Abilities(density=True, velocity=True, trajectory=True)  # no score to steer by
    methods: ClassVar[tuple[str, ...]] = tuple(
        name for name in FlowMatching.methods if not (name in SAMPLERS and SAMPLERS[name].noisy)
    )

    def __init__(self, *, rounds: int = 1, solver: str = "euler", steps: int = 1) -> None:
        super().__init__(solver=solver, steps=steps)
        self.rounds = check_number("rounds", rounds, 1, 16, integer=True)

    def settings(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return self.get_params()

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the flows of all rounds; this family's own `encoder` and `network` are those of the last."""
        super().assemble(y_space, x_space, sizes)
        self.earlier = nn.ModuleList()
        for _ in range(self.rounds):
            flow = FlowMatching()
            flow.y_space, flow.x_space = y_space, x_space
            flow.assemble(y_space, x_space, sizes)
            self.earlier.append(flow)

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Keep the conditions: pairs are made for them."""
        self._x, self._seed = place(x, y.device), seed
        self._pairs: tuple[int, Tensor, Tensor, Condition] | None = None

    def parts(self) -> list[Part]:
        """Return the flows, one a stage; without the first, where there is a teacher."""
        first: Any = self.earlier[0]
        parts = [Part("flow", first, first.loss)] if self.teacher is None else []
        own = nn.ModuleList([self.encoder, self.network])
        for index, module in enumerate([*self.earlier[1:], own], start=1):
            flow: Any = self if module is own else module
            judge = partial(energy_score, flow)
            loss = partial(self._straight, index)
            parts.append(Part(f"round_{index}", module, loss, stage=index, judge=judge, given=False))
        return parts

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of the (scaled) velocity of the last round on as many pairs as rows, (batch,)."""
        return self._straight(self.rounds, y, x, generator=generator)

    def _straight(self, index: int, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of round `index` on as many of its pairs as there are rows, (batch,)."""
        rows = len(y)
        noise, answers, conditions = self._pairs_of(index, like=y)
        chosen = (uniform((rows,), generator, like=y) * len(noise)).long().clamp(max=len(noise) - 1)
        spread = (2 * stratified(rows, generator, like=y) - 1) * math.sinh(_STEEPNESS / 2)
        t = (0.5 + spread.asinh() / _STEEPNESS).clamp(0.0, 1.0)
        flow: Any = self if index == self.rounds else self.earlier[index]
        return flow.error(noise[chosen], answers[chosen], t, flow.encode(take_rows(conditions, chosen)))

    def _pairs_of(self, index: int, *, like: Tensor) -> tuple[Tensor, Tensor, Condition]:
        """Return the noise, the answers and the conditions of a round's pairs, (pairs, ...), made when first asked."""
        if self._pairs is None or self._pairs[0] != index:
            before: Any = self.earlier[index - 1]
            if index == 1 and self.teacher is not None:
                before = self.teacher
            rows = count_rows(self._x)
            most = max(rows, min(_PAIRS, _PAIRS_A_ROW * rows, _VALUES // max(1, math.prod(self.event))))
            asked = torch.arange(most, device=like.device) % rows
            generator = new_generator(mix(self._seed, index), like.device)
            noise, answers = [], []
            with torch.no_grad():
                for part in asked.split(_AT_ONCE):
                    start = normal((len(part), *self.event), generator, like=like)
                    embedding = before.encode(take_rows(self._x, part))
                    noise.append(start)
                    answers.append(carried(before, start, embedding))
            self._pairs = (index, torch.cat(noise), torch.cat(answers), take_rows(self._x, asked))
        return self._pairs[1:]
