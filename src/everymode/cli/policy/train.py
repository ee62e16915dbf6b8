"""`everymode policy train`: a policy from demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from everymode.cli.options import Device, Json, Out, Quiet, Seed, Settings, parse_settings
from everymode.cli.voice import Voice

EnvSettings = Annotated[
    list[str] | None, typer.Option("--env-set", help="A setting of the environment, such as difficulty=0.8; repeat.")
]


def command(
    env: Annotated[
        str | None,
        typer.Option(help="Obstacle, Avoiding, ...; without --data its scripted demonstrator is learned from."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Demonstrations: a file or folder of any known format.")] = None,
    recipe: Annotated[str, typer.Option(help="mse, flow_policy, diffusion_policy, ...")] = "flow_policy",
    set_: Settings = None,
    env_set: EnvSettings = None,
    demonstrations: Annotated[int, typer.Option(help="Scripted episodes to learn from.")] = 200,
    minutes: Annotated[float, typer.Option(help="A bound on the training time.")] = 4.0,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; the other options are its own.")] = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a policy; the run folder holds it, its settings and the training state.

    Without a file, an environment's scripted demonstrator shows how it is done, and the default takes less than five
    minutes on two cores. Ctrl-C writes a checkpoint and stops; `everymode resume RUN` goes on from there.
    """
    from everymode.cli.policy._running import RUN_FILE, demonstrations_of, made, read_policy_run, train_run
    from everymode.errors import SettingError, check_number
    from everymode.files import write_json
    from everymode.runs import describe_machine, new_run
    from everymode.version import __version__

    voice = Voice(json=json, quiet=quiet)
    if resume is not None:
        train_run(resume, read_policy_run(resume), voice, device=device, resume=True)
        return
    if env is None and data is None:
        raise SettingError("what is to be learned? Name an environment with --env, or demonstrations with --data.")
    minutes = check_number("minutes", minutes, 0, exclusive_low=True)
    settings: dict[str, Any] = {
        "verb": "policy train",
        "recipe": recipe,
        "set": parse_settings(set_),
        "environment": env,
        "environment_settings": parse_settings(env_set, "--env-set"),
        "data": None if data is None else str(data),
        "demonstrations": demonstrations,
        "seed": seed,
        "training": {"max_seconds": 60 * minutes, "random_state": seed},
    }
    made(recipe, settings["set"])  # what cannot be trained is refused before there is a run folder
    settings["steps_seen"] = demonstrations_of(settings).steps
    folder = new_run("policy", out)
    write_json(folder / RUN_FILE, {**settings, "version": __version__, "machine": describe_machine()})
    train_run(folder, settings, voice, device=device)
