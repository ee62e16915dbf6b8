"""One run: its data, its parts and its counters, and the single step that the loop repeats.

Data that fits stays on the device, and a batch is an index. Every part's parameters are one tensor (see `flat`), so the
optimiser, the average, the clipping and the exchange between processes are one call each. No value is read back
from the device between two reports.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from everymode.errors import SettingError
from everymode.families.base import Family, Part
from everymode.randomness import Shard, Source, mix
from everymode.spaces import Condition, place, take_rows
from everymode.training.precision import choose_precision
from everymode.training.processes import Processes
from everymode.training.settings import TrainingSettings
from everymode.training.state import Counters, PartState, load_state, save_state
from everymode.training.step import Compiled, Eager, Recorded, Step, find_compiler

__all__ = ["STATE_FILE", "Run", "learning_rate_at"]

STATE_FILE = "training.safetensors"
_BATCHES, _LOSS, _HELD_OUT, _PREPARE = range(1, 5)  # streams of randomness
_NUMBERS_AT_ONCE = 2**23  # of held-out rows that are looked at in one pass
_WORTH_COMPILING = 60.0  # seconds of training
_SHORT_STEP = 0.03  # seconds; what takes longer is bound by arithmetic, which a compiler does not hasten
_HELD_OUT_ROWS = 2048  # held-out rows are repeated up to about so many, each with noise of its own


class Batches:
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


class Run:
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
        with torch.no_grad():
            family.prepare(self.y, self.x, seed=mix(settings.seed, _PREPARE))
        parts = self.x.values() if isinstance(self.x, dict) else [self.x]
        numbers = sum(math.prod(part.shape[1:]) for part in (self.y, *parts))
        self.rows_at_once = max(32, min(8192, _NUMBERS_AT_ONCE // max(1, numbers)))
        self.held_out = None if held_out is None else (held_out[0].to(device), place(held_out[1], device))
        declared = family.parts()
        self.parts = [PartState(p, weight_decay=settings.weight_decay) for p in declared]
        self.stages = _stages(declared, settings.steps)
        self.counters = Counters()
        self.batches = Batches(len(self.y), settings.batch_size, settings.seed, device)
        self.generator = torch.Generator(device=device)
        world = self.processes.world
        self.source: Source = self.generator if world == 1 else Shard(self.generator, self.processes.rank, world)
        steps = settings.steps
        self.ema = settings.ema if settings.ema is not None else 1 - 1 / min(2000, max(10, steps / 30))
        self.report_every = min(settings.validate_every, max(10, steps // 100))
        self._steps: dict[int, Step] = {}

    def prepare(self) -> None:
        """Choose the precision, unless a resumed run brought its choice along."""
        if not self.counters.precision:
            width = max((getattr(m, "out_features", 0) for m in self.family.modules()), default=0)
            hidden = int(getattr(getattr(self.family, "network", None), "width", 0)) or width
            chosen = choose_precision(self.settings.precision, self.device, hidden, self.settings.batch_size)
            self.counters.precision = self.processes.agree(chosen)
        half = self.counters.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()
        self._choose_compilation()
        self.engage()

    def _choose_compilation(self) -> None:
        """Decide whether steps are compiled, unless that is known or the first steps are to tell."""
        wanted, several = self.settings.compile, self.processes.world > 1
        if wanted is True and (several or self.device.type == "mps"):
            where = "several processes" if several else "an MPS device"
            raise SettingError(f"compile=True: steps are not compiled on {where}. Leave compile at 'auto'.")
        if wanted is True and find_compiler(self.device) is None:
            what = (
                "Triton (pip install triton)" if self.device.type == "cuda" else "a C++ compiler (g++, or CXX names it)"
            )
            raise SettingError(f"compile=True needs {what}, and there is none here. Leave compile at 'auto'.")
        if wanted != "auto":
            self.counters.compiled = bool(wanted)
        elif several or self.device.type == "mps":
            self.counters.compiled = False

    def consider_compiling(self, seconds: float, seconds_left: float) -> None:
        """Decide whether steps are compiled from now on.

        Args:
            seconds: that a step takes.
            seconds_left: that the rest of the run would take.
        """
        pays = seconds <= _SHORT_STEP and seconds_left >= _WORTH_COMPILING
        self.counters.compiled = pays and find_compiler(self.device) is not None
        if self.counters.compiled:
            self._steps.clear()

    def wait(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _make_step(self, index: int, y: Tensor, x: Condition) -> Step:
        """Return how steps of part `index` are made; (y, x) is a batch."""
        state, clip = self.parts[index], self.settings.gradient_clip
        step: Step = Eager(state, self.source, autocast=self.autocast, clip=clip, processes=self.processes)
        if self.settings.compile is True and not state.part.recorded:
            told = f"compile=True: steps of part {state.part.name!r} are not the same operations every time."
            raise SettingError(f"{told} Leave compile at 'auto'.")
        if self.settings.compile is False or self.processes.world > 1 or not state.part.recorded:
            return step
        if self.counters.compiled:
            try:
                step = Compiled(self.family, state, self.generator, autocast=self.autocast, clip=clip, y=y, x=x)
            except SettingError:
                if self.settings.compile is True:
                    raise
        return Recorded(step, self.family, self.generator) if self.device.type == "cuda" else step

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
        y, x = self.y.index_select(0, rows), take_rows(self.x, rows)
        if index not in self._steps:
            self._steps[index] = self._make_step(index, y, x)
        young = counters.step - counters.stage_step
        warm = (1 + young) / (10 + young)
        rate = state.part.rate * learning_rate_at(share_done, settings)
        self._steps[index](y, x, rate, 1 - min(self.ema, warm))

    @torch.no_grad()
    def look(self, indices: list[int]) -> float:
        """Return the held-out loss of the averaged weights, always with the same noise: the sum over the parts."""
        if self.held_out is None:
            raise SettingError("there are no held-out rows to look at.")
        y, x = self.held_out
        repeats = max(1, _HELD_OUT_ROWS // len(y))
        total = 0.0
        with ExitStack() as averages:
            for index in indices:
                averages.enter_context(self.parts[index].flat.holding(self.parts[index].average))
            averages.enter_context(self.autocast)
            for index in indices:
                part = self.parts[index].part
                if not part.judged:
                    continue
                generator = torch.Generator(device=self.device).manual_seed(mix(self.settings.seed, _HELD_OUT, index))
                for _ in range(repeats):
                    for start in range(0, len(y), self.rows_at_once):
                        rows = slice(start, start + self.rows_at_once)
                        losses = (part.judge or part.loss)(y[rows], take_rows(x, rows), generator=generator)
                        total += float(losses.double().sum())
        return self.processes.agree(total / (repeats * len(y)))

    def load(self) -> None:
        """Go on from the state in the folder, if there is one."""
        if self.folder is not None and (self.folder / STATE_FILE).exists():
            self.counters = load_state(self.folder / STATE_FILE, self.parts)

    def save(self) -> None:
        """Write the training state, on the main process."""
        if self.folder is not None and self.processes.is_main:
            save_state(self.folder / STATE_FILE, self.parts, self.counters)

    def keep_best(self, indices: list[int]) -> None:
        """Let the model hold what is kept of these parts: the best average, or the last one where none was judged."""
        for index in indices:
            self.parts[index].flat.set(self.parts[index].best)
