"""Samplers that ask a model for the data: solvers of the probability-flow ODE of a path, and of its SDE.

On a path y_t = alpha y + sigma noise the ODE is dy_t/dt = alpha' data + sigma' noise, with data = E[y | y_t] and noise
= (y_t - alpha data) / sigma. Its linear part has an exact solution: from time s to a later time t

    y_t = (sigma_t / sigma_s) y_s + (alpha_t - alpha_s sigma_t / sigma_s) data,

were the data the same all the way. DDIM takes the data at s. DPM-Solver++ (2M) extrapolates them from the last two
times, along lambda = log(alpha / sigma). Heun's method, as in EDM, averages the velocities at both ends of a step. The
ancestral sampler of DDPM draws y_t from its posterior given y_s and the data. All ask for nothing of the path but
alpha / sigma at their times, up to the size of the state, and are regular where alpha = 0. The last step to t = 1,
where sigma = 0, lands on the data that the model tells at the time before (UniPC and 3M: on what their polynomial tells
of t = 1): no noise is left, not even the little that 've' keeps at t = 1.

The papers count their steps from data to noise; here t = 0 is noise and t = 1 is data.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), https://arxiv.org/abs/2006.11239
    Denoising diffusion implicit models (Song, Meng and Ermon, 2021), https://arxiv.org/abs/2010.02502
    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364: algorithm 1, and the grid of equation 5
    DPM-Solver++ (Lu et al., 2022), https://arxiv.org/abs/2211.01095: algorithm 2
    UniPC: a unified predictor-corrector framework for fast sampling of diffusion models (Zhao et al., 2023),
        https://arxiv.org/abs/2302.04867
    Fast sampling of diffusion models with exponential integrator (Zhang and Chen, 2023),
        https://arxiv.org/abs/2204.13902: polynomials through the last evaluations
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from everymode.errors import SettingError, check_choice, check_number
from everymode.paths import Path
from everymode.randomness import Source, normal
from everymode.solvers.runge_kutta import check_times, time_grid

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "Sampler",
    "ddim",
    "ddpm",
    "dpm_solver_2m",
    "dpm_solver_3m",
    "get_sampler",
    "heun",
    "karras_grid",
    "multistep",
    "unipc",
]

_CHURN = 4.0  # EDM has 40 with 256 steps, ours are fewer

Predictor = Callable[[Tensor, Tensor], Tensor]
"""E[y | y_t]: (y_t (batch, *event), t scalar tensor) -> (batch, *event)."""
States = Iterator[tuple[float, Tensor]]


def karras_grid(path: Path, steps: int, *, noisiest: float = 10.0, cleanest: float = 0.01, rho: float = 7.0) -> Tensor:
    """Return `steps + 1` times from 0 to 1, in float64, evenly spaced in (sigma / alpha)^(1 / rho) between the ends.

    EDM has 80 and .002 for `noisiest` and `cleanest`, with data of standard deviation .5, which is 160 and .004 for
    data of standard deviation 1, as ours. With 16 to 32 steps these bounds leave more steps where they matter.

    Args:
        path: alpha and sigma.
        steps: number of steps.
        noisiest: sigma / alpha at the first time, which t = 0 takes the place of.
        cleanest: sigma / alpha at the last time before t = 1; twice that of t = 1 if that is more.
        rho: 1 spaces sigma / alpha evenly; the larger, the more steps near the data.
    """
    steps = check_number("steps", steps, 1, integer=True)
    end = torch.ones((), dtype=torch.float64)
    cleanest = max(cleanest, 2 * float(path.sigma(end) / path.alpha(end)))
    roots = torch.linspace(noisiest ** (1 / rho), cleanest ** (1 / rho), steps, dtype=torch.float64)
    levels = roots[1:] ** rho
    low, high = torch.zeros_like(levels), torch.ones_like(levels)
    for _ in range(60):  # bisection: sigma / alpha falls with t
        middle = (low + high) / 2
        early = path.sigma(middle) > levels * path.alpha(middle)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return torch.cat([torch.zeros_like(end)[None], high, end[None]])


SPACINGS: dict[str, Callable[[Path, int], Tensor]] = {
    "karras": karras_grid,
    "uniform": lambda path, steps: time_grid(steps),
    "logit_normal": lambda path, steps: torch.special.ndtri(time_grid(steps)).sigmoid(),
}


def _schedule(path: Path, times: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Return times, alphas and sigmas as numbers, with (1, 0) at t = 1."""
    values = check_times(times)
    t = torch.tensor(values, dtype=torch.float64)
    if values[0] < 0 or values[-1] > 1 or values[0] > values[-1]:
        raise SettingError(f"times must rise, from noise to data, within [0, 1]; they are {values}.")
    alphas, sigmas = path.alpha(t).tolist(), path.sigma(t).tolist()
    if values[-1] == 1:
        alphas[-1], sigmas[-1] = 1.0, 0.0
    return values, alphas, sigmas


def _scalar(t: float, like: Tensor) -> Tensor:
    return torch.tensor(t, dtype=like.dtype, device=like.device)


def ddim(
    data: Predictor, y: Tensor, times: Tensor, path: Path, *, eta: float = 0.0, generator: Source = None
) -> States:
    """Denoising diffusion implicit model: of first order, and deterministic where eta = 0.

    Args:
        data: (y_t (batch, *event), t scalar tensor) -> E[y | y_t] (batch, *event).
        y: the state at times[0], (batch, *event).
        times: (steps + 1,), rising; times[0] < 1.
        path: alpha and sigma.
        eta: fresh noise of each step, in shares of that of DDPM's posterior; 1 is DDPM.
        generator: where the fresh noise comes from.

    Yields:
        (time, state) for each of `times`, the first included.

    Raises:
        SettingError: the times do not rise, or leave [0, 1]; eta does.
    """
    check_number("eta", eta, 0.0, 1.0)
    values, alphas, sigmas = _schedule(path, times)
    yield values[0], y
    for k in range(1, len(values)):
        ratio = alphas[k - 1] * sigmas[k] / (alphas[k] * sigmas[k - 1])
        fresh = eta * sigmas[k] * math.sqrt(1 - ratio**2)
        keep = math.sqrt(sigmas[k] ** 2 - fresh**2) / sigmas[k - 1]
        guess = data(y, _scalar(values[k - 1], y))
        y = keep * y + (alphas[k] - alphas[k - 1] * keep) * guess
        if fresh:
            y = y + fresh * normal(tuple(y.shape), generator, like=y)
        yield values[k], y


def ddpm(data: Predictor, y: Tensor, times: Tensor, path: Path, *, generator: Source = None) -> States:
    """Ancestral sampling: each state is drawn from q(y_t | y_s, data), s < t. See `ddim` for arguments and states."""
    return ddim(data, y, times, path, eta=1.0, generator=generator)


def dpm_solver_2m(data: Predictor, y: Tensor, times: Tensor, path: Path, *, generator: Source = None) -> States:
    """DPM-Solver++ (2M): of second order with one evaluation a step. See `ddim` for arguments and states.

    The first step is of first order, having no step before it; and so are the one after t = 0 where alpha is 0 and the
    last one to t = 1, since lambda is infinite there. It draws no noise.
    """
    values, alphas, sigmas = _schedule(path, times)
    ratios = [a / s if s else math.inf for a, s in zip(alphas, sigmas, strict=True)]
    lambdas = [math.log(r) if r else -math.inf for r in ratios]
    yield values[0], y
    before = None
    for k in range(1, len(values)):
        keep = sigmas[k] / sigmas[k - 1]
        now = data(y, _scalar(values[k - 1], y))
        guess = now
        if before is not None and math.isfinite(lambdas[k]):
            ahead = (lambdas[k] - lambdas[k - 1]) / (2 * (lambdas[k - 1] - lambdas[k - 2]))
            guess = now + ahead * (now - before)
        y = keep * y + (alphas[k] - alphas[k - 1] * keep) * guess
        before = now
        yield values[k], y


def dpm_solver_3m(data: Predictor, y: Tensor, times: Tensor, path: Path, *, generator: Source = None) -> States:
    """DPM-Solver++ of third order, one evaluation a step; see `multistep`, and `ddim` for arguments and states.

    Its polynomials are in the signal's share of the state, where the paper has them in lambda: on mixtures of normals,
    10 steps from pure noise then land a third to a tenth as far from the exact draw.
    """
    return multistep(data, y, times, path, order=3)


def unipc(data: Predictor, y: Tensor, times: Tensor, path: Path, *, generator: Source = None) -> States:
    """UniPC of third order, one evaluation a step; see `multistep`, and `ddim` for arguments and states.

    Its polynomials are in the signal's share of the state, where the paper has them in lambda: on mixtures of normals,
    10 steps from pure noise then land a half to a tenth as far from the exact draw, in the median.
    """
    return multistep(data, y, times, path, order=2, correct=True)


def multistep(
    data: Predictor,
    y: Tensor,
    times: Tensor,
    path: Path,
    *,
    order: int,
    correct: bool = False,
    along: str = "share",
) -> States:
    """The exact solution, were the data the polynomial through the last `order` evaluations.

    With p = alpha / sigma the solution is y_t / sigma_t = y_s / sigma_s + the integral of the data over p. The first
    steps have fewer evaluations behind them and are of lower order; the one to sigma = 0 lands on the data that the
    polynomial tells there. With `correct` a step is taken again once the data at its end are known, through one
    evaluation more (UniPC's corrector): that evaluation is the next step's too, and costs nothing.

    Args:
        data: see `ddim`.
        y: see `ddim`.
        times: see `ddim`.
        path: see `ddim`.
        order: evaluations that the polynomial goes through, 1 to 4.
        correct: whether the corrector follows.
        along: what it is a polynomial in: 'lambda' (as in the papers; infinite at both ends, where a step is of first
            order), or 'share', that of the signal in the state, alpha / sqrt(alpha^2 + sigma^2). It is finite from pure
            noise on; and near the data, where the data are even in sigma, so is it.
    """
    order = check_number("order", order, 1, 4, integer=True)
    along = check_choice("along", along, ("share", "lambda"))
    values, alphas, sigmas = _schedule(path, times)
    angles = [math.atan2(a, s) for a, s in zip(alphas, sigmas, strict=True)]
    known: list[tuple[float, Tensor]] = []  # angle and data of the last evaluations, the latest first

    def step(y: Tensor, k: int, through: list[tuple[float, Tensor]]) -> Tensor:
        keep = sigmas[k] / sigmas[k - 1]
        if along == "lambda":
            through = [part for part in through if part[0] > 0 and sigmas[k]] or through[:1]
        if len(through) == 1:
            return keep * y + (alphas[k] - alphas[k - 1] * keep) * through[0][1]
        weights = _weights([angle for angle, _ in through], angles[k - 1], angles[k], sigmas[k], along)
        return keep * y + sum(w * guess for w, (_, guess) in zip(weights, through, strict=True))

    yield values[0], y
    before = y
    for k in range(1, len(values)):
        guess = data(y, _scalar(values[k - 1], y))
        if correct and known:
            y = step(before, k - 1, [(angles[k - 1], guess), *known])
        known = [(angles[k - 1], guess), *known][:order]
        before, y = y, step(y, k, known)
        yield values[k], y


_POINTS, _SHARES = np.polynomial.legendre.leggauss(24)  # of a quadrature on [-1, 1]


def _weights(nodes: list[float], start: float, end: float, sigma: float, along: str) -> list[float]:
    """Return sigma times the integrals over p = tan(angle), `start` to `end`, of the Lagrange polynomials of the nodes.

    At the end of the way, where sigma = 0 and p is infinite, that is the polynomial's value there.
    """

    def place(angle: Any) -> Any:
        return np.log(np.tan(angle)) if along == "lambda" else np.sin(angle)

    angle, rates = np.asarray([end]), np.ones(1)
    if sigma:
        angle = 0.5 * (end - start) * _POINTS + 0.5 * (start + end)
        rates = sigma * 0.5 * (end - start) * _SHARES / np.cos(angle) ** 2  # dp
    at, known = place(angle), place(nodes)
    weights = []
    for i, node in enumerate(known):
        others = np.delete(known, i)
        weights.append(float((rates * np.prod((at[:, None] - others) / (node - others), axis=1)).sum()))
    return weights


def heun(
    data: Predictor, y: Tensor, times: Tensor, path: Path, *, generator: Source = None, churn: float = 0.0
) -> States:
    """EDM's sampler: Heun's method, of second order with two evaluations a step, one in that to t = 1.

    EDM's algorithms 1 and 2 leave the schedule of the sampler free, whatever path the model was trained on. Here it is
    that of the cosine path, where the state turns from noise to data by the angle arctan(alpha / sigma), and all is
    regular from pure noise on. With `churn` every step starts with fresh noise, which raises sigma / alpha by the
    factor 1 + churn / steps, of sqrt(2) at most: what earlier steps got wrong is partly forgotten. See `ddim` for the
    other arguments and for the states; without churn it draws no noise.
    """
    values, alphas, sigmas = _schedule(path, times)
    sizes = [math.hypot(a, s) for a, s in zip(alphas, sigmas, strict=True)]
    angles = [math.atan2(a, s) for a, s in zip(alphas, sigmas, strict=True)]
    more = 1 + min(churn / (len(values) - 1), math.sqrt(2) - 1)

    def slope(z: Tensor, angle: float, time: float, size: float) -> Tensor:
        """Return cos data - sin noise, where z = sin data + cos noise."""
        guess = data(size * z, _scalar(time, z))
        return (guess - math.sin(angle) * z) / math.cos(angle)

    yield values[0], y
    z = y / sizes[0]
    for k in range(1, len(values)):
        angle, time, size = angles[k - 1], values[k - 1], sizes[k - 1]
        if churn and angle > 0:
            at = path.time_at(torch.tensor([math.log(math.tan(angle) / more)], dtype=torch.float64))
            time, alpha, sigma = float(at), float(path.alpha(at)), float(path.sigma(at))
            before, angle, size = angle, math.atan2(alpha, sigma), math.hypot(alpha, sigma)
            kept = math.sin(angle) / math.sin(before)
            fresh = math.sqrt(math.cos(angle) ** 2 - (kept * math.cos(before)) ** 2)
            z = kept * z + fresh * normal(tuple(z.shape), generator, like=z)
        if not sigmas[k]:
            y = data(size * z, _scalar(time, z))
        else:
            h, first = angles[k] - angle, slope(z, angle, time, size)
            z = z + 0.5 * h * (first + slope(z + h * first, angles[k], values[k], sizes[k]))
            y = sizes[k] * z
        yield values[k], y


@dataclass(frozen=True)
class Sampler:
    """A way to draw.

    Attributes:
        name: what settings call it.
        states: (data, y, times, path, generator=...) -> states; see `ddim`.
        evaluations: from the number of steps to that of the model's evaluations.
        noisy: whether it adds noise on the way, which asks for the score.
    """

    name: str
    states: Callable[..., States]
    evaluations: Callable[[int], int] = int
    noisy: bool = False


SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        Sampler("dpm_solver_2m", dpm_solver_2m),
        Sampler("dpm_solver_3m", dpm_solver_3m),
        Sampler("unipc", unipc),
        Sampler("ddim", ddim),
        Sampler("ddpm", ddpm, noisy=True),
        Sampler("heun", heun, lambda steps: 2 * steps - 1),
        Sampler("heun_churn", partial(heun, churn=_CHURN), lambda steps: 2 * steps - 1, noisy=True),
    )
}


def get_sampler(sampler: str) -> Sampler:
    """Return the sampler of that name; `SettingError` where there is none."""
    return SAMPLERS[check_choice("sampler", sampler, SAMPLERS)]
