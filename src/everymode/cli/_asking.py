"""What verbs that answer questions share: reading the questions, and writing a table of answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from everymode.cli.voice import Voice
    from everymode.estimator import OneToManyRegressor

__all__ = ["Force", "Given", "GivenFile", "OutFile", "prepare", "read_answered", "write_answers"]

Given = Annotated[list[str] | None, typer.Option(help="A known value, column=value; repeat for more.")]
GivenFile = Annotated[Path | None, typer.Option(help="A table of known values, one question a row.")]
OutFile = Annotated[Path | None, typer.Option(help="A .csv or .parquet file; stdout by default.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")]


def prepare(
    run: Path, device: str, given: list[str] | None, given_file: Path | None, out: Path | None, *, force: bool
) -> tuple[OneToManyRegressor, pd.DataFrame, list[str]]:
    """Return the model of a run, the questions and the names of the targets; refuse what cannot be written first."""
    from everymode.estimator import load
    from everymode.runs import read_run

    _check_out(out, force=force)
    model = load(run, device=device)
    settings, data = read_run(run)
    return model, _read_questions(given, given_file, data.loc[:, settings["given"]]), settings["target"]


def read_answered(run: Path, table: Path) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Return questions of a table and their answers, in the columns of a run, and how many the run was trained on.

    Raises:
        DataError: a column is missing, or does not hold what it held in training.
    """
    from everymode.errors import DataError
    from everymode.runs import count_seen, read_run
    from everymode.tables import alike, read_table, split_targets

    settings, data = read_run(run)
    frame = read_table(table)
    missing = [name for name in data.columns if name not in frame.columns]
    if missing:
        given, target = (", ".join(settings[part]) for part in ("given", "target"))
        raise DataError(
            f"{table} lacks {', '.join(missing)}: the run tells {target} given {given}, and needs them all."
        )
    X, Y = split_targets(frame, settings["target"], settings["given"])
    X = alike(X, data)
    return X, Y, count_seen(X.join(Y), data)


def _check_out(out: Path | None, *, force: bool) -> None:
    """Raise `FileError` if the file of answers cannot be written, before any is found."""
    from everymode.errors import FileError

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise FileError(f"--out {out}: give a name that ends in .csv or .parquet.")
    if out is not None and out.exists() and not force:
        raise FileError(f"{out} exists already; choose another name, or --force to overwrite it.")


def _read_questions(given: list[str] | None, given_file: Path | None, trained: pd.DataFrame) -> pd.DataFrame:
    """Return the questions, one a row, in the columns that a model was trained on.

    Raises:
        DataError: neither or both ways of asking are used, or columns or values do not fit.
    """
    from everymode.errors import DataError
    from everymode.tables import alike, pick_columns, read_table

    names = [str(name) for name in trained.columns]
    if (given is None) == (given_file is None):
        raise DataError(f"say what is known: --given {names[0]}=..., or --given-file with a table.")
    if given_file is None:
        return _questions(given or [], trained)
    table = read_table(given_file)
    return alike(table.loc[:, pick_columns(table, names, "given")], trained)


def write_answers(voice: Voice, answers: pd.DataFrame, what: str, out: Path | None, told: dict[str, Any]) -> None:
    """Write a table of answers to `out`, or say it: as CSV, or as JSON under the name `what`.

    What is `told` besides is said in JSON alone.
    """
    import sys

    from everymode.files import atomically

    if out is not None:
        with atomically(out) as file:
            if out.suffix == ".csv":
                file.write(answers.to_csv(index=False).encode())
            else:
                answers.to_parquet(file, index=False)
        voice.say(f"{len(answers)} {what} written to {out}")
        voice.result({"out": str(out), what: len(answers), **told})
    elif voice.json:
        voice.result({"columns": list(answers.columns), what: answers.to_dict(orient="records"), **told})
    else:
        sys.stdout.write(answers.to_csv(index=False))


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
