"""How well `modes` tells the answers of fitted models: their number, their places and their probabilities.

    python benchmarks/modes.py

Each family is fitted on 20,000 rows of a problem whose answers are known; `modes` then looks at 4,000 draws for each of
60 fresh x, 8,000 on the grid. Told are the share of x with the exact number of answers, and, for those, the mean error
of the places, in spreads of the answer, and of the probabilities. The floor is what `basins` finds among as many real
draws. The grid of 25 answers, the rarest of probability .014, is given four times the steps, the mixture density
network apart.

Fits are kept in runs/modes, and are made again only if their files are deleted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

import everymode as em
from everymode.modes import answers_among
from everymode.problems.base import Modes
from peers import kept, write

PROBLEMS = ("fork", "sine_fold", "branches", "inverse_kinematics", "imbalanced", "grid")
FAMILIES = ("flow_matching", "mdn", "diffusion")
CACHE = Path("runs/modes")
ROWS, ASKED = 20_000, 60
DRAWS = {**dict.fromkeys(PROBLEMS, 4000), "grid": 8000}  # the rarer an answer, the more it takes to tell it


def model_of(family: str, name: str) -> em.OneToManyRegressor:
    """Return the model, fitted now or before."""
    file = CACHE / f"{family}_{name}.safetensors"
    if not file.exists():
        x, y = em.problems.get(name).sample(ROWS, seed=0)
        steps = 20_000 if name == "grid" and family != "mdn" else None
        em.OneToManyRegressor(family, steps=steps, random_state=0, device="cpu").fit(x, y).save(file)
    return em.load(file, device="cpu")


def errors(truth: Modes, places: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """Return the mean errors of places, in spreads, and of probabilities, the answers matched by their places."""
    away = np.linalg.norm(places[:, None] - truth.locations, axis=2)
    mine, theirs = linear_sum_assignment(away)
    probability = np.abs(shares[mine] - truth.probabilities[theirs])
    return float((away[mine, theirs] / truth.spreads[theirs]).mean()), float(probability.mean())


def told(truth: list[Modes], found: list[tuple[np.ndarray, np.ndarray]], seconds: float) -> dict[str, Any]:
    """Return what was found of the true answers: (places, shares) a row."""
    counts = np.array([[len(shares), len(modes)] for (_, shares), modes in zip(found, truth, strict=True)])
    right = [errors(modes, *one) for one, modes in zip(found, truth, strict=True) if len(one[1]) == len(modes)]
    place, probability = np.mean(right, axis=0) if right else (None, None)
    return {
        "exact": float(np.mean(counts[:, 0] == counts[:, 1])),
        "too_many": float(np.mean(counts[:, 0] > counts[:, 1])),
        "too_few": float(np.mean(counts[:, 0] < counts[:, 1])),
        "location_error_in_spreads": None if place is None else float(place),
        "probability_error": None if probability is None else float(probability),
        "seconds_a_row": seconds / len(truth),
    }


def of_a_model(family: str, name: str) -> dict[str, Any]:
    problem = em.problems.get(name)
    x = problem.sample_x(ASKED, seed=1)
    model = model_of(family, name)
    started = time.perf_counter()
    answers = model.modes(x, DRAWS[name])
    seconds = time.perf_counter() - started
    return told(problem.modes(x), [(row.locations, row.probabilities) for row in answers], seconds)


def of_real_draws(name: str) -> dict[str, Any]:
    problem = em.problems.get(name)
    x = problem.sample_x(ASKED, seed=1)
    draws = problem.sample_given(x, DRAWS[name], seed=2)
    scale = draws.reshape(-1, draws.shape[2]).std(axis=0)
    started, found = time.perf_counter(), []
    for row in draws:
        basin, _, chosen = answers_among(row / scale)
        found.append((row[chosen], np.bincount(basin) / DRAWS[name]))
    return told(problem.modes(x), found, time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description="The answers that `modes` finds, beside the true ones.")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, Any]] = {}
    for name in PROBLEMS:
        table[name] = {"real draws": kept(CACHE / f"real_{name}.json", lambda name=name: of_real_draws(name))}
        for family in asked.families:
            work = lambda family=family, name=name: of_a_model(family, name)  # noqa: E731
            table[name][family] = kept(CACHE / f"{family}_{name}.json", work)
    met = {
        family: all(
            row["exact"] >= 0.95 and row["location_error_in_spreads"] < 0.5 and row["probability_error"] < 0.05
            for row in (table[name][family] for name in PROBLEMS)
        )
        for family in asked.families
    }
    print(met, file=sys.stderr)
    write("modes", {"rows": ROWS, "x": ASKED, "draws": DRAWS, "problems": table, "met": met})


if __name__ == "__main__":
    main()
