"""A common answer, an uncommon one and a rare one: does a model keep the rare?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everymode.problems.mixture import MixtureProblem

__all__ = ["Imbalanced"]


@dataclass(frozen=True)
class Imbalanced(MixtureProblem):
    """Three answers of probability .9, .08 and .02, all on a sine wave and 0, 2 and 3.5 above it.

    The mean lies .23 above the common answer, outside its noise: invalid, though it looks close.

    Args:
        noise: standard deviation of y about each answer.
    """

    name: ClassVar[str] = "imbalanced"
    title: ClassVar[str] = "Three answers of probability .9, .08 and .02"
    x_names: ClassVar[tuple[str, ...]] = ("x",)
    y_names: ClassVar[tuple[str, ...]] = ("y",)
    mode_names: ClassVar[tuple[str, ...]] = ("common", "uncommon", "rare")

    noise: float = 0.05

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, (n, 1))

    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights = np.broadcast_to([0.9, 0.08, 0.02], (len(x), 3))
        means = 0.5 * np.sin(np.pi * x) + np.array([0.0, 2.0, 3.5])
        return weights, means[..., None], np.full((len(x), 3), self.noise)
