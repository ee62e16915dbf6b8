"""What the verbs of a policy share: where demonstrations come from, its run folder, and training in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from everymode.cli.fitting import stoppable, threads
from everymode.cli.voice import Voice
from everymode.errors import CheckpointError, SettingError
from everymode.files import write_json
from everymode.policies.policy import POLICY_FILE

if TYPE_CHECKING:
    from everymode.policies import Demonstrations, Policy

__all__ = ["RUN_FILE", "demonstrations_of", "made", "read_policy_run", "report", "train_run"]

RUN_FILE = "policy.json"
_SUMMARY_FILE = "summary.json"


def made(recipe: str, settings: Mapping[str, Any], **policy: Any) -> Policy:
    """Return the policy of a recipe; settings that are none of a policy's belong to its family.

    Args:
        recipe: its name, see `everymode.policies.recipes`.
        settings: of the policy or its family, as they were given with --set.
        policy: further settings of the policy.

    Raises:
        SettingError: no recipe has that name, or no setting.
    """
    from everymode.networks import check_size
    from everymode.policies import Policy, recipes

    known = Policy().get_params(deep=False)
    named = {name if name in known else f"family__{name}": value for name, value in settings.items()}
    chosen = recipes.get(recipe, **named, **policy)
    check_size(chosen.width, chosen.depth)
    return chosen


def demonstrations_of(settings: Mapping[str, Any]) -> Demonstrations:
    """Return the demonstrations that a run names: a file's, or scripted ones of an environment.

    Of a file, the observations that the environment gives, too; all of them where none is named.
    """
    from everymode.policies import environments

    if settings["data"] is not None:
        from everymode.policies.readers import read_demonstrations

        seen = (
            None
            if settings["environment"] is None
            else _observed(settings["environment"], settings["environment_settings"])
        )
        return read_demonstrations(settings["data"], keys=seen)
    return environments.demonstrate(
        settings["environment"], settings["demonstrations"], settings["seed"], **settings["environment_settings"]
    )


def _observed(environment: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of what an environment gives to see."""
    from everymode.policies import environments
    from everymode.policies.demonstrations import STATE

    env = environments.make(environment, **settings)
    try:
        return list(getattr(env.observation_space, "spaces", None) or [STATE])
    finally:
        env.close()


def read_policy_run(folder: str | Path) -> dict[str, Any]:
    """Return the settings of a run folder.

    Raises:
        CheckpointError: the folder is no run of a policy, or its settings are damaged.
    """
    file = Path(folder) / RUN_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder} is no run of a policy: it holds no {RUN_FILE}. `everymode policy train` makes one."
        )
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the run in {folder} is damaged: {error}") from error


def train_run(folder: Path, settings: Mapping[str, Any], voice: Voice, *, device: str, resume: bool = False) -> None:
    """Train in a run folder and write the policy and summary.json; exit with 130 if a signal stopped it.

    Args:
        folder: of the run.
        settings: as policy.json holds them.
        voice: for the bar and the result.
        device: where.
        resume: whether to go on from the folder's training state.
    """
    if resume and (folder / POLICY_FILE).exists():
        raise CheckpointError(f"the run in {folder} is finished; there is nothing to resume.")
    demonstrations = demonstrations_of(settings)
    if demonstrations.steps != settings["steps_seen"]:
        raise CheckpointError(
            f"the run in {folder} began on {settings['steps_seen']} steps, and there are {demonstrations.steps} now: "
            "the demonstrations have changed; begin a fresh run."
        )
    policy = made(settings["recipe"], settings["set"], **settings["training"], device=device)
    voice.say(
        f"{settings['recipe']} on {demonstrations.source}: {demonstrations.n_episodes} episodes, "
        f"{demonstrations.steps} steps"
    )
    width = policy.width or (64 if demonstrations.steps < 10_000 else 256)
    with stoppable() as stop, threads(width), voice.bar(settings["recipe"]) as move:
        policy.fit(demonstrations, checkpoint_folder=folder, resume=resume, progress=move, interrupted=stop)
    interrupted = policy.stopped_ == "interrupted"
    if not interrupted:
        policy.save(folder / POLICY_FILE)
    report(folder, settings, policy, voice)
    if interrupted:
        raise typer.Exit(130)


def report(folder: Path, settings: Mapping[str, Any], policy: Policy, voice: Voice) -> None:
    """Write summary.json and say how the training went."""
    from everymode.runs import describe_machine

    losses = [row["loss"] for row in policy.history_ if row["loss"] is not None and math.isfinite(row["loss"])]
    summary = {
        "run": str(folder),
        "recipe": settings["recipe"],
        "family": policy.family_.name,
        "steps": policy.n_steps_,
        "stopped": policy.stopped_,
        "loss": losses[-1] if losses else None,
        "seconds": round(policy.fit_seconds_, 3),
        "parameters": policy.n_parameters_,
        "nfe": policy.nfe,
        "precision": policy.precision_,
        "compiled": policy.compiled_,
        "machine": describe_machine(),
    }
    write_json(folder / _SUMMARY_FILE, summary)
    voice.result(summary)
    if policy.stopped_ == "interrupted":
        voice.say(f"interrupted at step {policy.n_steps_}; go on with: everymode resume {folder}")
        return
    voice.show(
        f"{settings['recipe']}: {policy.n_parameters_:,} parameters, {policy.n_steps_} steps in "
        f"{policy.fit_seconds_:.0f} s ({policy.stopped_}), {policy.precision_}, {policy.nfe} NFE"
    )
    voice.show(f"run: {folder}")
    where = "" if settings["environment"] is not None else " --env NAME"
    voice.say(f"next: everymode policy eval {folder}{where} --video")


def environment_of(settings: Mapping[str, Any], asked: str | None) -> str:
    """Return the environment to judge in: the one asked for, or that of the run.

    Raises:
        SettingError: neither is known.
    """
    name = asked or settings["environment"]
    if name is None:
        raise SettingError("this run was trained on a file; which environment is it for? Name it with --env.")
    return name
