"""Langevin dynamics: draws from a density of which only the score, the gradient of its logarithm, is known.

Plain Langevin walks uphill and is shaken:

    y <- y + h s(y) + sqrt(2 h T) noise,    s = grad log p.

With T = 1 and small h its stationary density is p; on N(0, 1) its variance is 2 / (2 - h), exactly. The Metropolis
adjustment (`log_density`) takes each step with the probability that makes p exactly stationary, whatever h. For an
energy E the score is -grad E.

Annealed Langevin runs it at falling noise levels: the score of p blurred by N(0, level^2), with h = step_size level^2.
At a level as large as the distance of the modes there is one heap and nothing to cross; as the level falls, every
chain settles in a mode.

References:
    Exponential convergence of Langevin distributions and their discrete approximations (Roberts and Tweedie, 1996),
        https://doi.org/10.2307/3318418: the plain chain and the adjusted one
    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
        https://arxiv.org/abs/1907.05600: Algorithm 1, whose alpha_i is 2 h here
    Improved techniques for training score-based generative models (Song and Ermon, 2020),
        https://arxiv.org/abs/2006.09011: the first level is the greatest distance of two data points

Fails: plain Langevin needs time exponential in the squared separation of the modes to cross from one to another
(`everymode lesson crossing`); without the adjustment a step that is large against the curvature diverges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from everymode.errors import SettingError, check_number
from everymode.randomness import Source, normal, uniform

__all__ = ["annealed_langevin", "geometric_levels", "langevin"]

Score = Callable[[Tensor, Tensor | None], Tensor]
"""Gradient of log p: (y (batch, *event), noise level as a scalar tensor, or None) -> (batch, *event)."""

LogDensity = Callable[[Tensor, Tensor | None], Tensor]
"""log p up to a constant: (y (batch, *event), noise level as a scalar tensor, or None) -> (batch,)."""


def langevin(
    score: Score,
    y: Tensor,
    *,
    steps: int,
    step_size: float | Sequence[float],
    generator: Source,
    temperature: float = 1.0,
    level: float | None = None,
    log_density: LogDensity | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Walk a chain a row; the rows know nothing of one another.

    Args:
        score: the gradient of log p; evaluated once a step.
        y: where the chains start, (batch, *event).
        steps: number of steps.
        step_size: h, one for all steps or one a step.
        generator: where the noise comes from.
        temperature: the stationary density is p to the power 1 / temperature; 0 climbs without noise.
        level: the noise level handed to `score` and `log_density`.
        log_density: turns the Metropolis adjustment on; evaluated once a step.
        project: maps states back to where they are allowed, after every step: clamping to bounds, say.

    Yields:
        `steps + 1` states (batch, *event), the start first.

    Raises:
        SettingError: a setting is out of range, or the adjustment is asked for together with what it does not allow.
    """
    sizes = _step_sizes(steps, step_size)
    temperature = check_number("temperature", temperature, 0.0)
    noise_level = None if level is None else y.new_tensor(check_number("level", level, 0.0))
    if log_density is not None:
        if temperature == 0 or project is not None:
            raise SettingError("log_density adjusts a chain of positive temperature without project: leave one out.")
        yield from _adjusted(score, log_density, y, sizes, generator, temperature, noise_level)
        return
    yield y
    for h in sizes:
        y = torch.add(y, score(y, noise_level), alpha=h)
        if temperature > 0:
            y = torch.add(y, normal(tuple(y.shape), generator, like=y), alpha=math.sqrt(2 * h * temperature))
        y = y if project is None else project(y)
        yield y


def _adjusted(
    score: Score,
    log_density: LogDensity,
    y: Tensor,
    sizes: list[float],
    generator: Source,
    temperature: float,
    level: Tensor | None,
) -> Iterator[Tensor]:
    """Take each step with probability min(1, p(new) q(old | new) / (p(old) q(new | old))), each row by itself."""
    slope, height = score(y, level), log_density(y, level)
    yield y
    for h in sizes:
        noise = normal(tuple(y.shape), generator, like=y)
        new = y + h * slope + math.sqrt(2 * h * temperature) * noise
        new_slope, new_height = score(new, level), log_density(new, level)
        back = (y - new - h * new_slope).square() / (4 * h * temperature)
        gain = (new_height - height) / temperature + (noise.square() / 2 - back).flatten(1).sum(dim=1)
        taken = uniform((len(y),), generator, like=y).log() < gain  # (batch,); a gain of NaN is not taken
        wide = taken.reshape(-1, *(1,) * (y.ndim - 1))
        y, slope = torch.where(wide, new, y), torch.where(wide, new_slope, slope)
        height = torch.where(taken, new_height, height)
        yield y


def annealed_langevin(
    score: Score,
    y: Tensor,
    *,
    levels: Sequence[float],
    steps: int,
    step_size: float,
    generator: Source,
    log_density: LogDensity | None = None,
) -> Iterator[Tensor]:
    """Walk a chain a row through falling noise levels, `steps` steps of size `step_size * level^2` at each.

    Args:
        score: (y, level) -> the gradient of the log of p blurred by N(0, level^2).
        y: where the chains start, (batch, *event): for fresh draws, noise as wide as the first level.
        levels: standard deviations of the blur, falling; see `geometric_levels`.
        steps: number of steps a level.
        step_size: in squared levels; below 2, where the steps at a level are stable on a point mass.
        generator: where the noise comes from.
        log_density: (y, level) -> log of the blurred p, (batch,); turns the Metropolis adjustment on.

    Yields:
        `len(levels) * steps + 1` states (batch, *event), the start first.

    Raises:
        SettingError: a setting is out of range, or the levels do not fall.
    """
    check_number("step_size", step_size, 0.0, 2.0, exclusive_low=True)
    if not levels:
        raise SettingError("levels is empty: give at least one noise level.")
    for number in levels:
        check_number("level", number, 0.0, exclusive_low=True)
    if not all(before > after for before, after in pairwise(levels)):
        raise SettingError("levels must fall strictly, from the widest blur to the least.")
    yield y
    for level in levels:
        chain = langevin(
            score,
            y,
            steps=steps,
            step_size=step_size * level**2,
            generator=generator,
            level=level,
            log_density=log_density,
        )
        next(chain)  # the start, which is the last state of the level before
        for y in chain:
            yield y


def geometric_levels(high: float, low: float, count: int) -> list[float]:
    """Return `count` noise levels from `high` to `low`, each the same multiple of the one before."""
    count = check_number("count", count, 2, integer=True)
    check_number("low", low, 0.0, exclusive_low=True)
    check_number("high", high, low, exclusive_low=True)
    return [float(high * (low / high) ** (i / (count - 1))) for i in range(count)]


def _step_sizes(steps: int, step_size: float | Sequence[float]) -> list[float]:
    steps = check_number("steps", steps, 1, integer=True)
    if not isinstance(step_size, Sequence) or isinstance(step_size, str):
        return [check_number("step_size", step_size, 0.0, exclusive_low=True)] * steps
    if len(step_size) != steps:
        raise SettingError(f"step_size has {len(step_size)} numbers for {steps} steps: give one, or one a step.")
    return [check_number("step_size", h, 0.0, exclusive_low=True) for h in step_size]
