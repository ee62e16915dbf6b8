"""`everymode diagnose`: is this one-to-many, where, and what does averaging cost?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli.options import Json, Out, Quiet, Seed, split_names
from everymode.cli.voice import Voice


def command(
    table: Annotated[Path, typer.Argument(help="A .csv, .parquet or .npz file.", show_default=False)],
    target: Annotated[list[str], typer.Option(help="Column(s) to predict: a,b or repeated.")],
    given: Annotated[list[str] | None, typer.Option(help="Column(s) known; every other one by default.")] = None,
    max_rows: Annotated[int, typer.Option(help="Of more rows, so many are looked at.")] = 10_000,
    out: Out = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether one x has several answers, where, and what averaging costs.

    Writes report.html, diagnosis.json and the figures into a run folder.
    """
    from everymode import plots
    from everymode.diagnosis import diagnose
    from everymode.files import write_json
    from everymode.report import Section, write_report
    from everymode.runs import check_free, new_run
    from everymode.tables import read_problem

    voice = Voice(json=json, quiet=quiet)
    check_free(out)
    X, Y = read_problem(table, split_names(target), split_names(given) or None)
    with voice.share("diagnosis") as move:
        found = diagnose(X, Y, random_state=seed, max_rows=max_rows, progress=move)
    voice.show(str(found))
    folder = new_run("diagnose", out)
    figures = plots.save_all(found, folder / "figures")
    sections = [Section("The verdict", str(found).replace("\n", "\n\n"), figures)]
    if len(found.examples):
        sections.append(
            Section("Rows that contradict each other", found.contradiction, table=found.examples.to_dict("records"))
        )
    write_report(folder / "report.html", found.title, sections)
    write_json(folder / "diagnosis.json", found.to_dict())
    voice.show(f"report: {folder / 'report.html'}")
    voice.result(found.to_dict())
