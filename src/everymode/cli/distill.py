"""`everymode distill`: teach a family of few steps what a run knows."""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli.fit import report
from everymode.cli.options import Device, Json, Out, Quiet, Run, Seed, Settings, parse_settings
from everymode.cli.voice import Voice


def command(
    run: Run,
    into: Annotated[str, typer.Option(help="The family to teach: mean_flow, reflow, shortcut, gm_flow, ...")],
    set_: Settings = None,
    out: Out = None,
    rows: Annotated[int, typer.Option(help="Draws of the teacher to learn from, about.")] = 50_000,
    width: Annotated[int | None, typer.Option(help="Hidden width; the teacher's by default.")] = None,
    depth: Annotated[int | None, typer.Option(help="Number of blocks; the teacher's by default.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, at most.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="A bound on the training time.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach another family what the model of a run knows, in a run folder of its own, which holds the teacher too."""
    import pandas as pd

    from everymode.cli.fitting import TEACHER_FILE, fit_run
    from everymode.distillation import lesson
    from everymode.estimator import load
    from everymode.families import get_family
    from everymode.networks import check_size
    from everymode.runs import check_free, new_run, read_run, write_run

    voice = Voice(json=json, quiet=quiet)
    family_settings = parse_settings(set_)
    name = get_family(into, family_settings).name
    check_size(width, depth)
    check_free(out)
    teacher = load(run, device=device)
    learned, data = read_run(run)
    X, answers = lesson(teacher, data.loc[:, learned["given"]], rows=rows, seed=seed)
    Y = pd.DataFrame(answers.reshape(len(answers), -1), columns=learned["target"])
    taught = pd.concat([X, Y], axis=1)
    settings = {
        "verb": "distill",
        "teacher": teacher.family_.name,
        "target": learned["target"],
        "given": learned["given"],
        "family": name,
        "family_settings": family_settings,
        "estimator": {
            "width": teacher.width_ if width is None else width,
            "depth": teacher.depth if depth is None else depth,
            "random_state": seed,
            "steps": steps,
            "max_seconds": max_seconds,
        },
    }
    folder = new_run("distill", out)
    teacher.save(folder / TEACHER_FILE)
    write_run(folder, settings, taught)
    _, summary = fit_run(folder, settings, taught, voice, device=device)
    report({**summary, "teacher": teacher.family_.name}, voice)
