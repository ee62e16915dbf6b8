"""`everymode steps`: what each step of a draw buys."""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli.options import Device, Json, Quiet, Run, Seed, split_names
from everymode.cli.voice import Voice


def command(
    run: Run,
    nfe: Annotated[list[str] | None, typer.Option(help="Network evaluations a draw: 1,2,4,... or repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Solvers and samplers; all by default.")] = None,
    problem: Annotated[str | None, typer.Option(help="A built-in problem that the table is of: judged by it.")] = None,
    rows: Annotated[int, typer.Option(help="Questions asked, at most.")] = 32,
    draws: Annotated[int, typer.Option("-n", "--draws", help="Draws for each question.")] = 400,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the draws of a run by solver and number of network evaluations; a table, a figure and steps.json.

    The distance is to the model's own finest draws; to those of its teacher, where it was distilled; or, with
    --problem, to real ones, and then valid answers and modes are counted too.
    """
    from everymode import plots, problems
    from everymode.cli.fitting import TEACHER_FILE
    from everymode.curve import NFE, steps_curve
    from everymode.errors import SettingError
    from everymode.estimator import load
    from everymode.files import write_json
    from everymode.runs import read_run

    voice = Voice(json=json, quiet=quiet)
    counts = split_names(nfe)
    if not all(count.isdigit() for count in counts):
        raise SettingError(f"--nfe {','.join(counts)}: give whole numbers, as in --nfe 1,2,4.")
    model = load(run, device=device)
    settings, data = read_run(run)
    teacher = load(run / TEACHER_FILE, device=device) if (run / TEACHER_FILE).exists() else None
    found = steps_curve(
        model,
        data.loc[:, settings["given"]] if problem is None else problems.get(problem),
        nfe=[int(count) for count in counts] or NFE,
        methods=split_names(method) or None,
        rows=rows,
        draws=draws,
        reference=teacher,
        seed=seed,
    )
    voice.show(str(found))
    write_json(run / "steps.json", found.to_dict())
    for path in [run / "steps.json", *plots.save(plots.draw("steps", found), run / "figures", "steps")]:
        voice.say(str(path))
    voice.result(found.to_dict())
