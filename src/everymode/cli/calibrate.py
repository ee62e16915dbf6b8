"""`everymode calibrate`: do the draws of a run spread as the answers of other rows do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli._asking import read_answered
from everymode.cli.options import Device, Json, Quiet, Run, Seed
from everymode.cli.voice import Voice


def command(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Rows that the run has not seen: .csv, .parquet or .npz.")],
    draws: Annotated[int, typer.Option("-n", "--draws", help="Draws for each row.")] = 200,
    max_rows: Annotated[int, typer.Option(help="Of more rows, so many are judged.")] = 5000,
    out: Annotated[Path | None, typer.Option(help="A folder; a fresh one in that of the run by default.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test whether the answers of a table could be draws of a run: shifted, too narrow, answers missing?

    Writes calibration.html, calibration.json and the figures into a folder `calibration` of the run.
    """
    from dataclasses import asdict, replace

    from everymode import plots
    from everymode.calibration import calibrate
    from everymode.estimator import load
    from everymode.files import write_json
    from everymode.report import Section, write_report
    from everymode.runs import check_free, fresh_folder, new_run

    voice = Voice(json=json, quiet=quiet)
    check_free(out)
    model = load(run, device=device)
    X, Y, seen = read_answered(run, table)
    found = calibrate(model, X, Y, n_draws=draws, max_rows=max_rows, random_state=seed)
    if seen:
        remark = f"{seen:,} of {len(X):,} rows are in the table that the run was trained on, too: they flatter it"
        found = replace(found, remarks=(*found.remarks, remark))
        voice.say(f"{remark}. Give rows that it has not seen.")
    voice.show(str(found))
    folder = new_run("calibrate", out or fresh_folder(run / "calibration"))
    figures = plots.save_all(found, folder / "figures")
    checks = [asdict(check) for check in found.checks]
    sections = [
        Section("The verdict", f"{found.verdict}: {found.meaning}\n\n" + "\n\n".join(found.remarks), figures),
        Section("Every test by itself, its 95 % band, and its p-value among all of them", table=checks),
    ]
    write_report(folder / "calibration.html", found.title, sections)
    write_json(folder / "calibration.json", {**found.to_dict(), "rows_seen_in_training": seen})
    voice.show(f"report: {folder / 'calibration.html'}")
    voice.result({**found.to_dict(), "rows_seen_in_training": seen})
