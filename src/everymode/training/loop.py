"""The training loop: `for progress in train(...)`. It prints nothing; whoever calls it draws the bar.

Data that fits stays on the device, and a batch is an index. Every part's parameters are one tensor (see `flat`), so the
optimiser, the average, the clipping and the exchange between processes are one call each. No value is read back
from the device between two reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from everymode.errors import DataError, SettingError
from everymode.families.base import Family, Part
from everymode.randomness import Shard, Source, mix
from everymode.spaces import Condition, count_rows, place, take_rows
from everymode.training.precision import choose_precision
from everymode.training.processes import Processes
from everymode.training.settings import TrainingSettings
from everymode.training.state import Counters, PartState, load_state, save_state

__all__ = ["STATE_FILE", "Progress", "train"]

STATE_FILE = "training.safetensors"
_BATCHES, _LOSS, _HELD_OUT = 1, 2, 3  # streams of randomness
_HELD_OUT_ROWS = 2048  # held-out rows are repeated up to about so many, each with noise of its own


@dataclass(frozen=True)
class Progress:
    """A report from the loop.

    Attributes:
        step: steps done, of `steps`.
        loss: mean training loss since the last report.
        held_out_loss: of the averaged weights, where this report looked at the held-out rows.
        best_loss: the lowest held-out loss so far; None without held-out rows.
        best_step: its step.
        seconds: spent so far.
        precision: 'float32' or 'bf16'.
        finished: why the run is over: 'completed', 'early stopping', 'time limit', 'interrupted' or 'diverged'.
    """

    step: int
    steps: int
    loss: float
    held_out_loss: float | None
    best_loss: float | None
    best_step: int
    seconds: float
    precision: str
    finished: str | None = None


class _Batches:
    """Row indices of step k: consecutive slices of one random order of the rows after another."""

    def __init__(self, rows: int, batch_size: int, seed: int, device: torch.device) -> None:
        self.rows, self.batch_size, self.seed, self.device = rows, batch_size, seed, device
        self._orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(mix(self.seed, _BATCHES, epoch))
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = torch.randperm(self.rows, generator=generator).to(self.device)
        return self._orders[epoch]

    def index(self, step: int, rank: int, world: int) -> Tensor:
        """Return the rows (batch_size / world,) of this process at `step`."""
        local = self.batch_size // world
        start = step * self.batch_size + rank * local
        pieces: list[Tensor] = []
        while local:
            epoch, offset = divmod(start, self.rows)
            piece = self._order(epoch)[offset : offset + local]
            pieces.append(piece)
            start, local = start + len(piece), local - len(piece)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def learning_rate_at(progress: float, settings: TrainingSettings) -> float:
    """Return the learning rate after a share `progress` of the run: a linear warm-up, then half a cosine."""
    peak = settings.learning_rate
    if progress < settings.warmup:
        return peak * max(progress, 1e-3) / settings.warmup
    fraction = (progress - settings.warmup) / max(1e-12, 1 - settings.warmup)
    low = settings.final_learning_rate
    return peak * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction))))


def _stages(parts: list[Part], steps: int) -> list[tuple[list[int], int]]:
    """Return, for each stage, the indices of its parts and the step at which it ends."""
    stages = sorted({p.stage for p in parts})
    shares = [max(p.share for p in parts if p.stage == s) for s in stages]
    ends = [round(steps * sum(shares[: i + 1]) / sum(shares)) for i in range(len(stages))]
    return [([i for i, p in enumerate(parts) if p.stage == s], end) for s, end in zip(stages, ends, strict=True)]


class _Run:
    """One call of `train`: the data, the parts and the counters."""

    def __init__(
        self,
        family: Family,
        data: tuple[Tensor, Condition],
        held_out: tuple[Tensor, Condition] | None,
        settings: TrainingSettings,
        device: torch.device,
        folder: Path | None,
    ) -> None:
        self.family, self.settings, self.device, self.folder = family.to(device), settings, device, folder
        self.processes = Processes.here(device)
        if settings.batch_size % self.processes.world:
            raise SettingError(
                f"batch_size={settings.batch_size} does not divide over {self.processes.world} processes."
            )
        self.y, self.x = data[0].to(device), place(data[1], device)
        self.held_out = None if held_out is None else (held_out[0].to(device), place(held_out[1], device))
        declared = family.parts()
        self.parts = [PartState(p, weight_decay=settings.weight_decay) for p in declared]
        self.stages = _stages(declared, settings.steps)
        self.counters = Counters()
        self.batches = _Batches(len(self.y), settings.batch_size, settings.seed, device)
        self.generator = torch.Generator(device=device)
        world = self.processes.world
        self.source: Source = self.generator if world == 1 else Shard(self.generator, self.processes.rank, world)
        steps = settings.steps
        self.ema = settings.ema if settings.ema is not None else 1 - 1 / min(2000, max(10, steps / 30))
        self.report_every = min(settings.validate_every, max(10, steps // 100))
        if settings.compile:
            for child in family.children():
                child.compile()

    def prepare(self) -> None:
        """Choose the precision, unless a resumed run brought its choice along."""
        if not self.counters.precision:
            width = max((getattr(m, "out_features", 0) for m in self.family.modules()), default=0)
            hidden = int(getattr(getattr(self.family, "network", None), "width", 0)) or width
            chosen = choose_precision(self.settings.precision, self.device, hidden, self.settings.batch_size)
            self.counters.precision = self.processes.agree(chosen)
        half = self.counters.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()
        self.engage()

    def engage(self) -> None:
        """Let the module compute in the chosen precision."""
        if self.counters.precision == "bf16":
            for state in self.parts:
                state.flat.use_half()

    def release(self) -> None:
        """Give the module its parameters back in full precision."""
        if self.counters.precision == "bf16":
            for state in self.parts:
                state.flat.use_full()

    def step(self, index: int, share_done: float) -> None:
        """Make one step of part `index` on the batch of this step."""
        state, settings, counters = self.parts[index], self.settings, self.counters
        rows = self.batches.index(counters.step, self.processes.rank, self.processes.world)
        self.generator.manual_seed(mix(settings.seed, _LOSS, counters.step, index))
        state.flat.clear()
        with self.autocast:
            losses = state.part.loss(self.y.index_select(0, rows), take_rows(self.x, rows), generator=self.source)
        loss = losses.mean()
        loss.backward()
        gradient = self.processes.average_(state.flat.collect())
        state.optimizer.step(
            state.flat.values, gradient, learning_rate_at(share_done, settings), settings.gradient_clip
        )
        state.flat.publish()
        warm = (1 + counters.step) / (10 + counters.step)
        state.average.lerp_(state.flat.values, 1 - min(self.ema, warm))
        state.running_loss += loss.detach()

    @torch.no_grad()
    def look(self, indices: list[int]) -> float:
        """Return the held-out loss of the averaged weights, always with the same noise."""
        if self.held_out is None:
            raise SettingError("there are no held-out rows to look at.")
        y, x = self.held_out
        repeats = max(1, _HELD_OUT_ROWS // len(y))
        total, count = 0.0, 0
        for index in indices:
            state = self.parts[index]
            generator = torch.Generator(device=self.device).manual_seed(mix(self.settings.seed, _HELD_OUT, index))
            with state.flat.holding(state.average), self.autocast:
                for _ in range(repeats):
                    for start in range(0, len(y), 8192):
                        rows = slice(start, start + 8192)
                        losses = state.part.loss(y[rows], take_rows(x, rows), generator=generator)
                        total += float(losses.double().sum())
                        count += len(losses) if index == indices[0] else 0
        return self.processes.agree(total / count)

    def save(self) -> None:
        """Write the training state, on the main process."""
        if self.folder is not None and self.processes.is_main:
            save_state(self.folder / STATE_FILE, self.parts, self.counters)

    def keep_best(self, indices: list[int]) -> None:
        """Let the model hold what is kept of these parts: the best average, or the last where nothing was held out."""
        for index in indices:
            state = self.parts[index]
            kept = state.best if self.held_out is not None and self.counters.best_loss is not None else state.average
            state.flat.set(kept)


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
        interrupted: asked after every step; if true the state is written and the run ends.

    Raises:
        DataError: y and x differ in rows, or there are none.
        SettingError: the batch does not divide over the processes; the loss was never finite.
        CheckpointError: the state cannot be written or does not fit.
    """
    if len(y) != count_rows(x):
        raise DataError(f"y has {len(y)} rows and x has {count_rows(x)}.")
    if not len(y):
        raise DataError("there are no rows to train on.")
    run = _Run(family, (y, x), held_out, settings, torch.device(device), None if folder is None else Path(folder))
    if resume and run.folder is not None and (run.folder / STATE_FILE).exists():
        run.counters = load_state(run.folder / STATE_FILE, run.parts)
    run.prepare()
    was_training = family.training
    family.train()
    try:
        for stage in range(run.counters.stage, len(run.stages)):
            if stage > run.counters.stage:
                run.counters.stage, run.counters.best_loss, run.counters.looks_without_gain = stage, None, 0
            finished = yield from _train_stage(run, *run.stages[stage], interrupted)
            if finished in ("interrupted", "diverged"):
                break
    finally:
        run.release()
        family.train(was_training)


def _train_stage(
    run: _Run, indices: list[int], end: int, interrupted: Callable[[], bool]
) -> Iterator[Progress]:  # returns why it ended
    settings, counters = run.settings, run.counters
    before, started = counters.seconds, time.perf_counter()
    last_report = counters.history[-1]["step"] if counters.history else 0
    finished: str | None = None if counters.step < end else "completed"
    alone = run.processes.world == 1
    while finished is None:
        counters.seconds = before + time.perf_counter() - started
        late = counters.seconds / settings.max_seconds if settings.max_seconds else 0.0
        for index in indices:
            run.step(index, min(1.0, max(counters.step / settings.steps, late if alone else 0.0)))
        counters.step += 1
        stop = interrupted()
        looks = run.held_out is not None and (counters.step % settings.validate_every == 0 or counters.step == end)
        writes = run.folder is not None and counters.step % settings.checkpoint_every == 0
        out_of_time = settings.max_seconds is not None and alone and late >= 1.0
        if not (
            looks or writes or stop or out_of_time or counters.step == end or counters.step % run.report_every == 0
        ):
            continue
        counters.seconds = before + time.perf_counter() - started
        steps_since = counters.step - int(last_report or 0)
        losses = [run.processes.average_(run.parts[i].running_loss) / steps_since for i in indices]
        loss = float(sum(float(value) for value in losses))
        held_out_loss = run.look(indices) if looks or ((stop or out_of_time) and run.held_out is not None) else None
        if not math.isfinite(loss) or (held_out_loss is not None and not math.isfinite(held_out_loss)):
            finished = "diverged"
        elif held_out_loss is not None and (counters.best_loss is None or held_out_loss < counters.best_loss):
            counters.best_loss, counters.best_step, counters.looks_without_gain = (
                held_out_loss,
                counters.step,
                0,
            )
            for i in indices:
                run.parts[i].best.copy_(run.parts[i].average)
        elif looks:
            counters.looks_without_gain += 1
        if finished != "diverged":
            if counters.step >= end:
                finished = "completed"
            elif settings.patience is not None and counters.looks_without_gain >= settings.patience:
                finished = "early stopping"
            elif run.processes.agree(settings.max_seconds is not None and counters.seconds >= settings.max_seconds):
                finished = "time limit"
            if stop:
                finished = "interrupted"
            for i in indices:
                run.parts[i].running_loss.zero_()
            last_report = counters.step
            counters.history.append({"step": counters.step, "loss": loss, "held_out_loss": held_out_loss})
            if writes or finished is not None:
                run.save()
        if finished == "diverged" and counters.best_loss is None:
            raise SettingError(
                f"the loss was {loss} at step {counters.step}, before there was a state to keep. Lower learning_rate "
                f"(it is {settings.learning_rate:g}), or look for extreme values in the data."
            )
        if finished is not None and finished != "interrupted":
            run.keep_best(indices)
        run.release()  # whoever gets the report may look at the model
        yield Progress(
            counters.step,
            settings.steps,
            loss,
            held_out_loss,
            counters.best_loss,
            counters.best_step,
            counters.seconds,
            counters.precision,
            finished,
        )
        run.engage()
    return finished
