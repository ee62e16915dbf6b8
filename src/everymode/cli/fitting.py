"""What `fit`, `resume` and `demo` share: training in a run folder, stoppable at any moment."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import torch

from everymode.cli.voice import Voice
from everymode.estimator import OneToManyRegressor, load
from everymode.families import get_family
from everymode.persistence import MODEL_FILE
from everymode.tables import split_targets
from everymode.training import Processes, default_width, resolve_device

__all__ = ["TEACHER_FILE", "fit_run", "stoppable", "threads"]

TEACHER_FILE = "teacher.safetensors"


class _Stop:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; the second one stops at once."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self) -> bool:
        return self.wanted

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True


@contextmanager
def stoppable() -> Iterator[_Stop]:
    """Give a function that says whether a signal asked to stop."""
    stop = _Stop()
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def threads(width: int) -> Iterator[int]:
    """Train small networks on one thread: below a width of 256, a second costs more than it brings.

    `OMP_NUM_THREADS`, where it is set, is obeyed instead.
    """
    before = torch.get_num_threads()
    if width < 256 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def fit_run(
    folder: Path, settings: dict[str, Any], data: pd.DataFrame, voice: Voice, *, device: str, resume: bool = False
) -> tuple[OneToManyRegressor, dict[str, Any]]:
    """Train in a run folder and write the model; return it with a JSON-ready summary.

    A signal stops it after a checkpoint; the summary then says `interrupted`, and `everymode resume` goes on.

    Args:
        folder: of the run.
        settings: `target`, `given`, `family`, `family_settings` and `estimator`, as `fit` wrote them to `run.json`.
            Where the folder holds a teacher, the model learns from it.
        data: the columns.
        voice: for the bar.
        device: where.
        resume: whether to go on from the folder's training state.
    """
    X, Y = split_targets(data, settings["target"], settings["given"])
    family = get_family(settings["family"], settings["family_settings"])
    model = OneToManyRegressor(family, device=device, **settings["estimator"])
    target = Y.iloc[:, 0] if Y.shape[1] == 1 else Y
    teacher = load(folder / TEACHER_FILE, device=device) if (folder / TEACHER_FILE).exists() else None
    main = Processes.here(resolve_device(device)).is_main
    width = settings["estimator"].get("width") or default_width(len(X))
    with stoppable() as stop, threads(width), voice.bar(f"{family.name}") as move:
        model.fit(X, target, teacher=teacher, checkpoint_folder=folder, resume=resume, progress=move, interrupted=stop)
    if main and model.stopped_ != "interrupted":
        model.save(folder / MODEL_FILE)
    losses = [row["loss"] for row in model.history_ if row["loss"] is not None and math.isfinite(row["loss"])]
    held = [row["held_out_loss"] for row in model.history_ if row["held_out_loss"] is not None]
    held = [loss for loss in held if math.isfinite(loss)]
    summary = {
        "run": str(folder),
        "family": family.name,
        "target": settings["target"],
        "given": list(X.columns),
        "rows": len(X),
        "parameters": model.n_parameters_,
        "steps": model.n_steps_,
        "stopped": model.stopped_,
        "loss": losses[-1] if losses else None,
        "held_out_loss": min(held) if held else None,
        "seconds": round(model.fit_seconds_, 3),
        "precision": model.precision_,
        "compiled": model.compiled_,
        "nfe": model.nfe,
    }
    return model, summary
