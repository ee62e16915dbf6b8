"""How long does a chain take to cross from one mode to the other?

Two Gaussians of standard deviation 1, `separation` s apart, equally probable; the score is exact, so nothing is
learned and nothing is to blame but the sampler. All chains of plain Langevin start at the centre of the left mode, and
a chain has crossed when it first reaches the centre of the right one.

Theory. For dy = s(y) dt + sqrt(2) dW in one dimension the mean time of first arrival at s/2 from -s/2 is exact
(Gardiner, section 5.5), F being the distribution function of p:

    tau = integral from -s/2 to s/2 of F(y) / p(y) dy.

Kramers: the rate falls exponentially with the barrier, log p(mode) - log p(middle) = s^2 / 8 - log 2 far apart. Here
tau -> sqrt(2 pi) (pi / s) exp(s^2 / 8), so the slope of log tau on s^2 tends to 1/8; at the separations of the lesson
the factor 1 / s and what is left of the mode's width take a tenth or so away, and the slope of the exact times, fitted
with the same weights, is printed beside the measured one. (Kramers' prefactor for a parabolic barrier, 2 pi / s, would
be 20 % less: the top of this barrier is parabolic over about 2 / s only, where it has fallen by less than a nat.)

Estimate. Chains are watched for a bounded time, and those that have not crossed by then are censored: what is estimated
is the rate, crossings / total time watched, and the mean crossing time is its inverse, with the exact interval of a
Poisson count. Where all chains cross, it is the plain mean of their times. The estimate supposes that waiting is
memoryless, which it is but for the short time in which a chain first spreads over its mode; where the modes are close
the times vary less than that, and the interval is wider than it need be. A step of .05 makes the times 2 to 7 % longer
than in continuous time, at all separations about alike, and the slope about .0005 greater at most.

The three samplers are compared by what each pays, network evaluations a draw, until its draws are right: until the
share of draws left of any point is within `tolerance` of the truth (the Kolmogorov-Smirnov distance). Chains that never
leave their mode are wrong by .5. Plain and annealed Langevin start in the left mode, the diffusion sampler from noise,
as always; plain Langevin is looked at along its way, the others are run with more and more steps until they are right.
A longer step would divide what plain Langevin pays by a constant, and leave its slope.

References:
    Brownian motion in a field of force (Kramers, 1940), https://doi.org/10.1016/S0031-8914(40)90098-2
    Stochastic methods (Gardiner, 2009), section 5.5: the mean time of first passage
    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
        https://arxiv.org/abs/1907.05600
    Fiducial limits for the Poisson distribution (Garwood, 1936), https://doi.org/10.1093/biomet/28.3-4.437
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import chi2, norm
from torch import Tensor

from everymode.errors import SettingError, check_number
from everymode.langevin import annealed_langevin, geometric_levels, langevin
from everymode.lessons.base import Lesson
from everymode.paths import get_path
from everymode.problems import GaussianMixture
from everymode.randomness import mix, new_generator, normal
from everymode.solvers import get_solver, integrate, last, time_grid

__all__ = ["SEPARATIONS", "Crossing", "TwoModes", "crossing", "crossing_rate", "exact_crossing_time", "slope_on_square"]

SEPARATIONS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
KRAMERS_SLOPE = 1 / 8

_LOOKS = 1.05  # plain Langevin is looked at whenever it has run so many times as long
_LONGEST_BLOCK = 4096
_SHOWN_SEPARATIONS, _SHOWN_STEPS, _SHOWN_POINTS = (3.0, 6.0, 9.0), 20_000, 800
_LEVEL_RATIO, _LAST_LEVEL, _LEVEL_STEP = 0.7, 0.1, 0.3
_MORE_AND_MORE = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
_PATH, _SOLVER = "linear", "midpoint"


@dataclass(frozen=True)
class Crossing(Lesson):
    """What the lesson measured.

    Attributes:
        slope: of the log of the mean crossing time on the squared separation: `value`, its 95 % interval `low` to
            `high`, the same slope of the `exact` times, and `kramers`, the limit; None where it cannot be fitted.
        rows: one a separation: `crossings`, the mean `crossing_time` with its interval (None without a crossing) and
            the exact one, and the `evaluations` of each sampler (None where the budget did not reach).
        paths: where one chain was, at even intervals of its first `shown` evaluations.
        shown: number of evaluations that the paths cover.
    """

    name: ClassVar[str] = "crossing"
    pictures: ClassVar[tuple[str, ...]] = ("paths", "shown")

    slope: dict[str, Any]
    rows: list[dict[str, Any]]
    paths: list[dict[str, Any]]
    shown: int

    @property
    def title(self) -> str:
        """What it teaches, in one line."""
        return "Plain Langevin waits exponentially long to change modes; diffusion does not wait"


def crossing(
    separations: Sequence[float] = SEPARATIONS,
    *,
    chains: int = 512,
    budget: int = 200_000,
    step_size: float = 0.05,
    tolerance: float = 0.1,
    seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> Crossing:
    """Measure plain Langevin, annealed Langevin and a diffusion sampler on two modes farther and farther apart.

    Args:
        separations: distances of the two centres, in standard deviations of a mode; at least two of them.
        chains: chains, or draws, of each sampler.
        budget: most evaluations of the score that a chain of plain Langevin may use.
        step_size: of plain Langevin, in variances of a mode.
        tolerance: Kolmogorov-Smirnov distance within which draws are right.
        seed: of all three samplers.
        report: told in a sentence what has been done.

    Raises:
        SettingError: a setting is out of range.
    """
    separations = sorted({float(check_number("separations", s, 2.0, exclusive_low=True)) for s in separations})
    if len(separations) < 2:
        raise SettingError(f"separations={separations}: give at least two, for a slope.")
    chains = check_number("chains", chains, 2, integer=True)
    budget = check_number("budget", budget, 1, integer=True)
    check_number("step_size", step_size, 0.0, 1.0, exclusive_low=True)
    check_number("tolerance", tolerance, 0.0, 0.5, exclusive_low=True)
    rows, paths = [], []
    shown = {min(separations, key=lambda s: abs(s - wanted)) for wanted in _SHOWN_SEPARATIONS}
    for index, separation in enumerate(separations):
        modes = TwoModes(separation)
        sources = [new_generator(mix(seed, index, sampler)) for sampler in range(3)]
        walk = _walk(modes, chains, budget, step_size, tolerance, sources[0])
        annealed = _evaluations_of_annealed(modes, chains, tolerance, sources[1])
        diffusion = _evaluations_of_diffusion(modes, chains, tolerance, sources[2])
        time, low, high = crossing_rate(walk.crossings, walk.watched)
        rows.append(
            {
                "separation": separation,
                "barrier": modes.barrier,
                "crossings": walk.crossings,
                "crossing_time": time,
                "crossing_time_low": low,
                "crossing_time_high": high,
                "crossing_time_exact": exact_crossing_time(separation),
                "evaluations": {"langevin": walk.right_after, "annealed_langevin": annealed, "diffusion": diffusion},
            }
        )
        if separation in shown:
            paths.append({"separation": separation, "y": [round(y, 2) for y in walk.path]})
        report(f"separation {separation:g}: {walk.crossings} of {chains} chains crossed")
    settings = {
        "chains": chains,
        "budget": budget,
        "step_size": step_size,
        "tolerance": tolerance,
        "seed": seed,
        "annealed_langevin": {"level_ratio": _LEVEL_RATIO, "last_level": _LAST_LEVEL, "step_size": _LEVEL_STEP},
        "diffusion": {"path": _PATH, "solver": _SOLVER},
    }
    return Crossing(settings, slope_on_square(rows), rows, paths, min(_SHOWN_STEPS, budget))


# The truth ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoModes:
    """p(y) = (N(y; -s/2, 1) + N(y; s/2, 1)) / 2 for a separation s, and all that the samplers ask of it."""

    separation: float

    @property
    def mixture(self) -> GaussianMixture:
        """The same density with its path from noise in closed form."""
        half = self.separation / 2
        return GaussianMixture([0.5, 0.5], [[-half], [half]], np.ones((2, 1, 1)))

    @property
    def barrier(self) -> float:
        """Log density at a centre less that in the middle, in nats."""
        at_centre, at_middle = self.mixture.log_density([[self.separation / 2], [0.0]])
        return float(at_centre - at_middle)

    def cumulative(self, y: np.ndarray) -> np.ndarray:
        """Share of p left of y, any shape."""
        half = self.separation / 2
        return (norm.cdf(y + half) + norm.cdf(y - half)) / 2

    def score(self, y: Tensor, level: Tensor | None = None) -> Tensor:
        """Gradient of the log of p blurred by N(0, level^2), at y (batch, 1)."""
        half = self.separation / 2
        variance = 1.0 if level is None else 1 + level.square()
        return (half * torch.tanh(half / variance * y) - y) / variance

    def distance(self, draws: Tensor) -> float:
        """Return the Kolmogorov-Smirnov distance of draws (n, 1) from p."""
        share = self.cumulative(np.sort(draws[:, 0].double().numpy()))
        steps = np.arange(len(share) + 1) / len(share)
        return float(max((share - steps[:-1]).max(), (steps[1:] - share).max()))


def exact_crossing_time(separation: float) -> float:
    """Return the mean time in which Langevin dynamics first reaches the right centre from the left one."""
    modes, half = TwoModes(separation), separation / 2

    def slowness(y: float) -> float:
        return float(modes.cumulative(np.asarray(y)) / np.exp(modes.mixture.log_density([y])))

    return float(quad(slowness, -half, half, points=[0.0], limit=200)[0])


# Plain Langevin -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Walk:
    crossings: int
    watched: float  # time, summed over chains, until each crossed or the watch ended
    right_after: int | None  # evaluations a chain; None where the budget ended first
    path: list[float]  # where the first chain was, at even intervals


def _walk(
    modes: TwoModes, chains: int, budget: int, step_size: float, tolerance: float, generator: torch.Generator
) -> _Walk:
    """Walk until all chains have crossed and their draws are right, or the budget is spent."""
    half = modes.separation / 2
    start = torch.full((chains, 1), -half)
    states = langevin(modes.score, start, steps=budget, step_size=step_size, generator=generator)
    next(states)  # the start
    crossed_at = torch.full((chains,), budget + 1)
    shown = min(_SHOWN_STEPS, budget)
    path, done, right_after = [], 0, None
    while done < budget and (right_after is None or done < shown or bool((crossed_at > budget).any())):
        block = torch.stack(list(islice(states, min(_next_look(done) - done, budget - done))))[
            ..., 0
        ]  # (steps, chains)
        arrived = block >= half
        first = torch.where(arrived.any(dim=0), done + 1 + arrived.int().argmax(dim=0), budget + 1)
        crossed_at = torch.minimum(crossed_at, first)
        if done < shown:
            path.append(block[: shown - done, 0])
        done += len(block)
        if right_after is None and modes.distance(block[-1][:, None]) <= tolerance:
            right_after = done
    every = max(1, shown // _SHOWN_POINTS)
    return _Walk(
        crossings=int((crossed_at <= done).sum()),
        watched=step_size * float(crossed_at.clamp(max=done).double().sum()),
        right_after=right_after,
        path=torch.cat(path)[::every].tolist(),
    )


def _next_look(done: int) -> int:
    return min(max(done + 1, math.ceil(done * _LOOKS)), done + _LONGEST_BLOCK)


def crossing_rate(crossings: int, watched: float) -> tuple[float | None, float, float | None]:
    """Return the mean crossing time and its 95 % interval, from crossings in a total time `watched`.

    The interval is exact for a Poisson process. Without a crossing there is no estimate, and the time has a lower
    bound only.
    """
    low = 2 * watched / float(chi2.ppf(0.975, 2 * crossings + 2))
    if crossings == 0:
        return None, low, None
    return watched / crossings, low, 2 * watched / float(chi2.ppf(0.025, 2 * crossings))


def slope_on_square(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fit log crossing time = a + b separation^2 and return b, its 95 % interval, and b of the exact times.

    A rate from d crossings has a log of variance 1 / d, so d is the weight; the exact times are fitted with the same
    weights. Separations that no chain crossed have no weight. None where fewer than two are left.
    """
    seen = [row for row in rows if row["crossings"]]
    found: dict[str, Any] = {"value": None, "low": None, "high": None, "exact": None, "kramers": KRAMERS_SLOPE}
    if len(seen) < 2:
        return found
    square = np.array([row["separation"] ** 2 for row in seen])
    weight = np.array([row["crossings"] for row in seen], float)
    away = square - np.average(square, weights=weight)
    spread = (weight * away**2).sum()

    def slope(name: str) -> float:
        return float((weight * away * np.log([row[name] for row in seen])).sum() / spread)

    value, reach = slope("crossing_time"), float(norm.ppf(0.975) / np.sqrt(spread))
    return found | {
        "value": value,
        "low": value - reach,
        "high": value + reach,
        "exact": slope("crossing_time_exact"),
    }


# Annealed Langevin and diffusion ------------------------------------------------------------------------------------


def _evaluations_of_annealed(modes: TwoModes, chains: int, tolerance: float, generator: torch.Generator) -> int | None:
    """Evaluations a chain until annealed Langevin from the left mode is right; levels from s down to .1."""
    count = math.ceil(math.log(modes.separation / _LAST_LEVEL) / math.log(1 / _LEVEL_RATIO)) + 1
    levels = geometric_levels(modes.separation, _LAST_LEVEL, count)
    start = torch.full((chains, 1), -modes.separation / 2)
    for steps in _MORE_AND_MORE:
        chain = annealed_langevin(
            modes.score, start, levels=levels, steps=steps, step_size=_LEVEL_STEP, generator=generator
        )
        *_, end = chain
        if modes.distance(end) <= tolerance:
            return count * steps
    return None


def _evaluations_of_diffusion(modes: TwoModes, chains: int, tolerance: float, generator: torch.Generator) -> int | None:
    """Evaluations a draw until the probability-flow ODE from noise is right; y is standardised, as for every family."""
    scale = math.sqrt(1 + modes.separation**2 / 4)
    standard = GaussianMixture([0.5, 0.5], modes.mixture.means / scale, modes.mixture.covariances / scale**2)
    path = get_path(_PATH)

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        data = torch.from_numpy(standard.expected_data(y.numpy(), float(path.alpha(t)), float(path.sigma(t))))
        return path.convert(data, y, t, given="data", wanted="velocity")

    for steps in _MORE_AND_MORE:
        noise = normal((chains, 1), generator, like=torch.empty(0, dtype=torch.float64))
        draws = scale * last(integrate(velocity, path.prior_scale * noise, time_grid(steps), _SOLVER))
        if modes.distance(draws) <= tolerance:
            return steps * get_solver(_SOLVER).stages
    return None
