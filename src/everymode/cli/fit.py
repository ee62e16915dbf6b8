"""`everymode fit`: train on a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli.options import Device, Json, Out, Quiet, Seed, Settings, parse_settings, split_names
from everymode.cli.voice import Voice


def command(
    table: Annotated[Path, typer.Argument(help="A .csv, .parquet or .npz file.", show_default=False)],
    target: Annotated[list[str], typer.Option(help="Column(s) to predict: a,b or repeated.", show_default=False)],
    given: Annotated[list[str] | None, typer.Option(help="Column(s) known; every other one by default.")] = None,
    family: Annotated[str, typer.Option(help="How p(y given x) is represented.")] = "flow_matching",
    set_: Settings = None,
    out: Out = None,
    width: Annotated[int | None, typer.Option(help="Hidden width; follows from the rows by default.")] = None,
    depth: Annotated[int | None, typer.Option(help="Number of blocks.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The peak.")] = None,
    early_stopping: Annotated[bool, typer.Option(help="Hold rows out and stop when they gain no more.")] = True,
    max_seconds: Annotated[float | None, typer.Option(help="A bound on the training time.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16.")] = "auto",
    compile: Annotated[
        bool | None,
        typer.Option(help="Compile the steps, which takes some ten seconds; by default in long runs."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit p(target | given) on a table; the run folder holds the model, the data and the training state.

    Ctrl-C writes a checkpoint and stops; `everymode resume RUN` goes on from there, to the same weights.
    """
    import pandas as pd

    from everymode.cli.fitting import fit_run
    from everymode.families import get_family
    from everymode.inputs import read_target
    from everymode.networks import check_size
    from everymode.runs import new_run, write_run
    from everymode.tables import read_problem
    from everymode.training import Processes, TrainingSettings, resolve_device

    processes = Processes.here(resolve_device(device))
    voice = Voice(json=json and processes.is_main, quiet=quiet or not processes.is_main)
    X, Y = read_problem(table, split_names(target), split_names(given) or None)
    training = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_seconds": max_seconds,
        "precision": precision,
        "compile": "auto" if compile is None else compile,
    }
    family_settings = parse_settings(set_)
    # what cannot be trained is refused before there is a run folder
    read_target(Y, len(X))
    check_size(width, depth)
    TrainingSettings.for_rows(len(X), **training)
    settings = {
        "verb": "fit",
        "table": table.name,
        "target": list(Y.columns),
        "given": list(X.columns),
        "family": get_family(family, family_settings).name,
        "family_settings": family_settings,
        "estimator": {
            "width": width,
            "depth": depth,
            "early_stopping": early_stopping,
            "random_state": seed,
            **training,
        },
    }
    folder = new_run("fit", out) if processes.is_main else None
    folder = processes.agree(folder)
    data = pd.concat([X, Y], axis=1)
    if processes.is_main:
        write_run(folder, settings, data)
    _, summary = fit_run(folder, settings, data, voice, device=device)
    report(summary, voice, aloud=processes.is_main)


def report(summary: dict, voice: Voice, *, aloud: bool = True) -> None:
    """Say how a fit or resumed fit went, and exit with 130 if it was interrupted."""
    interrupted = summary["stopped"] == "interrupted"
    if aloud:
        voice.result(summary)
        folder, example = summary["run"], " ".join(f"--given {name}=..." for name in summary["given"][:3])
        if interrupted:
            voice.say(f"interrupted at step {summary['steps']}; go on with: everymode resume {folder}")
        else:
            loss = summary["held_out_loss"]
            voice.show(
                f"{summary['family']}: {summary['rows']} rows, {summary['parameters']:,} parameters, "
                f"{summary['steps']} steps in {summary['seconds']:.1f} s ({summary['stopped']}), {summary['precision']}"
                + ("" if loss is None else f", held-out loss {loss:.4f}")
            )
            voice.show(f"run: {folder}")
            voice.say(f"next: everymode sample {folder} {example} -n 1000 --out draws.csv")
            voice.say(f"      everymode plot {folder} --kind bands")
    if interrupted:
        raise typer.Exit(130)
