"""One answer with noise to one side: the most probable y and the mean y differ, yet there is one mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from everymode.problems.noise import NoiseProblem

__all__ = ["Skewed"]

_SHAPE = 2.0  # of the gamma distribution: its peak lies at one scale, its mean at two


@dataclass(frozen=True)
class Skewed(NoiseProblem):
    """y = x + gamma noise of shape 2.

    Args:
        noise: scale of the gamma distribution; the peak lies one scale above x, the mean two.
    """

    name: ClassVar[str] = "skewed"
    title: ClassVar[str] = "A straight line with noise to one side: one answer"

    noise: float = 0.4

    def _distribution(self, x: np.ndarray) -> Any:
        return stats.gamma(_SHAPE, loc=x, scale=self.noise)

    def _peak(self, x: np.ndarray) -> np.ndarray:
        return x + (_SHAPE - 1) * self.noise
