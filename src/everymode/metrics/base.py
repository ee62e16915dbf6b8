"""What every metric returns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

__all__ = ["Measure"]


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval, beside what real draws would score.

    Attributes:
        value: the metric.
        low: lower end of the interval; None where the data allow no interval.
        high: upper end of the interval.
        floor: the same metric of as many real draws; None where there were none to compare with.
        n: how many things were averaged: draws for `valid_share`, rows for the others.
    """

    value: float
    low: float | None
    high: float | None
    floor: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """A dictionary that JSON can hold: None stands for what is not a finite number."""
        return {
            name: None if number is None or not math.isfinite(number) else number
            for name, number in asdict(self).items()
        }
