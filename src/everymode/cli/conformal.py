"""`everymode conformal`: regions of a run that hold as much of new data as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli._asking import Force, Given, GivenFile, OutFile, prepare, read_answered, write_answers
from everymode.cli.options import Device, Json, Quiet, Run, Seed
from everymode.cli.voice import Voice


def command(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Rows that the run has not seen: .csv, .parquet or .npz.")],
    given: Given = None,
    given_file: GivenFile = None,
    level: Annotated[float, typer.Option(help="Share of new data that the regions hold.")] = 0.9,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws for each row.")] = 1000,
    out: OutFile = None,
    force: Force = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give regions that hold new answers as often as asked, whatever the run has learned.

    One line an interval where one column is told, in as many parts as there are answers; of several columns told
    together, one line a question with the size of its region.
    """
    import numpy as np
    import pandas as pd

    from everymode.conformal import Conformal

    voice = Voice(json=json, quiet=quiet)
    model, questions, target = prepare(run, device, given, given_file, out, force=force)
    X, Y, seen = read_answered(run, table)
    if seen:
        voice.say(
            f"{seen:,} of {len(X):,} rows are in the table that the run was trained on, too, and on such rows nothing "
            "is promised. Give rows that it has not seen."
        )
    regions = Conformal(model, X, Y, level=level, n_draws=n, random_state=seed)
    if len(target) == 1:
        parts = regions.predict_interval(questions)
        rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        low, high = np.concatenate(parts).T
        told = {f"{target[0]}_low": low, f"{target[0]}_high": high}
    else:
        rows, told = np.arange(len(questions)), {"size": regions.size(questions)}
    answers = pd.concat([questions.iloc[rows].reset_index(drop=True), pd.DataFrame(told)], axis=1)
    answers.insert(0, "row", rows)
    promise = {"level": level, "threshold": regions.threshold_, "rows": len(X), "rows_seen_in_training": seen}
    voice.say(f"score up to which y is inside: {regions.threshold_:.3g}; {level} if the model were right")
    write_answers(voice, answers, "regions", out, promise)
