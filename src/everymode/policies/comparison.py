"""Policies side by side: the same demonstrations, budget and starts for all, and what each costs."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from everymode.comparison import Budget
from everymode.errors import SettingError
from everymode.families import get_family
from everymode.files import write_json
from everymode.policies.checkpoints import fit_with_checkpoints
from everymode.policies.demonstrations import Demonstrations
from everymode.policies.episodes import Rollouts
from everymode.policies.evaluation import EVALUATION_FILE, Evaluation, choose, evaluate
from everymode.policies.policy import POLICY_FILE, Policy
from everymode.policies.ways import Ways
from everymode.version import __version__

__all__ = ["WAYS_FILE", "PolicyComparison", "Trial", "compare_policies"]

_CELL_FILE = "recipe.json"
WAYS_FILE = "ways.npz"


@dataclass(frozen=True, eq=False)
class PolicyComparison:
    """What became of several policies.

    Attributes:
        settings: what was asked for, JSON-ready.
        evaluations: by the name of the recipe, in the order in which they were asked for.
        families: the family of each recipe.
        failures: what went wrong, by the name of the recipe.
        ways: episodes of all from one start.
    """

    settings: dict[str, Any]
    evaluations: dict[str, Evaluation]
    families: dict[str, str]
    failures: dict[str, str] = field(default_factory=dict)
    ways: Ways | None = None

    @property
    def title(self) -> str:
        """One line."""
        told = f"{len(self.evaluations)} policies on {self.settings['environment']}"
        return told if self.settings["budget"] is None else f"{told}, {self.settings['budget']} each"

    @property
    def note(self) -> str:
        """What the numbers mean here."""
        return (
            f"{self.settings['episodes']} starts, the same for all, on which nothing was chosen. Score: mean of the "
            "best reward of an episode; ms a chunk: median and 95th percentile of one robot on one core."
        )

    def family_of(self, recipe: str) -> str:
        """Return the family of a recipe."""
        return self.families[recipe]

    def shown(self) -> list[dict[str, str]]:
        """Return a row of short texts a recipe; what nothing fills is left out."""
        rows = [_row(name, found) for name, found in self.evaluations.items()]
        rows += [{"recipe": f"{name}: failed"} for name in self.failures]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        filled = [name for name in columns if any(row.get(name, "-") != "-" for row in rows)]
        return [{name: row.get(name, "-") for name in filled} for row in rows]

    def __str__(self) -> str:
        shown = self.shown()
        widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in shown[0]}
        lines = [self.title, "  ".join(key.ljust(width) for key, width in widths.items())]
        lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip() for row in shown]
        return "\n".join([*lines, self.note])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return settings, evaluations by recipe, and failures, JSON-ready."""
        found = {name: {"family": self.families[name], **each.to_dict()} for name, each in self.evaluations.items()}
        return {"settings": self.settings, "recipes": found, "failures": self.failures}


def _row(name: str, found: Evaluation) -> dict[str, str]:
    behaviour = found.of_successes
    share = behaviour.entropy_share
    return {
        "recipe": name,
        "score": _interval(found.score.value, found.score.low, found.score.high),
        "success": f"{100 * found.success.value:.1f} %",
        **{name: f"{100 * share.value:.1f} %" for name, share in found.reached.items()},
        "collided": "-" if found.collided is None else f"{100 * found.collided.value:.1f} %",
        "ways": f"{behaviour.ways_taken} of {len(behaviour.ways)}" if behaviour.ways else "-",
        "entropy": "-" if share is None else f"{100 * share:.0f} %",
        "committed": "-" if behaviour.commitment is None else f"{100 * behaviour.commitment.value:.0f} %",
        "best of checkpoints": "-" if found.best_of_checkpoints is None else f"{found.best_of_checkpoints:.3f}",
        "ms a chunk": f"{found.chunk_ms_median:.2f} / {found.chunk_ms_p95:.2f}",
        "NFE": "-" if found.nfe is None else f"{found.nfe}",
        "parameters": "-" if found.parameters is None else f"{found.parameters:,}",
        "train s": "-" if found.train_seconds is None else f"{found.train_seconds:.0f}",
    }


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


@dataclass(frozen=True)
class Trial:
    """What every policy of a comparison is put through.

    Attributes:
        environment: a name of `everymode.policies.environments`.
        budget: of each fit; None leaves it to the policy.
        episodes: starts that are reported on.
        checkpoints: along the training, among which the best is chosen on other starts; 1 takes the last.
        choosing: starts that a checkpoint is chosen on.
        shown: episodes from one start, for the picture of paths; 0 for none.
        robots: environments side by side. jobs: processes.
        settings: of the environment.
        options: for its `reset`.
        seed: of the fit and the draws.
    """

    environment: str
    budget: Budget | None = None
    episodes: int = 100
    checkpoints: int = 1
    choosing: int = 50
    shown: int = 40
    robots: int = 32
    jobs: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] | None = None
    seed: int = 0

    def described(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        told = {**vars(self), "budget": None if self.budget is None else str(self.budget)}
        return json.loads(json.dumps(told))

    def run(self, policy: Policy, demonstrations: Demonstrations, folder: Path) -> None:
        """Fit a policy, evaluate it, and write the policy and its episodes into the folder."""
        budget = {} if self.budget is None else self.budget.settings()
        known = {name: value for name, value in budget.items() if name in policy.get_params(deep=False)}
        fitted: Policy = clone(policy)  # pyright: ignore[reportAssignmentType]
        fitted.set_params(**known, random_state=self.seed)
        best = None
        checkpoints = fit_with_checkpoints(fitted, demonstrations, self.checkpoints)
        if self.checkpoints > 1:
            chosen = choose(
                checkpoints,
                self.environment,
                self.choosing,
                robots=self.robots,
                settings=self.settings,
                random_state=self.seed,
            )
            fitted, best = checkpoints[chosen.name], chosen.score
        found = self.judge(fitted, demonstrations, best)
        fitted.save(folder / POLICY_FILE)
        if self.shown and found.behaviour.ways:
            drawn = self.start().roll(fitted, self.shown, robots=self.robots, random_state=self.seed)
            drawn.save(folder / WAYS_FILE)
        found.save(folder)

    def judge(
        self, policy: Policy, demonstrations: Demonstrations | None = None, best_of_checkpoints: float | None = None
    ) -> Evaluation:
        """Return what a fitted policy is worth on the starts of the trial."""
        return evaluate(
            policy,
            self.environment,
            self.episodes,
            robots=self.robots,
            jobs=self.jobs,
            settings=self.settings,
            options=self.options,
            demonstrations=demonstrations,
            best_of_checkpoints=best_of_checkpoints,
            random_state=self.seed,
        )

    def start(self) -> Ways:
        """Return the one start that paths are shown from."""
        return Ways.of(self.environment, settings=self.settings)


def compare_policies(
    policies: Mapping[str, Policy],
    demonstrations: Demonstrations,
    trial: Trial,
    folder: str | Path,
    *,
    progress: Callable[[str, Evaluation | str, int, int], None] | None = None,
) -> PolicyComparison:
    """Return what became of each policy; what crashes is told, and the rest goes on.

    Args:
        policies: settings only, by the name of the recipe.
        demonstrations: what all learn from.
        trial: what all are put through.
        folder: where finished ones are kept, and found again; crashed ones are run anew.
        progress: told the recipe, its evaluation or what went wrong, how many are done, and of how many.

    Raises:
        SettingError: there is no policy to compare.
    """
    if not policies:
        raise SettingError("there is nothing to compare: name at least one recipe.")
    evaluations: dict[str, Evaluation] = {}
    failures: dict[str, str] = {}
    paths: dict[str, Rollouts] = {}
    for number, (name, policy) in enumerate(policies.items(), 1):
        place = Path(folder) / "recipes" / "".join(c if c.isalnum() or c in "_-." else "-" for c in name)
        identity = _identity(policy, demonstrations, trial)
        if not _finished(place, identity):
            try:
                trial.run(policy, demonstrations, place)
                write_json(place / _CELL_FILE, {"recipe": name, "identity": identity})
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
                failures[name] = reason
                write_json(place / _CELL_FILE, {"recipe": name, "error": reason, "details": traceback.format_exc()})
        if name not in failures:
            evaluations[name] = Evaluation.load(place)
            if (place / WAYS_FILE).is_file():
                paths[name] = Rollouts.load(place / WAYS_FILE)
        if progress is not None:
            progress(name, failures.get(name) or evaluations[name], number, len(policies))
    families = {name: get_family(policy.family).name for name, policy in policies.items()}
    described = {**trial.described(), "demonstrations": _described(demonstrations), "recipes": list(policies)}
    return PolicyComparison(described, evaluations, families, failures, trial.start().beside(paths) if paths else None)


def _identity(policy: Policy, demonstrations: Demonstrations, trial: Trial) -> dict[str, Any]:
    """Return what decides a result: a recipe with the same identity is not run again."""
    family = get_family(policy.family)
    usual, own = Policy().get_params(deep=False), policy.get_params(deep=False)
    params = {name: value for name, value in own.items() if name not in ("family", "network") and value != usual[name]}
    described = {
        "family": {"name": family.name, "settings": family.settings()},
        "network": policy.network if isinstance(policy.network, str) else str(policy.network),
        "policy": params,
        "demonstrations": _described(demonstrations),
        "trial": trial.described(),
        "version": __version__,
    }
    return json.loads(json.dumps(described, default=str))


def _described(demonstrations: Demonstrations) -> dict[str, Any]:
    actions = np.asarray(demonstrations.actions, dtype=np.float64)
    return {
        "source": demonstrations.source,
        "episodes": demonstrations.n_episodes,
        "steps": demonstrations.steps,
        "actions": [round(float(value), 9) for value in (actions.mean(), actions.std())],
    }


def _finished(place: Path, identity: dict[str, Any]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads((place / _CELL_FILE).read_text())
        return known.get("identity") == identity and (place / EVALUATION_FILE).is_file()
    return False
