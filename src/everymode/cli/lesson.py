"""`everymode lesson`: what Gaussian mixtures and plain Langevin cannot do, shown on problems whose truth is known."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everymode.cli.options import Json, Out, Quiet, Seed
from everymode.cli.voice import Voice

if TYPE_CHECKING:
    from everymode.lessons import Crossing, Merging


class Lesson(StrEnum):
    """The lessons there are."""

    merging = "merging"
    crossing = "crossing"


_QUICK: dict[str, dict[str, Any]] = {
    "merging": {"components": [1, 2, 4, 6, 8, 12], "rows": 2000, "draws": 2000, "steps": 1500, "batch_size": 256},
    "crossing": {"separations": [3.0, 4.0, 5.0, 6.0], "chains": 256, "budget": 10_000},
}


def command(
    lesson: Annotated[Lesson, typer.Argument(help="Which one.", show_default=False)],
    family: Annotated[
        str | None, typer.Option(help="merging: what stands beside the mixtures; diffusion by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of a minute, and rougher numbers.")] = False,
    out: Out = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a lesson: a table, a figure (PNG and SVG) and its numbers (lesson.json) in a fresh run folder.

    merging: Gaussian mixtures merge modes when they have too few components; a diffusion model has no such number.
    crossing: plain Langevin needs time exponential in the squared separation of two modes to cross from one to the
    other; annealed Langevin and a diffusion sampler do not.
    """
    import time

    from everymode import lessons, plots
    from everymode.cli.fitting import threads
    from everymode.errors import SettingError
    from everymode.families import get_family
    from everymode.files import write_json
    from everymode.runs import describe_machine, new_run

    voice = Voice(json=json, quiet=quiet)
    settings = dict(_QUICK[lesson]) if quick else {}
    if family is not None:
        if lesson is Lesson.crossing:
            raise SettingError("--family belongs to the lesson merging; crossing has the exact score and fits nothing.")
        settings["family"] = get_family(family)
    started = time.perf_counter()
    folder = new_run("lesson", out)
    with threads(64):
        found = getattr(lessons, lesson)(**settings, seed=seed, report=voice.say)
    plots.save(plots.draw(lesson, found), folder, lesson)
    more = {
        "run": str(folder),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": describe_machine(),
    }
    write_json(folder / "lesson.json", {**found.to_dict(), **more})
    (_show_merging if lesson is Lesson.merging else _show_crossing)(voice, found)
    voice.show(f"figure: {folder / lesson}.png   ({more['seconds']:.0f} s)")
    voice.result({**found.to_dict(pictures=False), **more})


def _show_merging(voice: Voice, found: Merging) -> None:
    def line(name: str, row: dict[str, Any]) -> dict[str, str]:
        likelihood = row["log_likelihood"]
        return {
            "model": name,
            "valid share": f"{row['valid_share']:.1%} ({row['valid_share_low']:.1%} to {row['valid_share_high']:.1%})",
            "between modes": f"{row['between_share']:.1%}",
            "modes found": f"{row['modes_found']} of {row['modes_total']}",
            "kept apart": f"{row['modes_apart']} of {row['modes_total']}",
            "log-likelihood": "-" if likelihood is None else f"{likelihood:.3f}",
            "seconds": f"{row['seconds']:.1f}" if "seconds" in row else "-",
        }

    rows = [line(f"mixture of {row['components']}", row) for row in found.mixtures]
    rows += [line(found.model["family"], found.model), line("real draws (floor)", found.floor)]
    note = "Found: a quarter of its draws or more. Kept apart: fewer than half as many half way to a neighbour."
    voice.table(found.title, rows, note)
    voice.show(f"BIC chooses {found.bic_choice} components; there are {found.modes} modes.")


def _show_crossing(voice: Voice, found: Crossing) -> None:
    budget, chains = found.settings["budget"], found.settings["chains"]

    def evaluations(number: int | None) -> str:
        return f"over {budget:,}" if number is None else f"{number:,}"

    def time(number: float | None) -> str:
        return "?" if number is None else f"{number:,.1f}"

    rows = [
        {
            "separation": f"{row['separation']:g}",
            "barrier (nats)": f"{row['barrier']:.2f}",
            "crossed": f"{row['crossings']} of {chains}",
            "mean crossing time": f"{time(row['crossing_time'])} "
            f"({time(row['crossing_time_low'])} to {time(row['crossing_time_high'])})",
            "exact": time(row["crossing_time_exact"]),
            "evaluations: plain": evaluations(row["evaluations"]["langevin"]),
            "annealed": evaluations(row["evaluations"]["annealed_langevin"]),
            "diffusion": evaluations(row["evaluations"]["diffusion"]),
        }
        for row in found.rows
    ]
    note = "Evaluations of the score until the share of draws left of any point is right within "
    voice.table(found.title, rows, f"{note}{found.settings['tolerance']:g}.")
    slope = found.slope
    if slope["value"] is None:
        voice.show("slope: too few chains crossed to fit one")
        return
    voice.show(
        f"slope of the log crossing time on the squared separation: {slope['value']:.4f} "
        f"({slope['low']:.4f} to {slope['high']:.4f}); exact theory {slope['exact']:.4f}; "
        f"Kramers, for modes far apart: {slope['kramers']:.4f}"
    )
