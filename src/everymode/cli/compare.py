"""`everymode compare`: families side by side on held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli.options import Device, Json, Quiet, Seed, split_names
from everymode.cli.voice import Voice


def command(
    table: Annotated[Path, typer.Argument(help="A .csv, .parquet or .npz file.", show_default=False)],
    target: Annotated[list[str], typer.Option(help="Column(s) to predict: a,b or repeated.", show_default=False)],
    given: Annotated[list[str] | None, typer.Option(help="Column(s) known; every other one by default.")] = None,
    families: Annotated[list[str] | None, typer.Option(help="Names, a,b or repeated.")] = None,
    test_fraction: Annotated[float, typer.Option(help="Share of the rows held out from all.")] = 0.2,
    draws: Annotated[int, typer.Option(help="Draws a held-out row.")] = 200,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, at most.")] = None,
    width: Annotated[int | None, typer.Option(help="Hidden width.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="A bound on the training time of each.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit families on the same rows with the same settings, and judge them on rows held out from all of them."""
    from everymode.cli.fitting import threads
    from everymode.comparison import compare
    from everymode.families import get_family
    from everymode.tables import read_problem
    from everymode.training import default_width

    voice = Voice(json=json, quiet=quiet)
    names = split_names(families) or ["mse", "flow_matching"]
    for name in names:
        get_family(name)
    X, Y = read_problem(table, split_names(target), split_names(given) or None)
    with threads(width or default_width(len(X))):
        found = compare(
            X,
            Y.iloc[:, 0] if Y.shape[1] == 1 else Y,
            names,
            test_fraction=test_fraction,
            draws=draws,
            random_state=seed,
            steps=steps,
            width=width,
            max_seconds=max_seconds,
            device=device,
        )
    voice.table(f"{table.name}: {found.title}", found.shown(), found.note)
    voice.result(found.to_dict())
