"""One answer whose uncertainty grows with x: wide is not the same as several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from everymode.problems.noise import NoiseProblem

__all__ = ["Heteroscedastic"]


@dataclass(frozen=True)
class Heteroscedastic(NoiseProblem):
    """y = sin(pi x) + Gaussian noise whose standard deviation grows linearly with x.

    Args:
        least_noise: standard deviation of y at x = -1.
        most_noise: standard deviation of y at x = 1.
    """

    name: ClassVar[str] = "heteroscedastic"
    title: ClassVar[str] = "A sine wave whose noise grows along x: one answer"

    least_noise: float = 0.05
    most_noise: float = 0.6

    def _distribution(self, x: np.ndarray) -> Any:
        # Outside [-1, 1] the noise stays what it is at the end, so that it is never negative.
        noise = self.least_noise + (self.most_noise - self.least_noise) * (np.clip(x, -1, 1) + 1) / 2
        return stats.norm(np.sin(np.pi * x), noise)

    def _peak(self, x: np.ndarray) -> np.ndarray:
        return np.sin(np.pi * x)
