"""An energy-based model: log p(y | x) = -E(y, x) - log Z(x), learned without ever knowing Z.

Two losses with one minimum, E = -log p + c(x), are added. Implicit behavioural cloning's InfoNCE tells the true y from
`negatives` drawn evenly over the range of the data,

    -log exp(-E(y)) / (exp(-E(y)) + sum_j exp(-E(negative_j))),

which weighs distant modes against one another. Conditional noise-contrastive estimation tells y from `neighbours`
y + s noise of a symmetric kernel, log(1 + exp(E(y) - E(neighbour))), which makes each mode sharp, in as many
dimensions as there are. Half of every batch is blurred by N(0, level(t)^2), with level falling from `wide` to `fine`
as t goes from 0 to 1, and the network is told t: annealed Langevin needs that. At t = 1 nothing is blurred.

Samplers ('auto' is 'derivative_free' for up to 16 values, of which even draws still find every mode, and
'annealed_langevin' above):
- 'derivative_free': `candidates` drawn evenly, one taken by its weight exp(-E), then a Metropolis walk of shrinking
  steps. Implicit behavioural cloning resamples again and again by exp(-E) and takes the best: that favours likely
  modes; this walk keeps p.
- 'langevin': from an even draw, with falling step sizes (implicit behavioural cloning's other sampler). It stays in
  the mode whose slope it starts on, whatever that mode's probability.
- 'annealed_langevin': from wide noise through the blurred energies to the sharp one (Song and Ermon, 2019).

References:
    Implicit behavioral cloning (Florence et al., 2021), https://arxiv.org/abs/2109.00137
    Conditional noise-contrastive estimation of unnormalised models (Ceylan and Gutmann, 2018),
        https://arxiv.org/abs/1806.03664
    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
        https://arxiv.org/abs/1907.05600

Fails: draws are dear, and no better than the chain is long; in many dimensions even negatives say nothing, and the
probabilities of the modes rest on the blurred energies alone.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from everymode.errors import SettingError, check_choice, check_number
from everymode.families.base import Abilities, Family, copied, outside_inference
from everymode.langevin import annealed_langevin, geometric_levels, langevin
from everymode.networks import Sizes
from everymode.randomness import Source, normal, stratified, uniform
from everymode.spaces import FEW_VALUES, ArraySpace, Condition, Space, repeat_rows

__all__ = ["Energy"]

SAMPLERS = ("auto", "annealed_langevin", "derivative_free", "langevin")
_AT_ONCE = 8  # candidates that are weighed in one pass: memory stays bounded however many there are
_MARGIN = 0.1  # of the range, on either side
_LEVELS = 12
_ANNEALED_STEP = 0.1  # in squared levels
_CENTRE = 1e-4


class Energy(Family):
    """Implicit behavioural cloning, with the energies of blurred answers for annealing.

    Args:
        negatives: draws over the range of y that each y is told from.
        neighbours: draws near y that it is told from.
        wide: the widest blur, in standard deviations of y.
        fine: the finest blur, and the finest step of a walk.
        sampler: 'auto', 'annealed_langevin', 'derivative_free' or 'langevin'.
        candidates: of 'derivative_free'.
        steps: of the walk or the chain, in all.
    """

    name: ClassVar[str] = "energy"
    batch_share: ClassVar[float] = 0.25
    abilities: ClassVar[Abilities] = Abilities()

    low: Tensor
    high: Tensor

    def __init__(
        self,
        *,
        negatives: int = 8,
        neighbours: int = 4,
        wide: float = 2.0,
        fine: float = 0.02,
        sampler: str = "auto",
        candidates: int = 128,
        steps: int = 96,
    ) -> None:
        super().__init__()
        self.negatives = check_number("negatives", negatives, 1, 65_536, integer=True)
        self.neighbours = check_number("neighbours", neighbours, 1, 65_536, integer=True)
        self.wide = check_number("wide", wide, 0.0, exclusive_low=True)
        self.fine = check_number("fine", fine, 0.0, exclusive_low=True)
        if not self.fine < self.wide:
            raise SettingError(f"fine={fine} must be less than wide={wide}.")
        self.sampler = check_choice("sampler", sampler, SAMPLERS)
        self.candidates = check_number("candidates", candidates, 2, 1_000_000, integer=True)
        self.steps = check_number("steps", steps, 1, 1_000_000, integer=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the modules, and the range of the data that `prepare` fills in."""
        super().assemble(y_space, x_space, sizes)
        self.register_buffer("low", -torch.ones(y_space.shape))
        self.register_buffer("high", torch.ones(y_space.shape))

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Note the range of each value of y, without its rarest ends."""
        ordered = y.sort(dim=0).values
        cut = len(y) // 500
        low, high = ordered[cut], ordered[len(y) - 1 - cut]
        room = _MARGIN * (high - low) + self.fine
        self.low.copy_(low - room)
        self.high.copy_(high + room)

    @property
    def _sampler(self) -> str:
        if self.sampler != "auto":
            return self.sampler
        return "derivative_free" if self.low.numel() <= FEW_VALUES else "annealed_langevin"

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw; those of a gradient count as one."""
        if self._sampler == "derivative_free":
            return self.candidates + self.steps
        return self.steps if self._sampler == "langevin" else _LEVELS * max(1, self.steps // _LEVELS)

    # The energy ----------------------------------------------------------------------------------------------------

    def energy(self, y: Tensor, t: Tensor, embedding: Any) -> Tensor:
        """Return E(y, x) of y blurred as at times t (batch,): (batch,), in nats, up to a constant of x and t."""
        return self.network(y, t, embedding).flatten(1).sum(dim=1)

    def level(self, t: Tensor) -> Tensor:
        """Return the standard deviation of the blur at times t, in the shape of t; 0 at t = 1."""
        levels = self.wide * torch.exp(math.log(self.fine / self.wide) * t)
        return torch.where(t < 1, levels, torch.zeros_like(t))

    def _box(self, level: Tensor, shape: tuple[int, ...], source: Source) -> Tensor:
        """Return draws of `shape` (batch, n, *event), even over the range of data blurred by `level` (batch,)."""
        room = 2 * level.reshape(-1, *(1,) * (len(shape) - 1))
        low, high = self.low - room, self.high + room
        return low + (high - low) * uniform(shape, source, like=self.low)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return InfoNCE plus conditional noise-contrastive estimation of each row, (batch,), in nats."""
        rows, event, axes = len(y), y.shape[1:], (1,) * (y.ndim - 1)
        t = (2 * stratified(rows, generator, like=y)).clamp(max=1.0)
        level = self.level(t)
        y_t = y + level.reshape(-1, *axes) * normal(tuple(y.shape), generator, like=y)
        others = self._box(level, (rows, self.negatives, *event), generator)
        finest, widest = math.log(self.fine), math.log(self.wide)
        reach = torch.exp(finest + (widest - finest) * uniform((rows, self.neighbours), generator, like=y))
        near = normal((rows, self.neighbours, *event), generator, like=y)
        near = y_t[:, None] + reach.reshape(rows, -1, *axes) / math.sqrt(event.numel()) * near
        count = 1 + self.negatives + self.neighbours
        points = torch.cat([y_t[:, None], others, near], dim=1).flatten(0, 1)
        embedding = repeat_rows(self.encode(x), count)
        energies = self.energy(points, t.repeat_interleave(count), embedding).reshape(rows, count)
        real, far, close = energies.split((1, self.negatives, self.neighbours), dim=1)
        told = torch.cat([real, far], dim=1).neg().logsumexp(dim=1) + real[:, 0]
        # both losses leave a constant of x free: the last term holds it near 0
        return told + functional.softplus(real - close).mean(dim=1) + _CENTRE * real[:, 0].square()

    # Draws ---------------------------------------------------------------------------------------------------------

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event), by the `sampler`."""
        if self._sampler == "derivative_free":
            return self._derivative_free(embedding, generator)
        rows, like = self._rows(embedding)
        shape = (rows, *self.event)
        with outside_inference():  # a chain needs gradients in y
            slope = self._slope(copied(embedding))
            if self._sampler == "langevin":
                start = self._box(like.new_zeros(rows), (rows, 1, *self.event), generator)[:, 0]
                falling = torch.linspace(1, 0, self.steps + 1)[:-1].square()
                sizes = (self.fine**2 + (self.wide**2 / 16 - self.fine**2) * falling).tolist()
                chain = langevin(
                    slope, start, steps=self.steps, step_size=sizes, generator=generator, project=self._inside
                )
            else:
                start = math.hypot(1.0, self.wide) * normal(shape, generator, like=like)
                chain = annealed_langevin(
                    slope,
                    start,
                    levels=geometric_levels(self.wide, self.fine, _LEVELS),
                    steps=max(1, self.steps // _LEVELS),
                    step_size=_ANNEALED_STEP,
                    generator=generator,
                )
            y = start
            for y in chain:  # noqa: B007
                pass
        return y

    def _inside(self, y: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(y, self.high), self.low)

    def _slope(self, embedding: Any) -> Any:
        """Return the score, (y (batch, *event), level or None) -> (batch, *event)."""

        def score(y: Tensor, level: Tensor | None) -> Tensor:
            t = y.new_ones(len(y))
            if level is not None:
                t = t * (math.log(float(level) / self.wide) / math.log(self.fine / self.wide))
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                return -torch.autograd.grad(self.energy(y, t, embedding).sum(), y)[0]

        return score

    def _derivative_free(self, embedding: Any, generator: Source) -> Tensor:
        rows, like = self._rows(embedding)
        sharp = like.new_ones(rows)
        y, energy = like.new_zeros(rows, *self.event), like.new_zeros(rows)
        best = like.new_full((rows,), -math.inf)
        for start in range(0, self.candidates, _AT_ONCE):  # the largest of -E + Gumbel noise: a draw by exp(-E)
            count = min(_AT_ONCE, self.candidates - start)
            points = self._box(like.new_zeros(rows), (rows, count, *self.event), generator)
            energies = self.energy(points.flatten(0, 1), like.new_ones(rows * count), repeat_rows(embedding, count))
            energies = energies.reshape(rows, count)
            gumbel = -torch.log(-torch.log(uniform((rows, count), generator, like=like).clamp(1e-20, 1 - 1e-7)))
            top, index = (gumbel - energies).max(dim=1)
            taken = top > best
            chosen = points[torch.arange(rows, device=like.device), index]
            y = torch.where(taken.reshape(-1, *(1,) * len(self.event)), chosen, y)
            energy = torch.where(taken, energies.gather(1, index[:, None])[:, 0], energy)
            best = torch.maximum(best, top)
        for reach in geometric_levels(self.wide / 4, self.fine, max(2, self.steps))[-self.steps :]:
            moved = y + reach * normal(tuple(y.shape), generator, like=y)
            other = self.energy(moved, sharp, embedding)
            taken = uniform((rows,), generator, like=like).log() < energy - other
            y = torch.where(taken.reshape(-1, *(1,) * len(self.event)), moved, y)
            energy = torch.where(taken, other, energy)
        return y
