"""solver="auto": whether it keeps its tolerance on x it has not seen, and what it costs beside the best fixed solver.

    python benchmarks/solvers.py [--seconds 20] [--tolerance 0.05] [--seed 0]

A flow is trained on 10,000 rows of each of five problems, and chooses its solver on the rows held out. On 100 fresh x,
20 draws each, its mean distance to the exact draws of the same noise is measured, and that of every solver with every
grid at every number of steps: the cheapest of those within the tolerance is the best fixed choice, made with hindsight.
Writes benchmarks/results/solvers.json.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import torch
from torch import Tensor

import everymode as em
from everymode.curve import settings_for, with_settings
from everymode.families import FlowMatching
from everymode.randomness import new_generator
from everymode.solvers.choice import CHOSEN_FROM
from peers import write

PROBLEMS = ("fork", "sine_fold", "inverse_kinematics", "grid", "imbalanced")
FIXED = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
X, DRAWS = 100, 20


def drawn(family: FlowMatching, x: Any, seed: int, **settings: Any) -> Tensor:
    """Return draws for noise of that seed, (X * DRAWS, *event)."""
    with torch.no_grad(), with_settings(family, **settings):
        return family.sample(x, DRAWS, generator=new_generator(seed))


def run(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one problem."""
    problem = em.problems.get(name)
    family = FlowMatching(solver="auto", tolerance=asked.tolerance)
    settings: dict[str, Any] = {"steps": 20_000, "max_seconds": asked.seconds, "random_state": asked.seed}
    model = em.OneToManyRegressor(family, **settings).fit(*problem.sample(10_000, asked.seed))
    trained: Any = model.family_
    x = model.x_space_.encode(problem.sample(X, asked.seed + 1000)[0])
    exact = drawn(trained, x, asked.seed, solver="rk4", spacing="auto", steps=256)

    def error(**settings: Any) -> float:
        return float((drawn(trained, x, asked.seed, **settings) - exact).flatten(1).square().mean(dim=1).sqrt().mean())

    best: tuple[int, str, str, float] | None = None
    for nfe in FIXED:
        for method, spacing in product(CHOSEN_FROM, ("uniform", "karras", "found")):
            chosen = settings_for(trained, method, nfe)
            if chosen is not None and (found := error(**chosen, spacing=spacing)) <= asked.tolerance:
                best = (nfe, method, spacing, found) if best is None or found < best[3] else best
        if best is not None:
            break
    choice = trained.choice
    row = {
        "problem": name,
        "chosen": f"{choice.method}, {choice.spacing}, {trained.nfe} NFE",
        "nfe": trained.nfe,
        "error": round(error(), 4),
        "best_fixed": None if best is None else f"{best[1]}, {best[2]}, {best[0]} NFE",
        "best_fixed_nfe": None if best is None else best[0],
        "best_fixed_error": None if best is None else round(best[3], 4),
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [run(name, asked) for name in PROBLEMS]
    checks = {}
    for row in rows:
        checks[f"{row['problem']}: within the tolerance on fresh x"] = row["error"] <= asked.tolerance
        within = row["best_fixed_nfe"] is not None and row["nfe"] <= 2 * row["best_fixed_nfe"]
        checks[f"{row['problem']}: at most twice the NFE of the best fixed solver"] = within
    for name, held in checks.items():
        print("met   " if held else "MISSED", name)
    settings = {"seconds": asked.seconds, "tolerance": asked.tolerance, "seed": asked.seed, "x": X, "draws": DRAWS}
    write("solvers", {**settings, "checks": checks, "rows": rows})


if __name__ == "__main__":
    main()
