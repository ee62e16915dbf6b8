"""One answer in one or two evaluations: every family of few steps beside a flow of 100, on four problems.

    python benchmarks/few_steps.py [--seconds 60] [--seed 0] [--jobs 2] [--folder runs/few_steps]

A flow is trained on 10,000 rows of each problem, and every other family from scratch on the same rows, and those that
can learn more from a teacher than its draws also from that flow; each with a network of the same width and as long.
Judged by the share of valid draws, the modes found and the speed of drawing, against the flow by 50 midpoint steps on
the same x. Finished fits are kept in the folder. Then one flow is measured by every solver and number of evaluations.
Writes benchmarks/results/few_steps.json and docs/images/steps.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

import everymode as em
from everymode import plots
from everymode.curve import StepsPoint, steps_curve
from everymode.distillation import distill
from everymode.estimator import OneToManyRegressor, load
from everymode.plots.style import house
from peers import write

PROBLEMS = ("fork", "sine_fold", "grid", "inverse_kinematics")
CURVE = "sine_fold"
SCRATCH = ("gm_flow", "drifting", "mean_flow", "shortcut", "consistency", "reflow")
TAUGHT = ("mean_flow", "shortcut", "consistency", "reflow")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
TEACHER, ROWS, WIDTH, ASKED, DRAWS = "flow_matching", 10_000, 64, 40, 500


def fitted(problem: str, family: str, taught: bool, asked: argparse.Namespace) -> OneToManyRegressor:
    """Return the model of a cell, trained now or kept from before."""
    name = f"{problem}-{family}{'-taught' if taught else ''}-{asked.seed}-{asked.seconds:g}s"
    file = Path(asked.folder) / f"{name}.safetensors"
    if file.exists():
        return load(file)
    settings: dict[str, Any] = {
        "width": WIDTH,
        "max_seconds": asked.seconds,
        "random_state": asked.seed,
        "steps": 20_000,
    }
    x, y = em.problems.get(problem).sample(ROWS, asked.seed)
    if taught:
        teacher = fitted(problem, TEACHER, False, asked)
        model = distill(teacher, x, family, rows=5 * ROWS, **settings)
    else:
        model = OneToManyRegressor(family, **settings).fit(x, y)
    model.save(file)
    return model


def point(model: OneToManyRegressor, problem: str, nfe: int, method: str | None) -> StepsPoint:
    """Return what the model answers in so many evaluations."""
    methods = None if method is None else (method,)
    known = em.problems.get(problem)
    return steps_curve(model, known, nfe=(nfe,), methods=methods, rows=ASKED, draws=DRAWS, seed=1000).points[0]


def run(problem: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of one problem."""
    torch.set_num_threads(1)
    teacher = fitted(problem, TEACHER, False, asked)
    flow = point(teacher, problem, 100, "midpoint")
    short = [point(teacher, problem, nfe, "euler") for nfe in (1, 2)]
    rows = [described(problem, TEACHER, False, found, flow) for found in (flow, *short)]
    for family, taught in [(name, False) for name in SCRATCH] + [(name, True) for name in TAUGHT]:
        model = fitted(problem, family, taught, asked)
        method = {"gm_flow": "mixture", "reflow": "euler"}.get(family)
        for nfe in (1,) if family == "drifting" else (1, 2):
            rows.append(described(problem, family, taught, point(model, problem, nfe, method), flow))
            print(rows[-1], flush=True)
    return rows


def described(problem: str, family: str, taught: bool, found: StepsPoint, flow: StepsPoint) -> dict[str, Any]:
    """Return a row of the result: the point, and what it is beside the flow's."""
    valid, before = found.valid_share or 0.0, flow.valid_share or 0.0
    speed = flow.milliseconds / found.milliseconds
    whole = found.modes_found == found.modes_total
    return {
        "problem": problem,
        "family": family,
        "taught": taught,
        "nfe": found.nfe,
        "valid_share": round(valid, 4),
        "modes": f"{found.modes_found}/{found.modes_total}",
        "sliced_wasserstein": round(found.sliced_wasserstein, 4),
        "milliseconds_1000": round(found.milliseconds, 4),
        "times_as_fast": round(speed, 1),
        "as_good": bool(whole and valid >= before - 0.02),
        "meets": bool(whole and valid >= before - 0.02 and speed >= 50 / found.nfe),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", default="runs/few_steps")
    asked = parser.parse_args()
    Path(asked.folder).mkdir(parents=True, exist_ok=True)
    found: Any = Parallel(n_jobs=asked.jobs)(delayed(run)(problem, asked) for problem in PROBLEMS)
    rows = [row for part in found for row in part]
    checks = {
        f"{nfe} NFE: a family as good as the flow of 100 on {problem}": any(
            row["meets"] for row in rows if row["problem"] == problem and row["nfe"] == nfe and row["family"] != TEACHER
        )
        for nfe in (1, 2)
        for problem in PROBLEMS
    }
    for name, held in checks.items():
        print("met   " if held else "MISSED", name)
    curve = steps_curve(
        fitted(CURVE, TEACHER, False, asked), em.problems.get(CURVE), rows=ASKED, draws=DRAWS, seed=1000
    )
    print(curve)
    settings = {"seconds": asked.seconds, "seed": asked.seed, "rows": ROWS, "width": WIDTH, "x": ASKED, "draws": DRAWS}
    write("few_steps", {**settings, "checks": checks, "rows": rows, "curve": curve.to_dict()})
    IMAGES.mkdir(parents=True, exist_ok=True)
    with house():
        plots.draw("steps", curve).savefig(IMAGES / "steps.png", dpi=100)


if __name__ == "__main__":
    main()
