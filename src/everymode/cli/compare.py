"""`everymode compare`: families side by side, on equal terms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everymode.cli.options import Device, Json, Out, Quiet, Seed, parse_settings, split_names
from everymode.cli.voice import Voice

if TYPE_CHECKING:
    from everymode.comparison import Comparison, Result
    from everymode.comparison.tasks import Task
    from everymode.families import Family


def command(
    table: Annotated[Path | None, typer.Argument(help="A .csv, .parquet or .npz file.", show_default=False)] = None,
    target: Annotated[list[str] | None, typer.Option(help="Column(s) to predict: a,b or repeated.")] = None,
    given: Annotated[list[str] | None, typer.Option(help="Column(s) known; every other one by default.")] = None,
    problem: Annotated[list[str] | None, typer.Option(help="Problems with known answers: fork,grid or all.")] = None,
    families: Annotated[
        list[str] | None, typer.Option(help="Names, a,b or all; a setting follows a colon: gan:objective=classic.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Of each fit: 60s, 2m, or steps: 5000.")] = None,
    seeds: Annotated[int, typer.Option(help="How many fits of each; they start at --seed.")] = 1,
    jobs: Annotated[int, typer.Option(help="Processes at once.")] = 1,
    rows: Annotated[int, typer.Option(help="Training rows of a problem.")] = 10_000,
    judged: Annotated[int, typer.Option(help="Fresh x of a problem to judge on.")] = 100,
    draws: Annotated[int, typer.Option(help="Draws for each x.")] = 200,
    test_fraction: Annotated[float, typer.Option(help="Share of a table's rows held out from all.")] = 0.2,
    width: Annotated[int | None, typer.Option(help="Hidden width of flow matching; the others match its size.")] = None,
    depth: Annotated[int | None, typer.Option(help="Blocks of the networks.")] = None,
    equal_parameters: Annotated[bool, typer.Option(help="Give every family as many parameters.")] = True,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="Go on in this folder: finished cells are not run again.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit families on the same data, on equal terms, and show which answers each finds, loses or invents.

    On a table, they are judged on rows held out from all of them; on problems whose every answer is known, on fresh
    ones. Writes comparison.json, the figures and report.html into a run folder. Exits with 1 if a fit crashed.
    """
    from everymode.cli.fitting import threads
    from everymode.comparison import Budget, Sweep
    from everymode.errors import FileError, check_number
    from everymode.files import write_json
    from everymode.runs import describe_machine, new_run
    from everymode.training import default_width

    voice = Voice(json=json, quiet=quiet)
    chosen = _families(split_names(families))
    spent = None if budget is None else Budget.parse(budget)
    tasks = _tasks(
        table, split_names(target), split_names(given), split_names(problem), rows, judged, draws, test_fraction
    )
    if resume is not None and not resume.is_dir():
        raise FileError(f"there is no folder {resume} to go on in; leave --resume out to begin a fresh one.")
    sweep = Sweep(
        tasks,
        chosen,
        seeds=range(seed, seed + check_number("seeds", seeds, 1, 1000, integer=True)),
        budget=spent,
        jobs=jobs,
        equal_parameters=equal_parameters,
        width=width,
        depth=depth,
        device=device,
    )
    folder = new_run("compare", out) if resume is None else resume
    try:
        with threads(width or default_width(len(sweep.tasks[0].known(seed)[0]))):
            found = sweep.run(folder=folder, progress=_teller(voice))
    except KeyboardInterrupt:
        voice.say(f"interrupted; the same command with --resume {folder} goes on from here")
        raise
    found.save(folder)
    for name in found.tables:
        voice.table(found[name].title, found[name].shown(), found[name].note)
    _report(folder, found)
    described = {**found.to_dict(), "machine": describe_machine()}
    write_json(folder / "comparison.json", described)
    voice.show(f"report: {folder / 'report.html'}")
    voice.result(described)
    for failure in found.failures:
        voice.say(f"failed: {failure.family} on {failure.task}, seed {failure.seed}: {failure.error}")
    if found.failures:
        raise typer.Exit(1)


def _families(names: list[str]) -> list[Family]:
    from everymode.families import get_family
    from everymode.families import names as all_names

    chosen: list[Family] = []
    for name in names or ["mse", "flow_matching"]:
        if name == "all":
            chosen += [get_family(each) for each in all_names()]
            continue
        family, *settings = name.split(":")
        chosen.append(get_family(family, parse_settings(settings, "--families")))
    return chosen


def _tasks(
    table: Path | None,
    target: list[str],
    given: list[str],
    problems: list[str],
    rows: int,
    judged: int,
    draws: int,
    test_fraction: float,
) -> list[Task]:
    from everymode.comparison import ProblemTask, TableTask
    from everymode.errors import SettingError
    from everymode.problems import names as all_problems
    from everymode.tables import read_problem

    if (table is None) == (not problems):
        raise SettingError("give either a table with --target, or --problem with names, such as --problem fork,grid.")
    if table is None:
        chosen = all_problems() if problems == ["all"] else problems
        return [ProblemTask(name, rows=rows, judged=judged, draws=draws) for name in chosen]
    if not target:
        raise SettingError(f"which column(s) of {table.name} are to be predicted? Name them with --target.")
    X, Y = read_problem(table, target, given or None)
    Y = Y.iloc[:, 0] if Y.shape[1] == 1 else Y
    return [TableTask(X, Y, name=table.stem, test_fraction=test_fraction, draws=draws)]


def _teller(voice: Voice) -> Any:
    def tell(result: Result, done: int, total: int) -> None:
        end = f"failed: {result.error}" if result.error is not None else f"{result.steps} steps"
        voice.say(f"[{done}/{total}] {result.family} on {result.task}, seed {result.seed}: {end}")

    return tell


def _report(folder: Path, found: Comparison) -> None:
    from everymode import plots
    from everymode.report import Section, write_report

    figures = plots.save_all(found, folder / "figures")
    terms = (
        "Every family saw the same rows, had as many parameters within 10 % where it is made of networks, and the same "
        "budget. The last row of a table is what real draws score: no model does better, except by luck."
    )
    sections = [Section("At a glance", terms, figures)]
    sections += [Section(table.title, table.note, table=table.shown()) for table in found]
    write_report(folder / "report.html", found.title, sections)
