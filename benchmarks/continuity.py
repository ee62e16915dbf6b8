"""What becomes of a policy whose chunks arrive late: four ways for chunks to meet, at delays of 0 to 4 control steps.

    python benchmarks/continuity.py [--steps 3000] [--episodes 100] [--seed 0] [--folder runs/continuity]
    python benchmarks/continuity.py --environment PushT --policy runs/pusht/recipes/flow_policy

`flow_policy` learns Obstacle from 200 scripted demonstrations, in a number of steps and not of seconds; or a fitted
policy is taken, such as that of benchmarks/pusht.py. It is judged on starts of the block "report" by its score and by
the jump of its actions where a new chunk begins. Writes benchmarks/results/continuity.json; an environment that is not
asked for keeps what it says of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from everymode.policies import environments, evaluate, load_policy, recipes
from everymode.policies.continuity import CONTINUITIES
from everymode.policies.policy import POLICY_FILE, Policy
from peers import earlier, write

DEMONSTRATIONS, DELAYS = 200, (0, 1, 2, 3, 4)


def trained(asked: argparse.Namespace) -> Policy:
    """Return the policy: the one that is given, or one trained now or kept from before."""
    if asked.policy is not None:
        return load_policy(asked.policy, device="cpu")
    file = Path(asked.folder) / f"{asked.environment}-{asked.steps}-{asked.seed}" / POLICY_FILE
    if not file.exists():
        shown = environments.demonstrate(asked.environment, DEMONSTRATIONS, asked.seed)
        recipes.get("flow_policy", steps=asked.steps, random_state=asked.seed).fit(shown).save(file)
    return load_policy(file, device="cpu")


def measured(policy: Policy, continuity: str, delay: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Return a row of the result."""
    policy.set_params(continuity=continuity, delay=delay)
    found = evaluate(policy, asked.environment, asked.episodes, robots=asked.robots, random_state=asked.seed)
    row = {
        "continuity": continuity,
        "delay": delay,
        "score": found.score.to_dict(),
        "success": found.success.to_dict(),
        "seam_jump": found.behaviour.seam_jump,
        "inner_jump": found.behaviour.inner_jump,
        "chunk_ms_median": round(found.chunk_ms_median, 3),
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/continuity")
    parser.add_argument("--environment", default="Obstacle")
    parser.add_argument("--policy")
    parser.add_argument("--robots", type=int, default=32)
    asked = parser.parse_args()
    policy = trained(asked)
    rows = [measured(policy, name, delay, asked) for name in CONTINUITIES for delay in DELAYS]
    by = {(row["continuity"], row["delay"]): row for row in rows}
    undelayed = by["none", 0]["score"]["value"]
    checks = {}
    for delay in DELAYS:
        ours, naive = by["real_time", delay], by["none", delay]
        checks[f"delay {delay}: real_time within .03 of the score without delay"] = (
            ours["score"]["value"] >= undelayed - 0.03
        )
        checks[f"delay {delay}: its jump at seams below half of the naive one"] = (
            ours["seam_jump"] < 0.5 * naive["seam_jump"]
        )
    for name, held in checks.items():
        print("met   " if held else "MISSED", name)
    told = {"recipe": "flow_policy", "demonstrations": DEMONSTRATIONS, "steps": asked.steps}
    told = told if asked.policy is None else {"policy": asked.policy}
    told |= {"episodes": asked.episodes, "seed": asked.seed, "checks": checks, "rows": rows}
    kept = earlier("continuity").get("environments", {})
    write("continuity", {"environments": {**kept, asked.environment: told}})


if __name__ == "__main__":
    main()
