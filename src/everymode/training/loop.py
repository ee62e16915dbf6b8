"""The training loop: `for progress in train(...)`. It prints nothing; whoever calls it draws the bar."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from everymode.errors import CheckpointError, DataError, SettingError
from everymode.families.base import Family
from everymode.spaces import Condition, count_rows, place
from everymode.training.run import Run
from everymode.training.settings import TrainingSettings

__all__ = ["Progress", "finish", "train"]

_TIMED_STEPS = 50  # after which it is decided whether the others are compiled


@dataclass(frozen=True)
class Progress:
    """A report from the loop.

    Attributes:
        step: steps done, of `steps`.
        loss: mean training loss since the last report.
        held_out_loss: of the averaged weights, where this report looked at the held-out rows.
        best_loss: the lowest held-out loss so far; None without held-out rows.
        best_step: its step.
        seconds: spent so far, over all sittings.
        precision: 'float32' or 'bf16'.
        history: step, loss and held_out_loss of every finite report so far, over all sittings.
        finished: why the run is over: 'completed', 'early stopping', 'time limit', 'interrupted' or 'diverged'.
        compiled: whether steps are compiled.
    """

    step: int
    steps: int
    loss: float
    held_out_loss: float | None
    best_loss: float | None
    best_step: int
    seconds: float
    precision: str
    history: list[dict[str, float | None]]
    finished: str | None = None
    compiled: bool = False


def train(
    family: Family,
    y: Tensor,
    x: Condition,
    *,
    settings: TrainingSettings,
    held_out: tuple[Tensor, Condition] | None = None,
    device: torch.device | str = "cpu",
    folder: str | Path | None = None,
    resume: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train a built family in place; yields a report now and then, and a last one that says why the run is over.

    The family ends with the weights to keep: an exponential average of the path of the optimiser, the best one on
    the held-out rows where there are any.

    Args:
        family: built; its parts are trained, in its stages.
        y: targets (rows, *event), standardised.
        x: conditions, rows first, standardised.
        settings: how.
        held_out: (y, x) on which the run is watched and stopped early.
        device: where; under a launcher of several processes, each one's own.
        folder: where the training state is written; nowhere if None.
        resume: whether to go on from the state in `folder`, if there is one.
        interrupted: asked after every step, under several processes at every report; if true the state is written
            and the run ends.

    Raises:
        DataError: y and x differ in rows, or there are none.
        SettingError: the batch does not divide over the processes; the loss was never finite.
        CheckpointError: the state cannot be written or does not fit.
    """
    if len(y) != count_rows(x):
        raise DataError(f"y has {len(y)} rows and x has {count_rows(x)}.")
    if not len(y):
        raise DataError("there are no rows to train on.")
    if not family.abilities.gradient:
        yield from _solve(family, y, x, held_out, settings, torch.device(device), interrupted)
        return
    run = Run(family, (y, x), held_out, settings, torch.device(device), None if folder is None else Path(folder))
    if resume:
        run.load()
    run.prepare()
    was_training = family.training
    family.train()
    try:
        for stage in range(run.counters.stage, len(run.stages)):
            if stage > run.counters.stage:
                run.counters.next_stage()
                run.engage()
            finished = yield from _Stage(run, *run.stages[stage]).train(interrupted)
            if finished in ("interrupted", "diverged"):
                break
    except GeneratorExit:  # closed at a report, where the model is whole; this may run inside the garbage collector,
        raise  # where touching tensors would make torch abort
    except BaseException:
        run.release()
        raise
    finally:
        family.train(was_training)


def finish(run: Iterator[Progress], told: Callable[[Progress], None] | None = None) -> Progress:
    """Go through the reports of `train` and return the last; warn where training diverged.

    Args:
        run: what `train` returned.
        told: called with every report.

    Raises:
        CheckpointError: a resumed run was over already.
    """
    last: Progress | None = None
    for last in run:
        if told is not None:
            told(last)
    if last is None:
        raise CheckpointError("the run in this folder is finished; there is nothing to resume.")
    if last.finished == "diverged":
        warnings.warn(
            f"training diverged at step {last.step}; the model keeps the best state before it, of step "
            f"{last.best_step}. Lower learning_rate or look for extreme values.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return last


def _solve(
    family: Family,
    y: Tensor,
    x: Condition,
    held_out: tuple[Tensor, Condition] | None,
    settings: TrainingSettings,
    device: torch.device,
    interrupted: Callable[[], bool],
) -> Iterator[Progress]:
    """Report on a family that is fitted without gradients: it keeps no state, and resumed it begins again."""
    family.to(device)
    started, history, steps = time.perf_counter(), [], settings.steps
    best_loss, best_step, stopped, progress = None, 0, False, None
    reports = family.solve(
        y.to(device),
        place(x, device),
        held_out=None if held_out is None else (held_out[0].to(device), place(held_out[1], device)),
        seed=settings.seed,
        seconds=settings.max_seconds,
    )
    with torch.no_grad():
        for share, loss, held_out_loss in reports:
            step = max(1, round(share * steps))
            if held_out_loss is not None and (best_loss is None or held_out_loss < best_loss):
                best_loss, best_step = held_out_loss, step
            history.append({"step": step, "loss": loss, "held_out_loss": held_out_loss})
            seconds = time.perf_counter() - started
            progress = Progress(step, steps, loss, held_out_loss, best_loss, best_step, seconds, "float32", history[:])
            if stopped := interrupted():
                break
            yield progress
    if progress is None:
        raise SettingError(f"family {family.name!r} reported nothing of its fit.")
    yield replace(progress, seconds=time.perf_counter() - started, finished="interrupted" if stopped else "completed")


class _Stage:
    """One stage of a run: steps, and now and then a look, a checkpoint and a report.

    Each stage has a learning-rate schedule of its own, and the stages share the seconds as they share the steps.
    """

    def __init__(self, run: Run, indices: list[int], end: int) -> None:
        self.run, self.indices, self.end = run, indices, end
        self.settings, self.counters = run.settings, run.counters
        seconds = self.settings.max_seconds
        self.limit = math.inf if seconds is None else seconds * end / self.settings.steps
        self.alone = run.processes.world == 1
        self.before, self.started = self.counters.seconds, time.perf_counter()
        history = self.counters.history
        self.last_report = int(history[-1]["step"] or 0) if history else 0
        self.beginnings: list[float] = []

    def train(self, interrupted: Callable[[], bool]) -> Generator[Progress, None, str]:
        """Yield reports; return why the stage ended."""
        if self.counters.finished is not None:  # cut after its last checkpoint: only its weights are left to take
            self.run.keep_best(self.indices)
            last = self.counters.history[-1]
            yield from self.tell(float(last["loss"] or 0.0), last["held_out_loss"], self.counters.finished)
            return self.counters.finished
        finished = None
        while finished is None:
            late = self.advance()
            stop = self.alone and interrupted()
            looks = self.run.held_out is not None and self.due(self.settings.validate_every)
            writes = self.run.folder is not None and self.counters.step % self.settings.checkpoint_every == 0
            regular = looks or writes or late or self.due(self.run.report_every)
            if not (regular or stop):
                continue
            if not self.alone:  # a signal reaches each process at a step of its own: they stop together, at a report
                stop = self.run.processes.agree(interrupted())
            loss = self.mean_loss()
            held_out_loss = self.run.look(self.indices) if looks or (late and self.run.held_out is not None) else None
            if not all(math.isfinite(value) for value in (loss, held_out_loss) if value is not None):
                finished = self.diverged(loss)
            else:
                self.judge(held_out_loss)
                finished = self.ending()
                if stop and (finished is None or not regular):
                    finished = "interrupted"
                if regular:  # an interruption leaves no trace: the resumed run reports as if there had been none
                    self.note(loss, held_out_loss)
                self.counters.finished = None if finished == "interrupted" else finished
                if writes or finished is not None:
                    self.run.save()
            if finished is not None:
                self.run.keep_best(self.indices)
            yield from self.tell(loss, held_out_loss, finished)
        return finished

    def advance(self) -> bool:
        """Make one step of every part; return whether the time is up."""
        counters = self.counters
        self.clock()
        if counters.compiled is None:
            self.time()
        done = (counters.step - counters.stage_step) / (self.end - counters.stage_step)
        if self.alone:
            done = max(
                done, (counters.seconds - counters.stage_seconds) / max(1e-9, self.limit - counters.stage_seconds)
            )
        for index in self.indices:
            self.run.step(index, min(1.0, done))
        counters.step += 1
        return self.alone and counters.seconds >= self.limit

    def time(self) -> None:
        """Note when a step begins, until so many are timed that it can be said how long the run will take."""
        self.run.wait()
        self.clock()
        self.beginnings.append(self.counters.seconds)
        if self.counters.step == _TIMED_STEPS:
            lengths = [end - start for start, end in pairwise(self.beginnings)]
            one = statistics.median(lengths) if lengths else 0.0
            limit = math.inf if self.settings.max_seconds is None else self.settings.max_seconds
            left = min(one * (self.settings.steps - self.counters.step), limit - self.counters.seconds)
            self.run.consider_compiling(one, left)

    def clock(self) -> None:
        """Count the seconds of this sitting."""
        self.counters.seconds = self.before + time.perf_counter() - self.started

    def due(self, every: int) -> bool:
        """Return whether something that happens every so many steps, and at the end, happens now."""
        return self.counters.step % every == 0 or self.counters.step == self.end

    def mean_loss(self) -> float:
        """Return the training loss since the last report, over all processes."""
        self.clock()
        steps = self.counters.step - self.last_report
        totals = [self.run.processes.average_(self.run.parts[i].running_loss.clone()) for i in self.indices]
        return float(sum(float(total) for total in totals)) / steps

    def judge(self, held_out_loss: float | None) -> None:
        """Keep the average of the weights if it is the best so far on the held-out rows, or the last is wanted.

        Before any look it is the last too.
        """
        counters = self.counters
        latest = not (self.settings.choose and all(self.run.parts[index].part.chosen for index in self.indices))
        if held_out_loss is None and counters.best_loss is not None and not latest:
            return
        if latest or held_out_loss is None or counters.best_loss is None or held_out_loss < counters.best_loss:
            counters.best_loss, counters.best_step, counters.looks_without_gain = held_out_loss, counters.step, 0
            for index in self.indices:
                self.run.parts[index].best.copy_(self.run.parts[index].average)
        else:
            counters.looks_without_gain += 1

    def ending(self) -> str | None:
        """Return why the stage ends here, or None."""
        patience = self.settings.patience
        if self.counters.step >= self.end:
            return "completed"
        if patience is not None and self.counters.looks_without_gain >= patience:
            return "early stopping"
        return "time limit" if self.run.processes.agree(self.counters.seconds >= self.limit) else None

    def note(self, loss: float, held_out_loss: float | None) -> None:
        """Add a report to the history and start the next mean."""
        for index in self.indices:
            self.run.parts[index].running_loss.zero_()
        self.last_report = self.counters.step
        self.counters.history.append({"step": self.counters.step, "loss": loss, "held_out_loss": held_out_loss})

    def diverged(self, loss: float) -> str:
        """Return 'diverged' if there is a good state to go back to, else raise."""
        if self.counters.best_step <= self.counters.stage_step:
            raise SettingError(
                f"the loss was {loss} at step {self.counters.step}, before there was a state to keep. Lower "
                f"learning_rate (it is {self.settings.learning_rate:g}), or look for extreme values in the data."
            )
        return "diverged"

    def tell(self, loss: float, held_out_loss: float | None, finished: str | None) -> Iterator[Progress]:
        """Yield one report, with the model in full precision while its receiver may look at it."""
        counters = self.counters
        self.run.release()
        yield Progress(
            counters.step,
            self.settings.steps,
            loss,
            held_out_loss,
            counters.best_loss,
            counters.best_step,
            counters.seconds,
            counters.precision,
            counters.history,
            finished,
            bool(counters.compiled),
        )
        if finished is None:
            self.run.engage()
