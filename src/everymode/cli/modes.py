"""`everymode modes`: the distinct answers of a fitted model."""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli._asking import Force, Given, GivenFile, OutFile, prepare, write_answers
from everymode.cli.options import Device, Json, Quiet, Run
from everymode.cli.voice import Voice


def command(
    run: Run,
    given: Given = None,
    given_file: GivenFile = None,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws of each question to look at.")] = 2000,
    least: Annotated[float, typer.Option(help="Probability below which there is no answer.")] = 0.005,
    out: OutFile = None,
    force: Force = False,
    seed: Annotated[int | None, typer.Option(help="Of the draws; the run's own by default.")] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the distinct answers: one line each, with probability, sureness, place and spread; and a figure."""
    from everymode import plots

    voice = Voice(json=json, quiet=quiet)
    model, questions, _ = prepare(run, device, given, given_file, out, force=force)
    found = model.modes(questions, n, least=least, random_state=seed)
    figure = plots.save(plots.draw("modes", found), run / "figures", "modes")[0]
    voice.say(str(figure))
    answers = found.to_frame()
    known = questions.iloc[answers["row"]].reset_index(drop=True)
    for index, name in enumerate(known.columns):
        answers.insert(1 + index, name, known[name])
    write_answers(voice, answers, "answers", out, {"figure": str(figure), "nfe": model.nfe})
