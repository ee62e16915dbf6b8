"""How a run is trained, one sentence a field; and the defaults that follow from the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from everymode.errors import SettingError, check_bool, check_choice, check_number
from everymode.training.precision import PRECISIONS

__all__ = ["TrainingSettings", "default_learning_rate", "default_width"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the outcome of a run besides the family and the data.

    Attributes:
        steps: optimiser steps; with several stages, all of them together.
        batch_size: rows a step, over all processes.
        learning_rate: the peak, after warm-up.
        warmup: share of the steps over which the learning rate rises from 0.
        final_learning_rate: what the cosine falls to, as a share of the peak.
        weight_decay: AdamW's.
        gradient_clip: largest norm of a part's gradient; None for no clipping.
        ema: decay of the average of the weights that is kept as the model; None lets it follow from the steps.
        validate_every: steps between two looks at the held-out rows.
        patience: looks without improvement after which the run stops; None never stops early.
        choose: whether the best average on the held-out rows is kept, and may end the run; else they are only looked
            at, and the last average is kept.
        max_seconds: stops the run in time; the learning rate then falls with whichever of steps and time is ahead.
        checkpoint_every: steps between two checkpoints, where a folder is given.
        precision: 'auto', 'float32' or 'bf16'.
        compile: True compiles every step into one function, before the first: one and a half to three times as fast
            with small networks, for ten to thirty seconds of compilation. 'auto' does so after the first steps, where
            they are short and more than a minute of them is left; and on a GPU it records the steps as CUDA graphs,
            which costs no time and changes no number. False does neither.
        seed: of batches and noise.
    """

    steps: int = 5000
    batch_size: int = 256
    learning_rate: float = 1e-3
    warmup: float = 0.03
    final_learning_rate: float = 0.01
    weight_decay: float = 1e-4
    gradient_clip: float | None = 1.0
    ema: float | None = None
    validate_every: int = 200
    patience: int | None = 10
    choose: bool = True
    max_seconds: float | None = None
    checkpoint_every: int = 500
    precision: str = "auto"
    compile: bool | str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("steps", self.steps, 1, 10**9, integer=True)
        check_number("batch_size", self.batch_size, 1, 10**7, integer=True)
        check_number("learning_rate", self.learning_rate, 0, 10, exclusive_low=True)
        check_number("warmup", self.warmup, 0, 1)
        check_number("final_learning_rate", self.final_learning_rate, 0, 1)
        check_number("weight_decay", self.weight_decay, 0, 1)
        check_number("gradient_clip", self.gradient_clip, 0, optional=True, exclusive_low=True)
        check_number("ema", self.ema, 0, 1, optional=True)
        check_number("validate_every", self.validate_every, 1, integer=True)
        check_number("patience", self.patience, 1, integer=True, optional=True)
        check_bool("choose", self.choose)
        check_number("max_seconds", self.max_seconds, 0, optional=True, exclusive_low=True)
        check_number("checkpoint_every", self.checkpoint_every, 1, integer=True)
        check_choice("precision", self.precision, PRECISIONS)
        if self.compile != "auto" and not isinstance(self.compile, bool):
            raise SettingError(f"compile={self.compile!r}: give True, False or 'auto'.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return asdict(self)

    @classmethod
    def for_rows(cls, rows: int, *, batch_share: float = 1.0, **given: Any) -> TrainingSettings:
        """Return defaults that suit a table of `rows` training rows; what is given and not None stands.

        Args:
            rows: how many.
            batch_share: of the batch that suits the rows; a family tells it.
            **given: fields of this class.

        Raises:
            SettingError: a setting is unknown or out of range.
        """
        sizes = ((1000, 3000, 128), (5000, 6000, 256), (50_000, 5000, 512))
        steps, batch_size = next((rest for below, *rest in sizes if rows < below), (20_000, 1024))
        defaults: dict[str, Any] = {"steps": steps, "batch_size": round(batch_share * batch_size)}
        chosen = {**defaults, **{k: v for k, v in given.items() if v is not None}}
        unknown = set(chosen) - set(cls.__dataclass_fields__)
        if unknown:
            raise SettingError(f"unknown training setting(s): {', '.join(sorted(unknown))}.")
        return cls(**chosen)


def default_width(rows: int) -> int:
    """Return the hidden width that suits `rows` training rows."""
    for limit, width in ((20_000, 64), (100_000, 128), (1_000_000, 256)):
        if rows < limit:
            return width
    return 512


def default_learning_rate(width: int, network: str | None = "mlp") -> float:
    """Return the peak learning rate that suits a hidden width and a network, by its name: multilayer perceptrons bear,
    and want, a higher one than others, and the narrow ones the highest.

    Raises:
        SettingError: the width is no positive number.
    """
    check_number("width", width, 0.0, exclusive_low=True)
    return max(1e-3, min(4e-3, 0.8 / width)) if network == "mlp" else 1e-3
