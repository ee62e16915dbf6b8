"""Gaussian-mixture flow matching: a network that tells all the answers a noisy state may come from, not their mean.

Flow matching predicts E[y | y_t, x], the average of what y may be: far from the data that is the average of the modes,
and only small steps are safe. Here the network tells a Gaussian mixture sum_k w_k N(y; m_k, C_k), which y_t then
sharpens by Bayes' rule,

    p(y | y_t) = sum_k v_k N(y; c_k, D_k),      D_k^-1 = C_k^-1 + alpha^2 / sigma^2,
    c_k = m_k + alpha C_k (alpha^2 C_k + sigma^2)^-1 (y_t - alpha m_k),
    v_k ~ w_k N(y_t; alpha m_k, alpha^2 C_k + sigma^2),

and the loss is -log p(y | y_t, x). C_k = H_k diag(s_k^2) H_k with a reflection H_k = 1 - 2 u_k u_k': one axis of a
component points anywhere, which is what answers along a curve ask for, and all of the above is by elements in between
two reflections. For data that are a mixture, one that knows nothing of y_t and t is right already; for one component it
is the preconditioning of EDM. A step draws y from p(y | y_t) and goes to y_s given both, as exact at any length as the
mixture is: one step is a mixture density network, more of them mend its shape. At t = 0 y_t is noise and tells nothing:
there the network is asked with eight noises that are always the same, and the mixture is the mean of what it tells. Its
density is known, and one asking does for any number of draws of an x.

The mixture starts as that of the training targets, as `mdn` does.

Reference:
    Gaussian mixture flow matching models (Chen et al., 2025), https://arxiv.org/abs/2504.05304: the mixture, its loss
        and steps. There the network tells that of y given y_t, with one scale for all; to tell it before y_t is seen
        and leave the rest to Bayes' rule, and the reflections, are ours

Fails: in one step, on curved or many-dimensional sets of answers, as mixture density networks do; with fewer components
than answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from everymode.errors import check_choice, check_number
from everymode.families.base import Abilities, times_like
from everymode.families.continuous import Continuous
from everymode.families.mdn import starts
from everymode.families.times import draw_times
from everymode.networks import Sizes, default_for
from everymode.paths import LinearPath, Path
from everymode.randomness import Source, categorical, new_generator, normal, uniform
from everymode.solvers import SPACINGS, Sampler, Tableau, get_method, get_solver
from everymode.spaces import FEW_VALUES, ArraySpace, Condition, Space, take_rows

__all__ = ["GMFlow"]

_PATH = LinearPath()
_LEAST_SIGMA = 1e-4
_LEAST = 1e-12  # squared length of an axis
_NOISES = 8  # that the mixture at t = 0 is a mean over
_PART = 512  # rows whose components are told at once: they stay in a processor's cache
_AT_ONCE = 1 << 22  # numbers of a mixture: memory stays bounded
_STEERED = 16  # steps of steered draws
_LARGEST_LOG_SCALE = 5.0


class GMFlow(Continuous):
    """Flow matching with a Gaussian mixture in the place of the mean.

    Args:
        components: number of components; take as many as one x has answers, or more.
        solver: 'mixture' draws from the mixture at each step; any solver or sampler of `flow_matching` takes its mean.
        least_scale: floor of the standard deviations, in those of y.
        steps: number of steps for a draw; NFE, times the stages of a solver. Densities are those of one step.
    """

    name: ClassVar[str] = "gm_flow"
    abilities: ClassVar[Abilities] = Abilities(
        own_network=False, density=True, velocity=True, trajectory=True, steered=True
    )
    methods: ClassVar[tuple[str, ...]] = ("mixture", *Continuous.methods)
    drop: float = 0.0
    guidance: float = 1.0
    spacing: str = "auto"

    logits: Tensor  # (components,); this and what follows is the mixture at the start
    means: Tensor  # (components, *event)
    log_scales: Tensor  # (components, *event)

    def __init__(
        self, *, components: int = 64, solver: str = "mixture", least_scale: float = 1e-3, steps: int = 4
    ) -> None:
        super().__init__()
        self.components = check_number("components", components, 1, 4096, integer=True)
        self.solver = check_choice("solver", solver, self.methods)
        self.least_scale = check_number("least_scale", least_scale, 1e-6, 1)
        self.steps = check_number("steps", steps, 1, 100_000, integer=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the encoder, and the network of means, scales, axes and weights."""
        k = self.components
        self.network, self.encoder = default_for(y_space, x_space, sizes, copies=4 * k)
        self.register_buffer("logits", torch.zeros(k))
        self.register_buffer("means", torch.zeros(k, *y_space.shape))
        self.register_buffer("log_scales", torch.zeros(k, *y_space.shape))

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Let the mixture start as one of the targets alone, whatever x is."""
        found = starts(y.flatten(1).cpu().numpy(), self.components, seed, full=False)
        for start, values in zip((self.logits, self.means, self.log_scales), found, strict=False):
            start.copy_(torch.from_numpy(values).reshape(start.shape))

    @property
    def _path(self) -> Path:
        return _PATH

    @property
    def _method(self) -> Tableau | Sampler:
        return get_method(self.solver, prefer="solver")

    @property
    def _times(self) -> Tensor:
        even = self.solver == "mixture" or isinstance(self._method, Tableau)
        return SPACINGS["uniform" if even else "karras"](_PATH, self.steps)

    @property
    def _steering(self) -> tuple[Tableau | Sampler, Tensor]:
        if self.solver != "mixture":
            return super()._steering
        return get_solver("midpoint"), SPACINGS["uniform"](_PATH, _STEERED)  # a mean is steered, not a mixture

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        return self.steps if self.solver == "mixture" else self._method.evaluations(self.steps)

    # The mixture ---------------------------------------------------------------------------------------------------

    def mixture(self, y_t: Tensor, t: Tensor, embedding: Any) -> dict[str, Tensor]:
        """Return what y may be, given y_t (batch, *event) at t (batch,).

        Returns:
            `log_weights` (batch, k), `means` (batch, d, k), `scales` (batch, d, k) along the reflected axes, the
            reflections' `axes` (batch, d, k), and `noises` (batch, d, k), what is then left of y_t as noise.
        """
        told = self._told(y_t, t, embedding)
        means, scales, axes = self._components(told.transpose(2, 3).contiguous(), *self._initial())
        a, s = _signal(t, means)
        away = _reflected(y_t.flatten(1)[:, :, None].float() - a * means, axes)
        total = (a * scales).square() + s.square()  # variance of y_t under each component
        evidence = -0.5 * (away.square() / total + total.log()).sum(dim=1)
        return {
            "log_weights": (self._log_weights(told) + evidence).log_softmax(dim=1),
            "means": means + _reflected(a * scales.square() / total * away, axes),
            "scales": s * scales * total.rsqrt(),
            "axes": axes,
            "noises": s * _reflected(away / total, axes),
        }

    def _told(self, y_t: Tensor, t: Tensor, embedding: Any) -> Tensor:
        """Return what the network tells of means, scales, weights and axes, (batch, 4, k, d)."""
        shrink, _, _ = _PATH.preconditioning(t, y_t)
        return self.network(shrink * y_t, t, embedding).float().unflatten(1, (4, self.components)).flatten(3)

    def _log_weights(self, told: Tensor) -> Tensor:
        """Return log weights before y_t is seen (batch, k), but for a constant of each row."""
        values = told[:, 2]
        few = values.shape[2] <= FEW_VALUES  # the sum over an axis is slow where it is the last and short
        return self.logits + (sum(values.unbind(2)) if few else values.sum(dim=2)) / math.sqrt(values.shape[2])

    def _initial(self) -> tuple[Tensor, Tensor]:
        """Return means and log scales at the start, (d, k) each: loops over the last axis are fast where it is long."""
        return self.means.flatten(1).T.contiguous(), self.log_scales.flatten(1).T.contiguous()

    def _chosen(self, told: Tensor, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return those of one component of each of some rows, (rows, d, 1) each."""
        means, log_scales = (start.flatten(1)[chosen][:, :, None] for start in (self.means, self.log_scales))
        return self._components(told[rows, :, chosen][..., None], means, log_scales)

    def _components(self, told: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales = self.least_scale + (log_scales + told[:, 1]).clamp(max=_LARGEST_LOG_SCALE).exp()
        return means + told[:, 0], scales, _unit(told[:, 3])

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -log p(y | y_t, x) a value, in nats, less that of a unit normal's y; (batch,)."""
        noise = normal(tuple(y.shape), generator, like=y)
        t = draw_times("uniform", _PATH, len(y), generator, like=y)
        y_t, _ = _PATH.interpolate(y, noise, t)
        found = self.mixture(y_t, t, self.encode(x))
        a, s = _signal(t, found["means"])
        usual = s * (a.square() + s.square()).rsqrt()
        return -_log_likelihood(y, found, usual) / found["means"].shape[1]

    # A flow --------------------------------------------------------------------------------------------------------

    def data(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return E[y | y_t, x] for an embedding of x, (batch, *event)."""
        return self._means(y_t, t, embedding)[0]

    def field(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return the velocity at (y_t, t) for an embedding of x, (batch, *event)."""
        data, noise = self._means(y_t, t, embedding)
        _, _, da, ds = _PATH.coefficients(times_like(t, y_t), y_t)
        return da * data + ds * noise

    def _means(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> tuple[Tensor, Tensor]:
        """Return E[y | y_t, x] and E[noise | y_t, x], (batch, *event) each."""
        found = self.mixture(y_t, times_like(t, y_t), embedding)
        weights = found["log_weights"].exp()[:, None]
        data, noise = ((weights * found[key]).sum(dim=2).unflatten(1, self.event) for key in ("means", "noises"))
        return data.to(y_t), noise.to(y_t)

    def log_prob_and_error(self, y: Tensor, x: Condition, **settings: Any) -> tuple[Tensor, Tensor]:
        """Return log p(y | x) of standardised y for draws in one step, exactly, and 0 for its error; (batch,), in nats.

        Args:
            y: answers (batch, *event), standardised.
            x: conditions, rows first, standardised.
            **settings: none.
        """
        noises = self._noises(y)
        chunk, parts = max(1, _AT_ONCE // (self.components * self.means[0].numel())), []
        for start in range(0, len(y), chunk):
            rows = slice(start, start + chunk)
            embedding, t = self.encode(take_rows(x, rows)), y.new_zeros(len(y[rows]))
            told = (self.mixture(noise.expand_as(y[rows]), t, embedding) for noise in noises)
            parts.append(torch.stack([_log_likelihood(y[rows], found, 1.0) for found in told]))
        found = torch.cat(parts, dim=1) if parts else y.new_zeros(_NOISES, 0)
        log_prob = found.logsumexp(dim=0) - math.log(_NOISES) - 0.5 * math.log(2 * math.pi) * math.prod(self.event)
        return log_prob, torch.zeros_like(log_prob)

    def _states(self, embedding: Any, times: Tensor, generator: Source) -> Iterator[tuple[float, Tensor]]:
        if self.solver != "mixture":
            yield from super()._states(embedding, times, generator)
            return
        rows, like = self._rows(embedding)
        y_t, ends = normal((rows, *self.event), generator, like=like), times.tolist()
        yield ends[0], y_t
        for start, end in pairwise(ends):
            if start == 0:
                y = self._first(rows, embedding, generator, like)
            else:
                y = self._drawn(y_t, like.new_full((1,), start).expand(rows), embedding, generator)
            y = y.to(like)
            y_t = y if end >= 1 else self._between(y, y_t, start, end, generator)
            yield end, y_t

    def _noises(self, like: Tensor) -> Tensor:
        """Return the noise that the network is asked with where y_t is noise and tells nothing, (8, *event)."""
        return normal((_NOISES, *self.event), new_generator(0), like=like)

    def _first(self, rows: int, embedding: Any, generator: Source, like: Tensor) -> Tensor:
        """Return one y a row, (batch, *event), of the mixture at t = 0, asked for once where all rows are of one x."""
        noises, which = self._noises(like), (uniform((rows,), generator, like=like) * _NOISES).long()
        alone = embedding.stride(0) == 0 and rows > _NOISES
        asked = torch.arange(_NOISES, device=like.device) if alone else which
        told = self._told(noises[asked], like.new_zeros(1).expand(len(asked)), embedding[: len(asked)])
        at = which if alone else torch.arange(rows, device=like.device)
        mean, scale, axis = self._chosen(told, at, categorical(self._log_weights(told)[at], generator))
        away = _reflected(scale * normal(tuple(scale.shape), generator, like=scale), axis)
        return (mean + away)[:, :, 0].unflatten(1, self.event)

    def _drawn(self, y_t: Tensor, t: Tensor, embedding: Any, generator: Source) -> Tensor:
        """Return one y a row, (batch, *event), given y_t at t (batch,), one time for all."""
        told = self._told(y_t, t, embedding)
        a, s = (float(part) for part in _signal(t[:1], t[:1]))
        y_t = y_t.flatten(1)[:, :, None].float()
        parts = zip(told.split(_PART), y_t.split(_PART), strict=True)
        evidence = torch.cat([self._evidence(some, state, a, s) for some, state in parts])
        chosen = categorical(self._log_weights(told) + evidence, generator)
        mean, scale, axis = self._chosen(told, torch.arange(len(told), device=told.device), chosen)
        total = (a * scale).square() + s**2
        shift = a * scale.square() / total * _reflected(y_t - a * mean, axis)
        spread = s * scale * total.rsqrt() * normal(tuple(scale.shape), generator, like=scale)
        return (mean + _reflected(shift + spread, axis))[:, :, 0].unflatten(1, self.event)

    @torch.no_grad()
    def _evidence(self, told: Tensor, y_t: Tensor, a: float, s: float) -> Tensor:
        """Return log N(y_t; a m_k, a^2 C_k + s^2) of each component (batch, k), in nats, without the constant.

        As `mixture` has it, but in one copy of what was told: fresh memory takes longer than all the sums.
        """
        away, total, _, axis = told.transpose(2, 3).clone(memory_format=torch.contiguous_format).unbind(1)
        means, log_scales = self._initial()
        away.add_(means).mul_(-a).add_(y_t)
        total.add_(log_scales).clamp_(max=_LARGEST_LOG_SCALE).exp_().add_(self.least_scale)
        total.mul_(a).square_().add_(s**2)
        axis[:, 0].add_(1)
        along = (away * axis).sum(dim=1, keepdim=True).div_(axis.square().sum(dim=1, keepdim=True).clamp_min_(_LEAST))
        away.addcmul_(axis, along, value=-2).square_().div_(total).add_(total.log_())
        return away.sum(dim=1).mul_(-0.5)

    @staticmethod
    def _between(y: Tensor, y_t: Tensor, start: float, end: float, generator: Source) -> Tensor:
        """Return y_s at time `end`, given y_t at `start` and the y that both are of, as noising y would have it."""
        kept = start * (1 - end) / (end * (1 - start))  # of the noise in y_t
        noise = (y_t - start * y) / (1 - start)
        fresh = normal(tuple(y.shape), generator, like=y)
        return end * y + (1 - end) * (kept * noise + math.sqrt(1 - kept**2) * fresh)


def _signal(t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma at t (batch,), shaped to multiply `like`; sigma is held above 0."""
    a, s, _, _ = _PATH.coefficients(t, like)
    return a, s.clamp_min(_LEAST_SIGMA)


def _log_likelihood(y: Tensor, mixture: dict[str, Tensor], unit: Tensor | float) -> Tensor:
    """Return log p(y) under a mixture (batch,), in nats and units of y, without the constant of a normal."""
    away = _reflected(y.flatten(1)[:, :, None] - mixture["means"], mixture["axes"]) / mixture["scales"]
    log_prob = -0.5 * away.square().sum(dim=1) - (mixture["scales"] / unit).log().sum(dim=1)
    return (mixture["log_weights"] + log_prob).logsumexp(dim=1)


def _unit(told: Tensor) -> Tensor:
    """Return unit vectors, the columns of (batch, d, k): the first axis where nothing is told."""
    axes = told + torch.eye(told.shape[1], 1, device=told.device)
    return axes * axes.square().sum(dim=1, keepdim=True).clamp_min(_LEAST).rsqrt()


def _reflected(v: Tensor, axis: Tensor) -> Tensor:
    """Return the columns of v (batch, d, k) reflected along unit vectors, the columns of (batch, d, k)."""
    return v - 2 * (v * axis).sum(dim=1, keepdim=True) * axis
