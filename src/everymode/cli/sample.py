"""`everymode sample`: draw answers from a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everymode.cli.options import Device, Json, Quiet, Run
from everymode.cli.voice import Voice

if TYPE_CHECKING:
    import pandas as pd


def command(
    run: Run,
    given: Annotated[list[str] | None, typer.Option(help="A known value, column=value; repeat for more.")] = None,
    given_file: Annotated[Path | None, typer.Option(help="A table of known values, one question a row.")] = None,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws for each question.")] = 100,
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet file; stdout by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")] = False,
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
    import sys

    import numpy as np
    import pandas as pd

    from everymode.errors import DataError, FileError
    from everymode.estimator import load
    from everymode.files import atomically
    from everymode.runs import read_run
    from everymode.tables import alike, pick_columns, read_table

    voice = Voice(json=json, quiet=quiet)
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise FileError(f"--out {out}: give a name that ends in .csv or .parquet.")
    if out is not None and out.exists() and not force:
        raise FileError(f"{out} exists already; choose another name, or --force to overwrite it.")
    model = load(run, device=device)
    settings, data = read_run(run)
    trained = data.loc[:, settings["given"]]
    if (given is None) == (given_file is None):
        raise DataError(f"say what is known: --given {settings['given'][0]}=..., or --given-file with a table.")
    if given_file is not None:
        table = read_table(given_file)
        questions = alike(table.loc[:, pick_columns(table, settings["given"], "given")], trained)
    else:
        questions = _questions(given or [], trained)
    steered = {"known": _known(known, settings["target"]), "temperature": temperature, "distinct": distinct}
    draws = model.sample(questions, n, random_state=seed, **steered).reshape(len(questions) * n, -1)
    answered = questions.loc[questions.index.repeat(n)].reset_index(drop=True)
    answered.insert(0, "row", np.repeat(np.arange(len(questions)), n))
    answered.insert(1, "draw", np.tile(np.arange(n), len(questions)))
    result = pd.concat([answered, pd.DataFrame(draws, columns=settings["target"])], axis=1)
    if out is not None:
        with atomically(out) as file:
            if out.suffix == ".csv":
                file.write(result.to_csv(index=False).encode())
            else:
                result.to_parquet(file, index=False)
        voice.say(f"{len(result)} draws written to {out}")
        voice.result({"out": str(out), "draws": len(result), "nfe": model.nfe})
    elif json:
        voice.result({"columns": list(result.columns), "draws": result.to_dict(orient="records")})
    else:
        sys.stdout.write(result.to_csv(index=False))


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


def _questions(given: list[str], trained: pd.DataFrame) -> pd.DataFrame:
    """Return the one question that --given asks, each value of the kind that its column held in training."""
    import pandas as pd

    from everymode.cli.options import parse_settings
    from everymode.errors import DataError, unknown_name
    from everymode.tables import holds_text

    names = list(trained.columns)
    values = parse_settings(given, "--given")
    for name in values:
        if name not in names:
            raise DataError(unknown_name("given column", name, names))
    missing = [name for name in names if name not in values]
    if missing:
        raise DataError(f"--given lacks {', '.join(missing)}: the model was fitted on {', '.join(names)}.")
    texts = {name.strip(): text.strip() for name, _, text in (value.partition("=") for value in given)}
    for name in names:
        if holds_text(trained[name]):
            values[name] = texts[name]
        elif not isinstance(values[name], (int, float)):
            kind = "true or false" if pd.api.types.is_bool_dtype(trained[name]) else "numbers"
            raise DataError(f"--given {name}={texts[name]}: column {name!r} holds {kind}.")
    return pd.DataFrame({name: [values[name]] for name in names})
