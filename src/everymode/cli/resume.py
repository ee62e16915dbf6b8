"""`everymode resume`: go on with an interrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli.fit import report
from everymode.cli.options import Device, Json, Quiet, Run
from everymode.cli.voice import Voice


def command(
    run: Run,
    seed: Annotated[int | None, typer.Option(help="The run has its own; another one is refused.")] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was interrupted or killed: it ends in the weights of an uninterrupted run, bit for bit.

    A run of `fit`, or of `policy train`.
    """
    from everymode.cli.fitting import fit_run
    from everymode.cli.policy._running import RUN_FILE
    from everymode.errors import CheckpointError
    from everymode.persistence import MODEL_FILE
    from everymode.runs import read_run
    from everymode.training import Processes, resolve_device

    if (run / RUN_FILE).is_file():
        _resume_policy(run, seed, device, Voice(json=json, quiet=quiet))
        return
    processes = Processes.here(resolve_device(device))
    voice = Voice(json=json and processes.is_main, quiet=quiet or not processes.is_main)
    settings, data = read_run(run)
    _check_seed(run, seed, settings["estimator"]["random_state"])
    if (run / MODEL_FILE).exists():
        raise CheckpointError(f"the run in {run} is finished; there is nothing to resume.")
    _, summary = fit_run(run, settings, data, voice, device=device, resume=True)
    report(summary, voice, aloud=processes.is_main)


def _resume_policy(run: Path, seed: int | None, device: str, voice: Voice) -> None:
    from everymode.cli.policy._running import read_policy_run, train_run

    settings = read_policy_run(run)
    _check_seed(run, seed, settings["seed"])
    train_run(run, settings, voice, device=device, resume=True)


def _check_seed(run: Path, seed: int | None, own: int) -> None:
    from everymode.errors import SettingError

    if seed is not None and seed != own:
        raise SettingError(f"--seed {seed}: the run in {run} was started with seed {own}, and goes on with it.")
