"""`everymode policy data`: what do demonstrations hold, and at how many states do the demonstrators disagree?"""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli.options import Json, Out, Quiet, Seed, split_names
from everymode.cli.voice import Voice


def command(
    file: Annotated[
        list[str],
        typer.Argument(
            help="A file or folder of demonstrations, or hub:owner/name; several .npz files of the same steps.",
            show_default=False,
        ),
    ],
    format: Annotated[str, typer.Option(help="Its format; found by itself by default.")] = "auto",
    keys: Annotated[
        list[str] | None, typer.Option(help="Observation(s) to read: a,b or repeated; all of them.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="A filter key of a robomimic file, such as train.")] = None,
    horizon: Annotated[int, typer.Option(help="Actions that a policy would predict; shorter episodes are told.")] = 16,
    states: Annotated[
        int, typer.Option(help="Most states that are asked whether demonstrators disagree; 0: none.")
    ] = 2000,
    out: Out = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what demonstrations hold, and at how many states their demonstrators do several things.

    Writes report.html, data.json and the figures into a run folder.
    """
    from everymode import plots
    from everymode.errors import DataError
    from everymode.files import write_json
    from everymode.policies import read_demonstrations
    from everymode.policies.disagreement import disagreement
    from everymode.policies.overview import overview
    from everymode.report import Section, write_report
    from everymode.runs import check_free, new_run

    voice = Voice(json=json, quiet=quiet)
    check_free(out)
    demonstrations = read_demonstrations(
        file if len(file) > 1 else file[0], format, keys=split_names(keys) or None, subset=subset
    )
    held = overview(demonstrations, prediction_horizon=horizon)
    voice.show(str(held))
    found = None
    if states:
        try:
            with voice.share("disagreement") as move:
                found = disagreement(demonstrations, states=states, random_state=seed, progress=move)
            voice.show(f"{found.sentence}\n{found.diagnosis}")
        except DataError as error:  # few episodes, or nothing but pixels: what there is stands all the same
            voice.say(f"not asked whether the demonstrators disagree: {error}")
    folder = new_run("policy-data", out)
    figures = folder / "figures"
    sections = [Section("What there is", str(held).replace("\n", "\n\n"), plots.save_all(held, figures))]
    if found:
        drawn = plots.save_all(found, figures) + plots.save_all(found.diagnosis, figures)
        told = f"{found.sentence}\n{found.diagnosis}"
        sections.append(Section("Do they disagree?", told.replace("\n", "\n\n"), drawn))
    content = {**held.to_dict(), "disagreement": found.to_dict() if found else None}
    write_report(folder / "report.html", held.title, sections)
    write_json(folder / "data.json", content)
    voice.show(f"report: {folder / 'report.html'}")
    voice.result(content)
