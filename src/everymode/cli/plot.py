"""`everymode plot`: figures of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli.options import Device, Json, Quiet, Run, Seed, split_names
from everymode.cli.voice import Voice


def command(
    run: Run,
    kind: Annotated[list[str] | None, typer.Option(help="bands, answers, field, ...; several as a,b; or all.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw figures of a run, as PNG and SVG in its folder `figures`."""
    from everymode import plots
    from everymode.errors import DataError
    from everymode.estimator import load
    from everymode.recording import record_table
    from everymode.runs import read_run
    from everymode.tables import split_targets

    voice = Voice(json=json, quiet=quiet)
    wanted = split_names(kind) or ["bands"]
    everything = wanted == ["all"]
    known = plots.kinds()
    for name in [] if everything else wanted:
        plots.summary(name)  # an unknown name is refused before anything is drawn
    settings, data = read_run(run)
    X, Y = split_targets(data, settings["target"], settings["given"])
    model = load(run, device=device)
    tape = record_table({settings["family"]: model}, X, Y, title=settings["table"], seed=seed)
    written: list[str] = []
    for name in known if everything else wanted:
        try:
            figure = plots.draw(name, tape)
        except DataError:
            if not everything:
                raise
            continue
        written += [str(path) for path in plots.save(figure, run / "figures", name)]
    for path in written:
        voice.show(path)
    voice.result({"figures": written})
