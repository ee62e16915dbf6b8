"""A Gaussian mixture with too few components merges modes; a diffusion model has no number of components to choose.

One condition x of a problem whose every valid answer is known, eight Gaussians on a ring unless another is given, and
draws of p(y | x) to learn from: both models see the same draws, and x plays no part. (A mixture of x and y jointly,
conditioned in closed form, also spends components on how the modes move with x; here it is spared that.)

Maximum likelihood gives every draw some density, so a mixture of fewer components than there are modes lays one
Gaussian over several of them, and most of what it draws there lies between. With as many components as modes it is
the true model, if expectation-maximisation finds it; no one knows that number beforehand, and the Bayesian
information criterion (BIC) is the usual guess. The diffusion model is one fit, drawn as a level line.

The log-likelihood of a diffusion or flow-matching model follows from its flow dy/dt = u(y, t) backwards from the data:

    log p(y_1) = log N(y_0; 0, sigma(0)^2) - integral over t of the divergence of u.

References:
    Maximum likelihood from incomplete data via the EM algorithm (Dempster, Laird and Rubin, 1977)
    Estimating the dimension of a model (Schwarz, 1978), https://doi.org/10.1214/aos/1176344136: BIC
    Neural ordinary differential equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366: change of variables
    Score-based generative modeling through SDEs (Song et al., 2021), https://arxiv.org/abs/2011.13456: the same for
        diffusion models

Fails to convict the mixture where its components have the shape of the modes and their number is known: there it is
as good as the floor, and cheaper than any network.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from everymode.errors import DataError, check_number
from everymode.estimator import OneToManyRegressor
from everymode.families import Family, get_family
from everymode.lessons.base import Lesson
from everymode.metrics import Tally
from everymode.problems import Problem
from everymode.problems.mixture import MixtureProblem
from everymode.randomness import mix

__all__ = ["EightOnARing", "Merging", "between_modes", "component_numbers", "merging", "modes_apart"]

_TRAINING = {"width": 64, "depth": 3, "steps": 5000, "batch_size": 512, "early_stopping": False, "device": "cpu"}
_STARTS = 4  # of expectation-maximisation, for each number of components
_SHOWN = 700  # draws a panel
_LIKELIHOOD_ROWS = 2000
_DATA, _HELD_OUT, _REAL, _DRAWS, _ORDER = range(5)  # streams of randomness


@dataclass(frozen=True)
class EightOnARing(MixtureProblem):
    """Eight equally probable Gaussians on the unit circle; x is always 0. The mean is the centre, where none is.

    Args:
        noise: standard deviation of each Gaussian.
    """

    name: ClassVar[str] = "eight_on_a_ring"
    title: ClassVar[str] = "Eight answers on a ring"
    x_names: ClassVar[tuple[str, ...]] = ("nothing",)
    y_names: ClassVar[tuple[str, ...]] = ("first", "second")
    mode_names: ClassVar[tuple[str, ...]] = tuple(f"{45 * i} degrees" for i in range(8))

    noise: float = 0.06

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((n, 1))

    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        angle = np.pi / 4 * np.arange(8)
        places = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        shape = (len(x), 8)
        return np.full(shape, 1 / 8), np.broadcast_to(places, (*shape, 2)), np.full(shape, self.noise)


@dataclass(frozen=True)
class Merging(Lesson):
    """What the lesson measured. Of every model, and of real draws:

    `valid_share` with its Wilson interval, over draws; `between_share`, see `between_modes`; `modes_found`, those that
    get a quarter of their draws or more; `modes_apart`, see `modes_apart`; `probability_error`; and `log_likelihood`,
    the mean over 2000 held-out draws in nats, None where there is none.

    Attributes:
        modes: how many there are.
        mixtures: one dict a number of `components`, with its `bic`.
        model: the family's.
        floor: that of real draws.
        bic_choice: the number of components with the least BIC.
        panels: some draws of some of them.
    """

    name: ClassVar[str] = "merging"
    pictures: ClassVar[tuple[str, ...]] = ("panels",)

    modes: int
    mixtures: list[dict[str, Any]]
    model: dict[str, Any]
    floor: dict[str, Any]
    bic_choice: int
    panels: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """What it teaches, in one line."""
        return f"{self.modes} modes: a Gaussian mixture merges them until it has a component for each"


def merging(
    problem: Problem | None = None,
    x: Sequence[float] | None = None,
    *,
    family: str | Family = "diffusion",
    components: Sequence[int] | None = None,
    rows: int = 5000,
    draws: int = 5000,
    seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    **training: Any,
) -> Merging:
    """Fit Gaussian mixtures of 1 to 2 K components and one family to the K modes of one x.

    Args:
        problem: gives the truth; eight Gaussians on a ring if None.
        x: the condition, (dx,); 0 in every column if None.
        family: what stands beside the mixtures, a name or a family object.
        components: numbers of components; see `component_numbers` if None.
        rows: draws to learn from.
        draws: draws that each model is judged on.
        seed: of the data, the fits and the draws.
        report: told in a sentence what has been done.
        training: parameters of `OneToManyRegressor` for the family, in place of the lesson's own.

    Raises:
        SettingError: a setting is out of range.
        DataError: x has the wrong number of columns, or y is one number and cannot be shown in a plane.
    """
    problem = EightOnARing() if problem is None else problem
    condition = np.zeros((1, len(problem.x_names))) if x is None else np.asarray([x], float)
    rows = check_number("rows", rows, 10, integer=True)
    draws = check_number("draws", draws, 10, integer=True)
    if len(problem.y_names) < 2:
        raise DataError(
            f"{problem.name}: y is one number; this lesson draws its figure in a plane: take another problem."
        )
    modes = problem.modes(condition)[0]
    numbers = component_numbers(len(modes)) if components is None else [_component_number(k, rows) for k in components]

    def truth(stream: int, n: int) -> np.ndarray:
        return problem.sample_given(condition, n, mix(seed, stream))[0]

    y, held_out, real = truth(_DATA, rows), truth(_HELD_OUT, _LIKELIHOOD_ROWS), truth(_REAL, draws)
    judge = _Judge(problem, condition, modes.locations)
    floor = judge(real) | {"log_likelihood": float(problem.log_density(condition, held_out[None]).mean())}
    mixtures, panels = [], [{"name": "truth"} | judge.picture(real)]
    shown, shuffler = _shown_numbers(numbers, len(modes)), np.random.default_rng(mix(seed, _ORDER))
    for k in numbers:
        mixture, seconds = _fit_mixture(y, k, seed)
        drawn = shuffler.permutation(mixture.sample(draws)[0])  # scikit-learn sorts them by component
        mixtures.append(
            {"components": k}
            | judge(drawn)
            | {"log_likelihood": float(mixture.score(held_out)), "bic": float(mixture.bic(y)), "seconds": seconds}
        )
        if k in shown:
            panels.append({"name": "gmm", "components": k} | judge.picture(drawn))
    report(f"{len(numbers)} mixtures fitted")
    training = {**_TRAINING, **training}
    model = OneToManyRegressor(get_family(family), random_state=seed, **training)
    model.fit(np.repeat(condition, rows, axis=0), y)
    drawn = model.sample(condition, draws, random_state=mix(seed, _DRAWS))[0]
    fitted = judge(drawn) | {
        "family": model.family_.name,
        "log_likelihood": _log_likelihood(model, condition, held_out),
        "seconds": round(model.fit_seconds_, 1),
        "steps": model.n_steps_,
        "parameters": model.n_parameters_,
        "nfe": model.nfe,
    }
    panels.append({"name": model.family_.name} | judge.picture(drawn))
    report(f"{model.family_.name} fitted in {model.fit_seconds_:.0f} s")
    settings = {
        "problem": problem.name,
        "x": condition[0].tolist(),
        "rows": rows,
        "draws": draws,
        "seed": seed,
        "starts": _STARTS,
        "training": training,
    }
    choice = min(mixtures, key=lambda row: row["bic"])["components"]
    return Merging(settings, len(modes), mixtures, fitted, floor, choice, panels)


def component_numbers(modes: int) -> list[int]:
    """Return at most about 20 numbers of components from 1 to twice the number of modes, that number among them."""
    spread = np.linspace(1, 2 * modes, min(20, 2 * modes)).round().astype(int)
    return sorted({*spread.tolist(), modes})


def between_modes(y: np.ndarray, locations: np.ndarray) -> np.ndarray:
    """Return whether each y (n, d) has two modes (k, d) on opposite sides of it, (n,).

    Opposite: the angle between them, seen from y, is over 90 degrees. Draws that are invalid and not between modes
    lie outside of them all.
    """
    away = locations - y[:, None]  # (n, k, d)
    return (np.einsum("nid,njd->nij", away, away) < 0).any(axis=(1, 2))


def modes_apart(y: np.ndarray, locations: np.ndarray) -> np.ndarray:
    """Return whether draws y (n, d) keep each of the modes (k, d) apart from its nearest neighbours, (k,).

    Apart: half way to a neighbour there are fewer than half as many draws as around the mode, each counted within a
    quarter of the distance. A Gaussian laid over two modes puts more draws between them than on either: `modes_found`
    counts both as found, since both get their share of draws, and this measure counts neither.
    """
    k = len(locations)
    gaps = np.linalg.norm(locations[:, None] - locations, axis=2)
    gaps[np.diag_indices(k)] = np.inf
    apart = np.ones(k, bool)
    for mode, other in zip(*np.nonzero(gaps < 1.2 * gaps.min(axis=1, keepdims=True)), strict=True):
        reach, middle = gaps[mode, other] / 4, (locations[mode] + locations[other]) / 2
        at_mode, half_way = (
            int((np.linalg.norm(y - place, axis=1) < reach).sum()) for place in (locations[mode], middle)
        )
        apart[mode] &= 2 * half_way < at_mode
    return apart


class _Judge:
    """Counts draws by mode, and the invalid ones by where they lie."""

    def __init__(self, problem: Problem, condition: np.ndarray, locations: np.ndarray) -> None:
        self.problem, self.condition, self.locations = problem, condition, locations

    def __call__(self, drawn: np.ndarray) -> dict[str, Any]:
        """Return the numbers of draws (n, d)."""
        tally = Tally.of(self.problem, self.condition, drawn[None])
        valid, (found, total) = tally.valid_share(), tally.modes_found
        invalid = drawn[~self.problem.valid(self.condition, drawn[None])[0]]
        between = int(between_modes(invalid, self.locations).sum())
        return {
            "valid_share": valid.value,
            "valid_share_low": valid.low,
            "valid_share_high": valid.high,
            "between_share": between / len(drawn),
            "modes_apart": int(modes_apart(drawn, self.locations).sum()),
            "modes_found": found,
            "modes_total": total,
            "probability_error": tally.probability_error().value,
        }

    def picture(self, drawn: np.ndarray) -> dict[str, Any]:
        """Return some draws, the first two numbers of each, for a panel of the figure."""
        shown = drawn[:_SHOWN]
        return {
            "y": shown[:, :2].round(3).tolist(),
            "valid": self.problem.valid(self.condition, shown[None])[0].tolist(),
            "valid_share": float(self.problem.valid(self.condition, drawn[None]).mean()),
        }


def _fit_mixture(y: np.ndarray, components: int, seed: int) -> tuple[GaussianMixture, float]:
    """Return scikit-learn's mixture of full covariances, the likeliest of several starts, and the seconds it took."""
    started = time.perf_counter()
    mixture = GaussianMixture(components, n_init=_STARTS, max_iter=300, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # far too many components hardly converge; that is the point
        mixture.fit(y)
    return mixture, round(time.perf_counter() - started, 2)


def _log_likelihood(model: OneToManyRegressor, condition: np.ndarray, y: np.ndarray) -> float | None:
    """Mean log p(y | x) of held-out y (n, d) in nats, where the family has a density."""
    family, x = model.family_, np.repeat(condition, len(y), axis=0)
    if family.abilities.density:
        return float(model.log_prob(x, y).mean())
    return None


def _component_number(number: int, rows: int) -> int:
    return check_number("components", number, 1, rows, integer=True)


def _shown_numbers(numbers: Sequence[int], modes: int) -> set[int]:
    """About a quarter, about half, and all of the components that the modes need."""
    return {min(numbers, key=lambda k: abs(k - share * modes)) for share in (0.25, 0.5, 1.0)}
