"""Round the obstacle, through the posts, two blocks into two zones: which recipes fail, and how many ways each takes.

    python benchmarks/ways.py [--environments Obstacle,Avoiding,BlockPush] [--recipes mse,...] [--budget 1000]
                               [--episodes 200] [--seed 0] [--folder runs/ways]

Every recipe learns from the same scripted demonstrations, with the same budget, and is judged on the same fresh starts
(seeds from 200000), and from as many symmetric ones, which favour no way. Networks are small, for one core. Entropy and
ways are those of the successful episodes from symmetric starts. Finished recipes are kept in the folder. Writes
benchmarks/results/ways.json (what is not asked for keeps what it says of it; every row tells its budget) and
docs/images/obstacle_ways.png, avoiding_ways.png and block_push_ways.png. Of BlockPush it tells p1 and p2, as the field
does: how often one block, and how often both, came to lie in a zone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from everymode import plots
from everymode.comparison import Budget
from everymode.plots.style import house
from everymode.policies import Demonstrations, environments, load_policy, recipes
from everymode.policies.comparison import WAYS_FILE, Trial, compare_policies
from everymode.policies.episodes import Rollouts
from everymode.policies.evaluation import EVALUATION_FILE, Evaluation, chunk_milliseconds, evaluate
from everymode.policies.rollouts import maker
from peers import earlier, interval_of, write

RECIPES = ("mse", "diffusion_policy", "flow_policy", "lstm_gmm", "bet", "ibc")
WIDTH = {"Obstacle": 64, "Avoiding": 128, "BlockPush": 128}  # so that minutes of one core are enough
UNET = 4  # of these, a U-Net has the fourth part, and more parameters all the same
BATCH = {"Obstacle": 64, "Avoiding": 256, "BlockPush": 256}  # of the multilayer perceptron
OTHER_BATCH = 64
GOOD = ("diffusion_policy", "flow_policy")
SHOWN = {"Obstacle": 200, "Avoiding": 480, "BlockPush": 400}  # demonstrations: 20 and more of each way
LEAST_WAYS = {"Obstacle": 2, "Avoiding": 18}  # that are asked for; of BlockPush nothing is
FIGURES = {"Obstacle": "obstacle", "Avoiding": "avoiding", "BlockPush": "block_push"}
IMAGES = Path(__file__).parents[1] / "docs" / "images"


def settings_of(recipe: str, environment: str) -> dict[str, int]:
    """Return what a recipe is trained with here, beside its own settings."""
    network, width = recipes.recipe(recipe).policy.get("network"), WIDTH[environment]
    fast = network is None and recipe != "ibc"
    return {
        "width": width // UNET if network == "unet" else width,
        "batch_size": BATCH[environment] if fast else OTHER_BATCH,
    }


def described(found: Evaluation, symmetric: Evaluation) -> dict[str, Any]:
    """Return a row of the result."""
    done = symmetric.of_successes

    def share(of: Evaluation, name: str) -> dict[str, Any] | None:
        measure = of.reached.get(name) or getattr(of, name)
        return measure and {"share": round(measure.value, 4), "interval": interval_of(measure)}

    return {
        "score": round(found.score.value, 4),
        "success": share(found, "success"),
        "collided": share(found, "collided"),
        **{name: share(found, name) for name in found.reached},
        "symmetric": {
            "success": share(symmetric, "success"),
            "collided": share(symmetric, "collided"),
            "ways_taken": done.ways_taken,
            "ways": done.ways if len(done.ways) <= 2 else None,
            "entropy": None if done.entropy is None else round(done.entropy.value, 4),
            "entropy_demonstrators": None if done.entropy is None else round(done.entropy.floor or 0.0, 4),
            "entropy_share": None if done.entropy_share is None else round(done.entropy_share, 4),
            "recall": None if done.recall is None else round(done.recall.value, 4),
            "commitment": None if done.commitment is None else round(done.commitment.value, 4),
        },
        "commitment": None if found.behaviour.commitment is None else round(found.behaviour.commitment.value, 4),
        "seam_jump": found.behaviour.seam_jump,
        "inner_jump": found.behaviour.inner_jump,
        "nfe": found.nfe,
        "chunk_ms_median": round(found.chunk_ms_median, 3),
        "chunk_ms_p95": round(found.chunk_ms_p95, 3),
        "parameters": found.parameters,
        "train_seconds": round(found.train_seconds or 0.0, 1),
    }


def run(environment: str, asked: argparse.Namespace) -> tuple[Trial, dict[str, Any], dict[str, Any]]:
    """Return what the recipes were put through in one environment, their rows, and what is told of all of them."""
    shown = environments.demonstrate(environment, SHOWN[environment], asked.seed)
    trial = Trial(environment, Budget.parse(asked.budget), asked.episodes, shown=60, seed=asked.seed)
    folder = Path(asked.folder) / environment
    chosen = {
        name: recipes.get(name, **settings_of(name, environment), device="cpu") for name in asked.recipes.split(",")
    }

    def tell(name: str, found: Evaluation | str, done: int, total: int) -> None:
        print(f"[{done}/{total}] {environment}: {name}\n{found}", flush=True)

    found = compare_policies(chosen, shown, trial, folder, progress=tell)
    rows = {}
    for name, each in found.evaluations.items():
        place = folder / "recipes" / name
        spent = chunk_milliseconds(
            load_policy(place, device="cpu"), maker(environment)
        )  # all in one go, for a fair table
        each = replace(each, chunk_ms_median=float(np.median(spent)), chunk_ms_p95=float(np.quantile(spent, 0.95)))
        rows[name] = {
            "budget": str(trial.budget),
            **settings_of(name, environment),
            **described(each, from_symmetric(place, environment, shown, asked)),
        }
    print(found)
    told = {
        "episodes": asked.episodes,
        "demonstrations": {"episodes": shown.n_episodes, "steps": shown.steps},
        "failures": found.failures,
    }
    return trial, rows, told


def from_symmetric(place: Path, environment: str, shown: Demonstrations, asked: argparse.Namespace) -> Evaluation:
    """Return the evaluation of a kept policy from symmetric starts, made now or kept from before."""
    kept = place / "symmetric"
    if kept.is_dir() and (kept / EVALUATION_FILE).stat().st_mtime > (place / EVALUATION_FILE).stat().st_mtime:
        return Evaluation.load(kept)
    found = evaluate(
        load_policy(place, device="cpu"),
        environment,
        asked.episodes,
        options={"symmetric": True},
        demonstrations=shown,
        random_state=asked.seed,
    )
    found.save(kept)
    return found


def draw(environment: str, trial: Trial, folder: Path) -> None:
    """Write the figure of all paths from one symmetric start, of every recipe that is kept."""
    kept = {name: folder / "recipes" / name / WAYS_FILE for name in RECIPES}
    paths = {name: Rollouts.load(file) for name, file in kept.items() if file.is_file()}
    IMAGES.mkdir(parents=True, exist_ok=True)
    with house():
        plots.draw("ways", trial.start().beside(paths)).savefig(IMAGES / f"{FIGURES[environment]}_ways.png", dpi=100)


def checks(environment: str, rows: dict[str, Any]) -> dict[str, bool]:
    """Return what is asked for, and whether it holds."""
    if environment not in LEAST_WAYS:
        return {}
    least = LEAST_WAYS[environment]
    held = {}
    if "mse" in rows:
        held["mse collides in more than half of the symmetric episodes"] = (
            rows["mse"]["symmetric"]["collided"]["share"] > 0.5
        )
    for name in set(GOOD) & set(rows):
        row = rows[name]
        held[f"{name} succeeds in at least 95 %"] = row["success"]["share"] >= 0.95
        held[f"{name} takes at least {least} ways"] = row["symmetric"]["ways_taken"] >= least
        held[f"{name} has at least .9 of the demonstrators' entropy"] = (
            row["symmetric"]["entropy_share"] or 0.0
        ) >= 0.9
    for name, met in held.items():
        print("met   " if met else "MISSED", environment, name)
    return held


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", default=",".join(WIDTH))
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--budget", default="1000")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/ways")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for environment in asked.environments.split(","):
        trial, rows, told = run(environment, asked)
        draw(environment, trial, Path(asked.folder) / environment)
        found = earlier("ways").get("environments", {})  # as it is now: another run may have written it meanwhile
        rows = {**found.get(environment, {}).get("recipes", {}), **rows}
        told |= {"recipes": {name: rows[name] for name in RECIPES if name in rows}, "checks": checks(environment, rows)}
        found[environment] = told
        write("ways", {"seed": asked.seed, "first_seed": 200_000, "environments": found})


if __name__ == "__main__":
    main()
