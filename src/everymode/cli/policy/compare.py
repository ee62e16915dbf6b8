"""`everymode policy compare`: recipes side by side, on equal terms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everymode.cli.options import Device, Json, Out, Quiet, Seed, parse_settings, split_names
from everymode.cli.policy.train import EnvSettings
from everymode.cli.voice import Voice

if TYPE_CHECKING:
    from everymode.policies.evaluation import Evaluation


def command(
    env: Annotated[str, typer.Option(help="Obstacle, Avoiding, ...", show_default=False)],
    recipes: Annotated[
        list[str] | None, typer.Option(help="Names, a,b or all; a setting follows a colon: flow_policy:width=64.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Demonstrations; scripted ones by default.")] = None,
    env_set: EnvSettings = None,
    demonstrations: Annotated[int, typer.Option(help="Scripted episodes to learn from.")] = 200,
    budget: Annotated[str, typer.Option(help="Of each fit: 60s, 2m, or steps: 5000.")] = "120s",
    episodes: Annotated[int, typer.Option(help="Fresh starts, the same for all.")] = 100,
    checkpoints: Annotated[int, typer.Option(help="Along each fit; the best is chosen, on other starts.")] = 1,
    robots: Annotated[int, typer.Option(help="Environments side by side.")] = 32,
    jobs: Annotated[int, typer.Option(help="Processes of the episodes.")] = 1,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on in this folder: finished recipes are not run again.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train recipes on the same demonstrations with the same budget, and judge them on the same fresh starts.

    Writes comparison.json, the figures and report.html into a run folder. Exits with 1 if a recipe crashed.
    """
    from everymode import plots
    from everymode.cli.fitting import threads
    from everymode.cli.policy._running import demonstrations_of, made
    from everymode.comparison import Budget
    from everymode.errors import FileError
    from everymode.files import write_json
    from everymode.policies.comparison import Trial, compare_policies
    from everymode.policies.recipes import names as all_recipes
    from everymode.report import Section, write_report
    from everymode.runs import describe_machine, new_run

    voice = Voice(json=json, quiet=quiet)
    asked = split_names(recipes) or ["mse", "flow_policy"]
    asked = all_recipes() if asked == ["all"] else asked
    policies = {text: made(*_split(text), device=device) for text in asked}
    if resume is not None and not resume.is_dir():
        raise FileError(f"there is no folder {resume} to go on in; leave --resume out to begin a fresh one.")
    given = parse_settings(env_set, "--env-set")
    source = {
        "environment": env,
        "environment_settings": given,
        "data": None if data is None else str(data),
        "demonstrations": demonstrations,
        "seed": seed,
    }
    shown = demonstrations_of(source)
    trial = Trial(env, Budget.parse(budget), episodes, checkpoints, robots=robots, jobs=jobs, settings=given, seed=seed)
    folder = new_run("policy-compare", out) if resume is None else resume

    def tell(name: str, found: Evaluation | str, done: int, total: int) -> None:
        end = f"failed: {found}" if isinstance(found, str) else f"score {found.score.value:.3f}"
        voice.say(f"[{done}/{total}] {name}: {end}")

    try:
        with threads(64):
            found = compare_policies(policies, shown, trial, folder, progress=tell)
    except KeyboardInterrupt:
        voice.say(f"interrupted; the same command with --resume {folder} goes on from here")
        raise
    voice.table(found.title, found.shown(), found.note)
    figures = plots.save_all(found, folder / "figures")
    if found.ways is not None:
        figures += plots.save_all(found.ways, folder / "figures")
    write_report(folder / "report.html", found.title, [Section("At a glance", found.note, figures, found.shown())])
    described = {**found.to_dict(), "machine": describe_machine()}
    write_json(folder / "comparison.json", described)
    voice.show(f"report: {folder / 'report.html'}")
    voice.result(described)
    if found.failures:
        raise typer.Exit(1)


def _split(text: str) -> tuple[str, dict[str, Any]]:
    recipe, *settings = text.split(":")
    return recipe, parse_settings(settings, "--recipes")
