"""A straight line with constant noise: the control on which averaging is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from everymode.problems.noise import NoiseProblem

__all__ = ["Line"]


@dataclass(frozen=True)
class Line(NoiseProblem):
    """y = 2 x + Gaussian noise.

    Args:
        noise: standard deviation of y given x.
    """

    name: ClassVar[str] = "line"
    title: ClassVar[str] = "A straight line with constant noise: one answer"

    noise: float = 0.3

    def _distribution(self, x: np.ndarray) -> Any:
        return stats.norm(2 * x, self.noise)

    def _peak(self, x: np.ndarray) -> np.ndarray:
        return 2 * x
