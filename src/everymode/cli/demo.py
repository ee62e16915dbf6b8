"""`everymode demo`: watch the average fail and the flow answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from everymode.cli.options import Device, Json, Out, Quiet, Seed
from everymode.cli.voice import Voice

if TYPE_CHECKING:
    from everymode.comparison import ModeTable
    from everymode.estimator import OneToManyRegressor
    from everymode.tape import Tape

_FAMILIES = ("mse", "flow_matching")
_ROWS = 4000


def command(out: Out = None, seed: Seed = 0, device: Device = "auto", json: Json = False, quiet: Quiet = False) -> None:
    """Train a regressor and a flow of the same size on the same data, and show what each of them answers.

    First on `fork`, an object that goes left or right, where every answer is known; then on 299 eruptions of the Old
    Faithful geyser. Writes a run folder with report.html, the figures and summary.json. Exits with 1 if the flow does
    not find every mode, or if averaging does not fail.
    """
    import time

    from everymode.cli.fitting import threads
    from everymode.files import write_json
    from everymode.runs import describe_machine, new_run

    voice = Voice(json=json, quiet=quiet)
    started = time.perf_counter()
    folder = new_run("demo", out)
    with threads(64):
        fork, fork_tape = _fork(voice, seed, device)
        geyser, geyser_tape = _geyser(voice, seed, device)
    for table in (fork, geyser):
        voice.table(table.title, table.shown(), table.note)
    tapes = {"fork": fork_tape, "geyser": geyser_tape}
    figures = _draw(folder, tapes)
    for name, tape in tapes.items():
        tape.save(folder / f"{name}.npz")
    _write_report(folder, {"fork": fork, "geyser": geyser}, figures)
    checks = _checks(fork)
    summary = {
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": describe_machine(),
        "problems": {"fork": fork.to_dict(), "geyser": geyser.to_dict()},
        "checks": checks,
        "report": "report.html",
    }
    write_json(folder / "summary.json", summary)
    voice.show(f"report: {folder / 'report.html'}   ({summary['seconds']:.0f} s)")
    voice.result(summary)
    failed = [name for name, passed in checks.items() if not passed]
    if failed:
        voice.say(f"failed: {', '.join(failed)}")
        raise typer.Exit(1)


def _fit(voice: Voice, x: Any, y: Any, **settings: Any) -> dict[str, OneToManyRegressor]:
    from everymode.estimator import OneToManyRegressor

    models = {}
    for family in _FAMILIES:
        with voice.bar(family) as move:
            models[family] = OneToManyRegressor(family, **settings).fit(x, y, progress=move)
    return models


def _fork(voice: Voice, seed: int, device: str) -> tuple[ModeTable, Tape]:
    import numpy as np

    from everymode.comparison import judge
    from everymode.problems import get
    from everymode.recording import record

    voice.say("fork: an object moves left or right; which way, given its speed?")
    problem = get("fork")
    x, y = problem.sample(_ROWS, seed)
    models = _fit(voice, x, y, steps=2500, early_stopping=False, random_state=seed, device=device)
    table = judge(problem, models, rows=100, draws=400, seed=seed + 1)
    tape = record(
        models,
        title="fork: left or right?",
        observed=(x, y),
        x=np.array([[1.0]]),
        x_names=problem.x_names,
        y_names=problem.y_names,
        problem=problem,
        scores=_scores(table),
        motion_row=0,
        seed=seed,
    )
    return table, tape


def _geyser(voice: Voice, seed: int, device: str) -> tuple[ModeTable, Tape]:
    import numpy as np

    from everymode.comparison import judge
    from everymode.problems.geyser import Geyser
    from everymode.recording import record_table

    voice.say("geyser: how long will the eruption last, given the wait before it? 299 real rows")
    problem = Geyser()
    eruptions = problem.table()
    x, y = eruptions.loc[:, list(eruptions.columns[:1])], eruptions.loc[:, list(eruptions.columns[1:])]
    order = np.random.default_rng(seed).permutation(len(x))
    out, kept = order[:60], order[60:]
    models = _fit(voice, x.iloc[kept], y.iloc[kept], steps=1500, random_state=seed, device=device)
    held_out = (x.iloc[out].to_numpy(), y.iloc[out].to_numpy())
    table = judge(problem, models, draws=400, seed=seed + 1, pairs=held_out)
    tape = record_table(
        models, x, y, title="Old Faithful: duration given waiting", problem=problem, scores=_scores(table), seed=seed
    )
    return table, tape


def _scores(table: ModeTable) -> list[dict[str, Any]]:
    from everymode.tape import SCORES

    return [{key: value for key, value in row.to_dict().items() if key in SCORES} for row in table]


def _checks(fork: ModeTable) -> dict[str, bool]:
    mse, flow = fork["mse"].to_dict(), fork["flow_matching"].to_dict()
    return {
        "averaging fails: valid share of mse below .05": mse["valid_share"] < 0.05,
        "averaging fails: mse finds 0 of 2 modes": (mse["modes_found"], mse["modes_total"]) == (0, 2),
        "the flow answers: valid share at least .97": flow["valid_share"] >= 0.97,
        "the flow answers: 2 of 2 modes": (flow["modes_found"], flow["modes_total"]) == (2, 2),
        "the flow answers: probability error at most .05": flow["probability_error"] <= 0.05,
    }


_CAPTIONS = {
    ("fork", "answers"): "What was observed, and what each model answers. The regressor's answer lies between the two "
    "ways, where the object never is; the flow's draws lie on both.",
    ("fork", "coverage"): "Share of the answers that are valid, and how many of the two ways each model finds.",
    (
        "fork",
        "field",
    ): "The learned velocity at five times, with particles. It starts by pulling everything towards the "
    "middle, then parts: the flow decides late, and it decides for one way.",
    ("fork", "trajectories"): "From noise to an answer: every particle commits to one way.",
    ("fork", "density"): "The density on its way from one heap of noise to two answers.",
    ("geyser", "bands"): "Real data. After a long wait an eruption is either short or long: the bands part, and the "
    "regressor's line runs through durations that hardly occur.",
    (
        "geyser",
        "field",
    ): "How the flow parts for one waiting time: from noise on the left to two durations on the right.",
    ("geyser", "coverage"): "The same numbers for the geyser, on rows that no model has seen.",
}


def _draw(folder: Any, tapes: dict[str, Tape]) -> dict[str, list[tuple[Any, str]]]:
    from everymode import plots

    drawn: dict[str, list[tuple[Any, str]]] = {}
    for (problem, kind), caption in _CAPTIONS.items():
        figure = plots.draw(kind, tapes[problem])
        plots.save(figure, folder / "figures", f"{problem}_{kind}")
        drawn.setdefault(problem, []).append((figure, caption))
    return drawn


def _write_report(folder: Any, tables: dict[str, ModeTable], figures: dict[str, list[tuple[Any, str]]]) -> None:
    from everymode.report import Section, write_report

    texts = {
        "fork": "A model trained with squared error returns the average of the valid answers. Here an object moves to "
        "the left or to the right, each with probability one half: the average is straight ahead, and it is never "
        "right. Both models have the same network, data and number of steps; only what they are trained for differs.",
        "geyser": "299 eruptions of Old Faithful (Azzalini and Bowman, 1990). An answer counts as valid if eruptions "
        "after a similar wait lasted about as long; the floor is what real eruptions score by that rule.",
    }
    headings = {"fork": "Left or right", "geyser": "Old Faithful"}
    sections = [
        Section(headings[name], f"{texts[name]} {table.note}", figures[name], table.shown())
        for name, table in tables.items()
    ]
    write_report(folder / "report.html", "Why averaging fails, and what answers instead", sections)
