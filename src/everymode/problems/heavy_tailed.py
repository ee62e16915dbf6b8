"""One answer with far outliers: a few distant draws are not a second mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from everymode.errors import check_number
from everymode.problems.noise import NoiseProblem

__all__ = ["HeavyTailed"]


@dataclass(frozen=True)
class HeavyTailed(NoiseProblem):
    """y = x + Student's t noise.

    Args:
        noise: scale of the noise.
        degrees: degrees of freedom; above 2, so that the variance is finite.
    """

    name: ClassVar[str] = "heavy_tailed"
    title: ClassVar[str] = "A straight line with Student's t noise: one answer and far outliers"

    noise: float = 0.2
    degrees: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("heavy_tailed.degrees", self.degrees, 2, exclusive_low=True)

    def _distribution(self, x: np.ndarray) -> Any:
        return stats.t(self.degrees, loc=x, scale=self.noise)

    def _peak(self, x: np.ndarray) -> np.ndarray:
        return x
