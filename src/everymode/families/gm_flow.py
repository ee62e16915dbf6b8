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
mixture is: one step is a mixture density network, more of them mend its shape.

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
from everymode.randomness import Source, categorical, new_generator, normal
from everymode.solvers import SPACINGS, Sampler, Tableau, get_method, get_solver
from everymode.spaces import ArraySpace, Condition, Space, take_rows

__all__ = ["GMFlow"]

_PATH = LinearPath()
_LEAST_SIGMA = 1e-4
_NOISES = 8  # that a density is a mean over
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
            `log_weights` (batch, k), `means` (batch, k, d), `scales` (batch, k, d) along the reflected axes, the
            reflections' `axes` (batch, k, d), and `noises` (batch, k, d), what is then left of y_t as noise.
        """
        shrink, _, _ = _PATH.preconditioning(t, y_t)
        told = self.network(shrink * y_t, t, embedding).float().unflatten(1, (4, self.components))
        means, log_scales = (self.means + told[:, 0]).flatten(2), (self.log_scales + told[:, 1]).flatten(2)
        log_weights = self.logits + told[:, 2].flatten(2).sum(dim=2) / math.sqrt(means.shape[2])
        axes = _unit(told[:, 3].flatten(2))
        spread = (self.least_scale + log_scales.clamp(max=_LARGEST_LOG_SCALE).exp()).square()
        a, s, _, _ = _PATH.coefficients(t, means)
        s = s.clamp_min(_LEAST_SIGMA)
        total = a.square() * spread + s.square()  # variance of y_t under each component
        away = _reflected(y_t.flatten(1)[:, None].float() - a * means, axes)
        evidence = -0.5 * (away.square() / total + total.log()).sum(dim=2)
        return {
            "log_weights": (log_weights.log_softmax(dim=1) + evidence).log_softmax(dim=1),
            "means": means + _reflected(a * spread / total * away, axes),
            "scales": s * (spread / total).sqrt(),
            "axes": axes,
            "noises": s * _reflected(away / total, axes),
        }

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -log p(y | y_t, x) a value, in nats, less that of a unit normal's y; (batch,)."""
        noise = normal(tuple(y.shape), generator, like=y)
        t = draw_times("uniform", _PATH, len(y), generator, like=y)
        y_t, _ = _PATH.interpolate(y, noise, t)
        found = self.mixture(y_t, t, self.encode(x))
        a, s, _, _ = _PATH.coefficients(t, found["means"])
        usual = s.clamp_min(_LEAST_SIGMA) * (a.square() + s.square()).rsqrt()
        return -_log_likelihood(y, found, usual) / found["means"].shape[2]

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
        weights = found["log_weights"].exp()[:, :, None]
        data, noise = ((weights * found[key]).sum(dim=1).unflatten(1, self.event) for key in ("means", "noises"))
        return data.to(y_t), noise.to(y_t)

    def log_prob_and_error(self, y: Tensor, x: Condition, **settings: Any) -> tuple[Tensor, Tensor]:
        """Return log p(y | x) of standardised y for draws in one step, and its standard error, (batch,) each, in nats.

        The mean of the mixtures that the network tells from a few draws of the noise, which should tell it nothing.

        Args:
            y: answers (batch, *event), standardised.
            x: conditions, rows first, standardised.
            **settings: none.
        """
        noises = normal((_NOISES, *self.event), new_generator(0, y.device), like=y)
        chunk, parts = max(1, _AT_ONCE // (self.components * self.means[0].numel())), []
        for start in range(0, len(y), chunk):
            rows = slice(start, start + chunk)
            embedding, t = self.encode(take_rows(x, rows)), y.new_zeros(len(y[rows]))
            told = (self.mixture(noise.expand_as(y[rows]), t, embedding) for noise in noises)
            parts.append(torch.stack([_log_likelihood(y[rows], found, 1.0) for found in told]))
        found = torch.cat(parts, dim=1) if parts else y.new_zeros(_NOISES, 0)
        found = found - 0.5 * math.log(2 * math.pi) * math.prod(self.event)
        log_prob = found.logsumexp(dim=0) - math.log(_NOISES)
        return log_prob, (found - log_prob).exp().std(dim=0) / math.sqrt(_NOISES)

    def _states(self, embedding: Any, times: Tensor, generator: Source) -> Iterator[tuple[float, Tensor]]:
        if self.solver != "mixture":
            yield from super()._states(embedding, times, generator)
            return
        rows, like = self._rows(embedding)
        y_t, ends = normal((rows, *self.event), generator, like=like), times.tolist()
        yield ends[0], y_t
        for start, end in pairwise(ends):
            t = like.new_full((1,), start).expand(rows)
            if start == 0:
                y = self._first(y_t, t, embedding, generator).to(like)
            else:
                y = self._drawn(self.mixture(y_t, t, embedding), generator).to(like)
            y_t = y if end >= 1 else self._between(y, y_t, start, end, generator)
            yield end, y_t

    def _first(self, noise: Tensor, t: Tensor, embedding: Any, generator: Source) -> Tensor:
        """Return one y a row, (batch, *event), where y_t is noise and tells nothing: only the chosen are looked at."""
        told = self.network(noise, t, embedding).float().unflatten(1, (4, self.components))
        log_weights = self.logits + told[:, 2].flatten(2).sum(dim=2) / math.sqrt(self.means[0].numel())
        chosen = categorical(log_weights, generator)
        mean, log_scale, _, axis = told[torch.arange(len(chosen), device=chosen.device), :, chosen].flatten(2).unbind(1)
        log_scale = (self.log_scales.flatten(1)[chosen] + log_scale).clamp(max=_LARGEST_LOG_SCALE)
        axis = _unit(axis)
        scale = self.least_scale + log_scale.exp()
        away = _reflected(scale * normal(tuple(scale.shape), generator, like=scale), axis)
        return (self.means.flatten(1)[chosen] + mean + away).unflatten(1, self.event)

    def _drawn(self, mixture: dict[str, Tensor], generator: Source) -> Tensor:
        """Return one y a row of a mixture, (batch, *event)."""
        chosen = categorical(mixture["log_weights"], generator)
        rows = torch.arange(len(chosen), device=chosen.device)
        mean, scale, axis = (mixture[key][rows, chosen] for key in ("means", "scales", "axes"))
        away = _reflected(scale * normal(tuple(mean.shape), generator, like=mean), axis)
        return (mean + away).unflatten(1, self.event)

    @staticmethod
    def _between(y: Tensor, y_t: Tensor, start: float, end: float, generator: Source) -> Tensor:
        """Return y_s at time `end`, given y_t at `start` and the y that both are of, as noising y would have it."""
        kept = start * (1 - end) / (end * (1 - start))  # of the noise in y_t
        noise = (y_t - start * y) / (1 - start)
        fresh = normal(tuple(y.shape), generator, like=y)
        return end * y + (1 - end) * (kept * noise + math.sqrt(1 - kept**2) * fresh)


def _log_likelihood(y: Tensor, mixture: dict[str, Tensor], unit: Tensor | float) -> Tensor:
    """Return log p(y) under a mixture (batch,), in nats and units of y, without the constant of a normal."""
    away = _reflected(y.flatten(1)[:, None] - mixture["means"], mixture["axes"]) / mixture["scales"]
    log_prob = -0.5 * away.square().sum(dim=2) - (mixture["scales"] / unit).log().sum(dim=2)
    return (mixture["log_weights"] + log_prob).logsumexp(dim=1)


def _unit(told: Tensor) -> Tensor:
    """Return unit vectors (..., d), the first axis where nothing is told."""
    axes = told + torch.eye(1, told.shape[-1], device=told.device)
    return axes / axes.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _reflected(v: Tensor, axis: Tensor) -> Tensor:
    """Return v (..., d) reflected along unit vectors (..., d)."""
    return v - 2 * (v * axis).sum(dim=-1, keepdim=True) * axis
