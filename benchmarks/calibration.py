"""Which tests of calibration see which fault: on problems whose density is known, the true law and three wrong ones.

- `true`: the problem's own draws and density.
- `shifted`: every column moved by half the spread of the likeliest answer, of one column.
- `narrow`: the noise around every answer times .6; on `two_moons` times .72, for its density is exact down to there.
- `dropped`: the second answer is never drawn, where it has a probability of .05 or more; the others share it out.

Each law is judged on the same rows twice: by its own log-density, and by draws alone, as of a model that has none. A
test sees a fault if its statistic is outside its 95 % band; what counts is the verdict, 5 % of false alarms in all.
Three questions are asked.

- `false_alarms`: how often is each statistic outside for the true law, over many seeds? In 5 of 100, up to chance
  (the central 99.9 % of a binomial law); and all of them are inside their simultaneous bands (Holm) in 95 of 100.
- `problems`, `summary`: are all laws told right, on as many rows as people have?
- `many_rows`: which statistics see which fault if only there are enough rows, and which stay inside? `gaussian_mixture`
  has no x.

The rows of a problem come from one seed, and problems share it: those with noise of one kind see it at the same ranks.

Usage: python benchmarks/calibration.py [--seeds 400] [--rows 2000] [--many 20000]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.stats import binom

import everymode as em
from everymode.calibration import LEVELS, VERDICTS
from everymode.calibration.uniform import LEVEL, share_band
from everymode.metrics import wilson_interval
from everymode.problems import GaussianMixture, Problem
from everymode.problems.mixture import MixtureProblem
from peers import write

PROBLEMS = (
    "fork",
    "sine_fold",
    "branches",
    "imbalanced",
    "grid",
    "two_moons",
    "rings",
    "gaussian_mixture",
    "line",
    "heteroscedastic",
    "skewed",
    "heavy_tailed",
)
COUNTED = ("fork", "sine_fold", "grid", "heteroscedastic")  # whose false alarms are counted
LARGE = tuple(name for name in PROBLEMS if name not in ("two_moons", "rings"))  # whose densities are closed forms
WAYS = ("log-density", "draws alone")
DRAWS, COUNTED_DRAWS, COUNTED_ROWS, MANY_DRAWS = 100, 40, 500, 50
SHIFT, NARROW, LEAST = 0.5, 0.6, 0.05
NOISE = ("noise", "least_noise", "most_noise")
MIXTURE = GaussianMixture(
    [0.5, 0.3, 0.2],
    [[-2.0, 0.0], [1.0, 1.5], [2.0, -1.0]],
    [[[0.3, 0.2], [0.2, 0.3]], [[0.2, 0.0], [0.0, 0.4]], [[0.25, -0.1], [-0.1, 0.2]]],
)


@dataclass(frozen=True)
class Law:
    """Draws (rows, n, d) for (x, n, seed), and log p(y | x), (rows, n), for (x, y)."""

    draw: Callable[[np.ndarray, int, int], np.ndarray]
    log_density: Callable[[np.ndarray, np.ndarray], np.ndarray]


# Wrong laws ----------------------------------------------------------------------------------------------------------


def laws_of(name: str) -> tuple[Callable[[int, int], tuple[np.ndarray, np.ndarray]], dict[str, Law]]:
    """Return (rows, seed) -> (x, y), and the laws that are judged, the true one first."""
    if name == "gaussian_mixture":
        return laws_of_mixture(MIXTURE)
    problem = em.problems.get(name)
    noise = {f.name: getattr(problem, f.name) for f in fields(problem) if f.name in NOISE}
    factor = 0.72 if name == "two_moons" else NARROW
    narrow = replace(problem, **{key: factor * value for key, value in noise.items()})
    laws = {
        "true": Law(problem.sample_given, problem.log_density),
        "shifted": shifted(problem),
        "narrow": Law(narrow.sample_given, narrow.log_density),
    }
    if problem.answers == "several":
        laws["dropped"] = dropped(problem)
    return problem.sample, laws


def shifted(problem: Problem) -> Law:
    def by(x: np.ndarray) -> np.ndarray:
        """Half the spread of the likeliest answer, of one column, (rows, 1, 1)."""
        spread = np.array([modes.spreads[0] for modes in problem.modes(x)])
        columns = len(problem.y_names) if isinstance(problem, MixtureProblem) else 1  # those of others are of one
        return SHIFT * (spread / np.sqrt(columns))[:, None, None]

    return Law(
        lambda x, n, seed: problem.sample_given(x, n, seed) + by(x),
        lambda x, y: problem.log_density(x, y - by(x)),
    )


def dropped(problem: Problem) -> Law:
    def lost(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The label and the probability of what is never drawn, (rows, 1); -2 and 0 where nothing is."""
        found = [
            (modes.labels[1], modes.probabilities[1]) if len(modes) > 1 and modes.probabilities[1] >= LEAST else (-2, 0)
            for modes in problem.modes(x)
        ]
        labels, probabilities = np.array(found).T
        return labels[:, None].astype(int), probabilities[:, None]

    def draw(x: np.ndarray, n: int, seed: int) -> np.ndarray:
        candidates = problem.sample_given(x, 4 * n, seed)
        kept = problem.assign(x, candidates) != lost(x)[0]
        first = np.argsort(~kept, axis=1, kind="stable")[:, :n]
        if not np.take_along_axis(kept, first, axis=1).all():
            raise RuntimeError("too few candidates")
        return np.take_along_axis(candidates, first[..., None], axis=1)

    def log_density(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        label, probability = lost(x)
        return np.where(problem.assign(x, y) == label, -np.inf, problem.log_density(x, y) - np.log1p(-probability))

    return Law(draw, log_density)


def laws_of_mixture(
    true: GaussianMixture,
) -> tuple[Callable[[int, int], tuple[np.ndarray, np.ndarray]], dict[str, Law]]:
    """Return the same of a mixture that does not depend on x."""
    weights, means, covariances = true.weights, true.means, true.covariances
    shift = SHIFT * np.sqrt(np.diagonal(covariances[0]))
    left = np.array([0, 2])
    mixtures = {
        "true": true,
        "shifted": GaussianMixture(weights, means + shift, covariances),
        "narrow": GaussianMixture(weights, means, NARROW**2 * covariances),
        "dropped": GaussianMixture(weights[left] / weights[left].sum(), means[left], covariances[left]),
    }

    def law(mixture: GaussianMixture) -> Law:
        def draw(x: np.ndarray, n: int, seed: int) -> np.ndarray:
            drawn = mixture.sample(len(x) * n, seed)  # a component after the other would do, but they come mixed
            return drawn.reshape(len(x), n, -1)

        return Law(draw, lambda x, y: mixture.log_density(y))

    def pairs(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((rows, 1)), true.sample(rows, seed)

    return pairs, {name: law(mixture) for name, mixture in mixtures.items()}


# Judging -------------------------------------------------------------------------------------------------------------


def judged(pairs: Any, law: Law, rows: int, draws: int, seed: int, *, density: bool) -> em.Calibration:
    x, y = pairs(rows, 2 * seed)
    drawn = law.draw(x, draws, 2 * seed + 1)
    logs: dict[str, Any] = {}
    if density:
        logs = {"log_density": law.log_density(x, y[:, None])[:, 0], "draws_log_density": law.log_density(x, drawn)}
    return em.calibrate_draws(y, drawn, x=x, random_state=seed, **logs)


def told(found: em.Calibration) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "outside": [check.name for check in found.checks if not check.inside],
        "inside": [check.name for check in found.checks if check.inside],
        "least_p_of_all": min(check.p_value_of_all for check in found.checks),
        "far": round(found.far, 4),
    }


def alarms(name: str, seeds: int, *, density: bool) -> dict[str, Any]:
    """Return how often statistics of the true law are outside their 95 % bands, by test, and whether that is chance."""
    pairs, laws = laws_of(name)
    outside: Counter[str] = Counter()
    wrong, names = 0, []
    for seed in range(1000, 1000 + seeds):
        found = judged(pairs, laws["true"], COUNTED_ROWS, COUNTED_DRAWS, seed, density=density)
        names = [check.name for check in found.checks]
        outside.update(check.name for check in found.checks if not check.inside)
        wrong += not found.calibrated
    low, high = wilson_interval(seeds - wrong, seeds)
    by_test = {}
    for test in names:
        least, most = binom.ppf([0.0005, 0.9995], seeds, exact_rate(test))
        by_test[test] = {
            "outside": outside[test] / seeds,
            "by_chance": [least / seeds, most / seeds],
            "inside_that": bool(least <= outside[test] <= most),
        }
    inside_all = {"share": 1 - wrong / seeds, "low": round(low, 3), "high": round(high, 3)}
    return {"all_inside_simultaneous_bands": inside_all, "by_test": by_test}


def exact_rate(test: str) -> float:
    """Return how often a statistic is outside its band: 5 %, of shares somewhat less, for rows are whole numbers."""
    for level in LEVELS:
        if test == f"share in the {level:.0%} region":
            low, high = np.rint(np.array(share_band(level, COUNTED_ROWS)) * COUNTED_ROWS)
            return float(binom.cdf(low - 1, COUNTED_ROWS, level) + binom.sf(high, COUNTED_ROWS, level))
    return LEVEL


def judged_all(names: tuple[str, ...], rows: int, draws: int) -> dict[str, Any]:
    """Return what is told of every law of every problem, both ways."""
    problems: dict[str, Any] = {}
    for name in names:
        pairs, laws = laws_of(name)
        problems[name] = {
            way: {
                fault: told(judged(pairs, law, rows, draws, 0, density=way == WAYS[0])) for fault, law in laws.items()
            }
            for way in WAYS
        }
        for way, faults in problems[name].items():
            for fault, one in faults.items():
                seen = f"{len(one['outside'])} of {len(one['outside']) + len(one['inside'])}"
                print(f"{name:17} {way:12} {fault:8} {seen:9} {one['verdict']}", file=sys.stderr, flush=True)
    return problems


def summed(problems: dict[str, Any]) -> dict[str, Any]:
    """Return by fault the verdicts, and in how many cases each test is outside its band."""
    cells = [(fault, one) for ways in problems.values() for faults in ways.values() for fault, one in faults.items()]
    summary = {}
    for fault in ("true", "shifted", "narrow", "dropped"):
        ones = [one for kind, one in cells if kind == fault]
        names = sorted({test for one in ones for test in one["inside"] + one["outside"]})
        summary[fault] = {
            "verdicts": dict(Counter(one["verdict"] for one in ones)),
            "called_wrong": f"{sum(one['verdict'] != VERDICTS[0] for one in ones)} of {len(ones)}",
            "outside_by_test": {
                test: f"{sum(test in one['outside'] for one in ones)} of "
                f"{sum(test in one['inside'] + one['outside'] for one in ones)}"
                for test in names
            },
        }
    return summary


def unseen(problems: dict[str, Any]) -> list[dict[str, str]]:
    """Return the tests that stay inside their bands though the law is wrong."""
    return [
        {"problem": name, "by": way, "fault": fault, "test": test}
        for name, ways in problems.items()
        for way, faults in ways.items()
        for fault, one in faults.items()
        if fault != "true"
        for test in one["inside"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Which tests of calibration see which fault.")
    parser.add_argument("--seeds", type=int, default=400, help="of the false alarms")
    parser.add_argument("--rows", type=int, default=2000, help="that each law is judged on")
    parser.add_argument("--many", type=int, default=20_000, help="rows, where there are enough of them")
    asked = parser.parse_args()
    started = time.process_time()
    problems = judged_all(PROBLEMS, asked.rows, DRAWS)
    large = judged_all(LARGE, asked.many, MANY_DRAWS)
    counted = {name: {way: alarms(name, asked.seeds, density=way == WAYS[0]) for way in WAYS} for name in COUNTED}
    write(
        "calibration",
        {
            "rows": asked.rows,
            "draws": DRAWS,
            "seed": 0,
            "shift": SHIFT,
            "narrow": {"two_moons": 0.72, "others": NARROW},
            "false_alarms": {"seeds": asked.seeds, "rows": COUNTED_ROWS, "draws": COUNTED_DRAWS, **counted},
            "summary": summed(problems),
            "many_rows": {
                "rows": asked.many,
                "draws": MANY_DRAWS,
                "problems": LARGE,
                "summary": summed(large),
                "not_seen": unseen(large),
            },
            "problems": problems,
            "core_seconds": round(time.process_time() - started, 1),
        },
    )


if __name__ == "__main__":
    main()
