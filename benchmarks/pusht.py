"""Push-T from state: every recipe with the same budget, on 500 fresh starts that nothing was chosen on.

    python benchmarks/pusht.py [--recipes mse,flow_policy,...] [--minutes 60] [--episodes 500] [--checkpoints 5]
                               [--seed 0] [--threads 2] [--robots 50] [--device auto] [--folder runs/pusht] [--images]

Every recipe learns from pusht_lowdim.npz, in EVERYMODE_DATA, by default the folder shared/data beside the checkout. The
best of its checkpoints is chosen on 50 starts from seed 100000 and reported on fresh ones from 200000; the score that
it was chosen for stands beside as `best_of_checkpoints`, to show how much choosing flatters. A chunk is timed for one
robot on one core. Networks other than the multilayer perceptron are small and see 64 windows a step, so that minutes
of a CPU are enough. Finished recipes are kept in the folder, and rows that are not asked for in the result.
Writes benchmarks/results/pusht.json (pusht_cuda.json where that is the device).

--images: a policy sees pictures of the table, pusht_images.npz, and where the pusher is, in the place of the state.
Writes pusht_images.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from everymode.comparison import Budget
from everymode.policies import Demonstrations, load_policy, recipes
from everymode.policies.comparison import Trial, compare_policies
from everymode.policies.evaluation import Evaluation
from everymode.policies.readers import read_demonstrations
from peers import DATA, earlier, interval_of, write

CHOOSING = 50
SETTINGS: dict[str, dict[str, int]] = {  # by network, beside the recipe's own
    "unet": {"width": 32, "batch_size": 64},
    "action_transformer": {"width": 128, "batch_size": 64},
    "lstm": {"width": 128, "batch_size": 64},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # the fitted policy of a recipe, drawn from otherwise
    "flow_policy in 2 steps": ("flow_policy", {"family__steps": 2, "execution_horizon": 5}),
}
OF_RECIPES: dict[str, dict[str, int]] = {"ibc": {"width": 64, "batch_size": 64}}  # 4,096 energies for one action


def settings_of(recipe: str) -> dict[str, int]:
    """Return what a recipe is trained with here, beside its own settings."""
    return OF_RECIPES.get(recipe, SETTINGS.get(recipes.recipe(recipe).policy.get("network") or "mlp", {}))


def row(recipe: str, found: Evaluation, settings: dict[str, Any], checkpoints: int) -> dict[str, Any]:
    """Return what the table says of a recipe."""
    seeds = [episode.seed for episode in found.rollouts]
    return {
        "recipe": recipe,
        "mean_score": round(found.score.value, 4),
        "score_interval": interval_of(found.score),
        "final_score": round(found.final.value, 4),
        "success": round(found.success.value, 4),
        "best_of_checkpoints": found.best_of_checkpoints and round(found.best_of_checkpoints, 4),
        "nfe": found.nfe,
        "chunk_ms_median": round(found.chunk_ms_median, 3),
        "chunk_ms_p95": round(found.chunk_ms_p95, 3),
        "parameters": found.parameters,
        "train_minutes": round((found.train_seconds or 0.0) / 60, 2),
        "settings": settings,
        "checkpoints": checkpoints,
        "seeds": [seeds[0], seeds[-1]],
        "seam_jump": found.behaviour.seam_jump,
        "inner_jump": found.behaviour.inner_jump,
    }


def rows_of(result: str, terms: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of a result by recipe; a table is of equal terms, and of others it stops."""
    found = earlier(result)
    if not found:
        return {}
    if any(found.get(key) != value for key, value in terms.items()):
        sys.exit(f"{result}.json is a table of other terms than {terms}: move it away, or ask for its own.")
    return {each["recipe"]: each for each in found["recipes"]}


def drawn_otherwise(folder: str, settings: dict[str, Any], trial: Trial) -> Evaluation:
    """Return what the fitted policy in a folder is worth with other settings of its draws, on the same starts."""
    policy = load_policy(folder)
    for name, value in settings.items():
        owner: Any = policy.family_ if name.startswith("family__") else policy
        owner.set_params(**{name.removeprefix("family__"): value})
    return trial.judge(policy)


def demonstrations(images: bool) -> Demonstrations:
    """Return the demonstrations: of the state, or of pictures and the place of the pusher."""
    file = DATA / "pusht_lowdim.npz"
    if not images:
        return read_demonstrations(file, keys=["state"])
    shown = read_demonstrations([file, DATA / "pusht_images.npz"], keys=["state", "image"])
    seen = {"state": np.asarray(shown.observations["state"])[:, :2], "image": shown.observations["image"]}
    return replace(shown, observations=seen, angles={}, names={})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipes", default=",".join([*recipes.names(), *VARIANTS]))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--robots", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", default="runs/pusht")
    parser.add_argument("--images", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shown = demonstrations(asked.images)
    trial = Trial(
        "PushT",
        Budget(seconds=60 * asked.minutes),
        asked.episodes,
        asked.checkpoints,
        choosing=min(CHOOSING, asked.episodes),
        shown=0,
        robots=asked.robots,
        settings={"image": True} if asked.images else {},
        seed=asked.seed,
    )
    variants = [name for name in asked.recipes.split(",") if name in VARIANTS]
    fitted = [VARIANTS[name][0] for name in variants]
    names = list(dict.fromkeys([*(name for name in asked.recipes.split(",") if name not in VARIANTS), *fitted]))
    settings = {name: settings_of(name) | ({"batch_size": 64} if asked.images else {}) for name in names}
    chosen = {name: recipes.get(name, **settings[name], device=asked.device) for name in names}

    result = "pusht" + "_images" * asked.images + "_cuda" * (asked.device == "cuda")
    terms = {
        "minutes": asked.minutes,
        "threads": asked.threads,
        "seed": asked.seed,
        "choosing": trial.choosing,
        "demonstrations": {"episodes": shown.n_episodes, "steps": shown.steps},
    }
    rows_of(result, terms)  # before any work

    def tell(name: str, found: Evaluation | str, done: int, total: int) -> None:
        print(f"[{done}/{total}] {name}\n{found}", flush=True)

    found = compare_policies(chosen, shown, trial, asked.folder, progress=tell)
    print(found)
    kept = rows_of(result, terms)
    kept |= {name: row(name, each, settings[name], asked.checkpoints) for name, each in found.evaluations.items()}
    for name in variants:
        recipe, others = VARIANTS[name]
        if recipe not in found.failures:
            again = drawn_otherwise(f"{asked.folder}/recipes/{recipe}", others, trial)
            kept[name] = row(name, again, {**settings[recipe], **others}, asked.checkpoints)
    write(result, {**terms, "recipes": list(kept.values()), "failures": found.failures})


if __name__ == "__main__":
    main()
