"""`everymode sample`: draw answers from a fitted model."""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli._asking import Force, Given, GivenFile, OutFile, prepare, write_answers
from everymode.cli.options import Device, Json, Quiet, Run
from everymode.cli.voice import Voice


def command(
    run: Run,
    given: Given = None,
    given_file: GivenFile = None,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws for each question.")] = 100,
    out: OutFile = None,
    force: Force = False,
    seed: Annotated[int | None, typer.Option(help="Of the draws; the run's own by default.")] = None,
    known: Annotated[
        list[str] | None, typer.Option(help="A part of the target that is known, column=value; the rest is drawn.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Below 1, draws keep nearer to the likely.")] = 1.0,
    distinct: Annotated[bool, typer.Option("--distinct", help="Answers that differ, each mode first.")] = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw from p(target | given): one line a draw, with the known values beside it."""
    import numpy as np
    import pandas as pd

    voice = Voice(json=json, quiet=quiet)
    model, questions, targets = prepare(run, device, given, given_file, out, force=force)
    steered = {"known": _known(known, targets), "temperature": temperature, "distinct": distinct}
    draws = model.sample(questions, n, random_state=seed, **steered).reshape(len(questions) * n, -1)
    answered = questions.loc[questions.index.repeat(n)].reset_index(drop=True)
    answered.insert(0, "row", np.repeat(np.arange(len(questions)), n))
    answered.insert(1, "draw", np.tile(np.arange(n), len(questions)))
    result = pd.concat([answered, pd.DataFrame(draws, columns=targets)], axis=1)
    write_answers(voice, result, "draws", out, {"nfe": model.nfe})


def _known(known: list[str] | None, targets: list[str]) -> list[float] | None:
    """Return the values of the targets, NaN where one is to be drawn."""
    from everymode.cli.options import parse_settings
    from everymode.errors import DataError, unknown_name

    if not known:
        return None
    values = parse_settings(known, "--known")
    for name, value in values.items():
        if name not in targets:
            raise DataError(unknown_name("target column of --known", name, targets))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DataError(f"--known {name}={value}: give a number.")
    return [float(values.get(name, "nan")) for name in targets]
