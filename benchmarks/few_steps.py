"""One answer in one or two evaluations: every family of few steps beside a flow of 100, on four problems.

    python benchmarks/few_steps.py [--seconds 45] [--seed 0] [--folder runs/few_steps]
                                   [--problems ...] [--families ...] [--curve 0] [--fit]

A flow is trained on 10,000 rows of each problem, and every other family from scratch on the same rows, and those that
can learn more from a teacher than its draws also from that flow; each with a network of the same width and as long.
Judged by the share of valid draws, the modes found and the speed of drawing, against the flow by 50 midpoint steps on
the same x. Then one flow is measured by every solver and number of evaluations. Seconds are those of the processor, in
training and in drawing, so that what else runs beside it takes nothing from anyone.

Finished fits are kept in the folder; with --fit there is nothing else. What is measured takes the place of its rows in
benchmarks/results/few_steps.json, and rows that are not asked for stay, each with its date: a part can be done again
alone. Writes that file, and docs/images/steps.png.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

import everymode as em
from everymode import plots
from everymode.curve import StepsPoint, steps_curve
from everymode.distillation import distill
from everymode.estimator import OneToManyRegressor, load
from everymode.plots.style import house
from peers import earlier, write

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


def cells(asked: argparse.Namespace) -> list[tuple[str, bool]]:
    """Return the families that are asked for, and whether they are taught."""
    return [
        (name, taught)
        for taught, all_of in ((False, SCRATCH), (True, TAUGHT))
        for name in all_of
        if name in asked.families
    ]


def run(problem: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of one problem."""
    teacher = fitted(problem, TEACHER, False, asked)
    flow = point(teacher, problem, 100, "midpoint")
    short = [point(teacher, problem, nfe, "euler") for nfe in (1, 2)]
    rows = [described(problem, TEACHER, False, found, flow) for found in (flow, *short)]
    for family, taught in cells(asked):
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
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/few_steps")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--families", nargs="+", default=list(SCRATCH), choices=SCRATCH)
    parser.add_argument("--curve", type=int, default=1, help="0: the curve stays as it is")
    parser.add_argument("--fit", action="store_true", help="train what is not yet kept, and measure nothing")
    asked = parser.parse_args()
    Path(asked.folder).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    clock = SimpleNamespace(perf_counter=time.process_time)
    with patch("everymode.training.loop.time", clock), patch("everymode.curve.time", clock):
        if asked.fit:
            for problem in asked.problems:
                for family, taught in [(TEACHER, False), *cells(asked)]:
                    fitted(problem, family, taught, asked)
            return
        measure(asked)


def measure(asked: argparse.Namespace) -> None:
    """Measure what is asked for, and write it beside what is known already."""
    before = earlier("few_steps") or {"rows": [], "curve": None}
    found = {key(row): row for row in before["rows"]}
    for problem in asked.problems:
        found.update({key(row): row for row in run(problem, asked)})
    rows = list(found.values())
    checks = {
        f"{nfe} NFE: a family as good as the flow of 100 on {problem}": any(
            row["meets"] for row in rows if row["problem"] == problem and row["nfe"] == nfe and row["family"] != TEACHER
        )
        for nfe in (1, 2)
        for problem in PROBLEMS
    }
    for name, held in checks.items():
        print("met   " if held else "MISSED", name)
    curve = before["curve"]
    if asked.curve:
        model = fitted(CURVE, TEACHER, False, asked)
        points = steps_curve(model, em.problems.get(CURVE), rows=ASKED, draws=DRAWS, seed=1000)
        print(points)
        curve = points.to_dict()
        IMAGES.mkdir(parents=True, exist_ok=True)
        with house():
            plots.draw("steps", points).savefig(IMAGES / "steps.png", dpi=100)
    settings = {"seconds": asked.seconds, "seed": asked.seed, "rows": ROWS, "width": WIDTH, "x": ASKED, "draws": DRAWS}
    write("few_steps", {**settings, "checks": checks, "rows": rows, "curve": curve})


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells a row from others."""
    return row["problem"], row["family"], row["taught"], row["nfe"]


if __name__ == "__main__":
    main()
