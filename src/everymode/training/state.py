"""What training is at one step: enough to go on from there, to the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everymode.errors import CheckpointError
from everymode.families.base import Part
from everymode.training.checkpoint import read_tensors, write_tensors
from everymode.training.flat import FlatAdamW, FlatParameters

__all__ = ["Counters", "PartState", "load_state", "save_state"]


@dataclass
class Counters:
    """The numbers of a run. The random state of step k is a function of (seed, k), so `step` holds it.

    Attributes:
        step: steps done.
        stage: the stage that is trained.
        stage_step: the step at which it began. stage_seconds: the seconds at which it began.
        best_loss: the lowest held-out loss of this stage, or the last where the last average is kept; with its step.
        looks_without_gain: looks at the held-out rows since then.
        seconds: spent so far, over all sittings.
        precision: what was chosen at the start.
        compiled: whether steps are compiled; None until that is decided.
        finished: why this stage is over; None while it is not.
        history: one row a report.
    """

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    stage_seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    looks_without_gain: int = 0
    seconds: float = 0.0
    precision: str = ""
    compiled: bool | None = None
    finished: str | None = None
    history: list[dict[str, float | None]] = field(default_factory=list)

    def next_stage(self) -> None:
        """Begin the next stage."""
        self.stage, self.stage_step, self.stage_seconds = self.stage + 1, self.step, self.seconds
        self.best_loss, self.looks_without_gain, self.finished = None, 0, None


class PartState:
    """Parameters, their average, the best average so far and the optimiser of one part."""

    def __init__(self, part: Part, *, weight_decay: float) -> None:
        self.part = part
        self.flat = FlatParameters(part.module)
        self.average = self.flat.values.clone()
        self.best = self.flat.values.clone()
        self.optimizer = FlatAdamW(self.flat.values, weight_decay=weight_decay, betas=part.betas)
        self.running_loss = torch.zeros((), device=self.flat.values.device)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name."""
        own = {
            "values": self.flat.values,
            "average": self.average,
            "best": self.best,
            "running_loss": self.running_loss,
        }
        return {**own, **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.tensors().items()}}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take everything from `tensors`, as `tensors()` named it."""
        for name, own in self.tensors().items():
            if name not in tensors or tensors[name].shape != own.shape:
                raise CheckpointError(f"the training state does not fit the model: {name} of part {self.part.name!r}.")
            own.copy_(tensors[name])
        self.flat.publish()


def save_state(path: Path, parts: list[PartState], counters: Counters) -> None:
    """Write the state of a run, atomically."""
    tensors = {f"{i}.{name}": tensor for i, part in enumerate(parts) for name, tensor in part.tensors().items()}
    write_tensors(path, tensors, {"counters": asdict(counters)}, kind="training")


def load_state(path: Path, parts: list[PartState]) -> Counters:
    """Put the state at `path` into `parts` and return its counters.

    Raises:
        CheckpointError: the file is damaged, or is of another model.
    """
    tensors, header = read_tensors(path, kind="training")
    for i, part in enumerate(parts):
        prefix = f"{i}."
        part.restore({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    described: dict[str, Any] = header["counters"]
    return Counters(**described)
