"""Left or right of the obstacle, never straight on: the smallest problem with several answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everymode.problems.mixture import MixtureProblem

__all__ = ["Fork"]


@dataclass(frozen=True)
class Fork(MixtureProblem):
    """An object passes an obstacle on the left, at (-3, 0), or on the right, at (3, 0), as often as not.

    The faster it moves (speed uniform on [0.5, 1.5]) the less exactly it lands. The mean is (0, 0): the
    obstacle.

    Args:
        least_noise: standard deviation of a landing point at speed 0.5.
        most_noise: standard deviation of a landing point at speed 1.5.
    """

    name: ClassVar[str] = "fork"
    title: ClassVar[str] = "Left or right of the obstacle, with equal probability"
    x_names: ClassVar[tuple[str, ...]] = ("speed",)
    y_names: ClassVar[tuple[str, ...]] = ("across", "along")
    mode_names: ClassVar[tuple[str, ...]] = ("left", "right")

    least_noise: float = 0.15
    most_noise: float = 0.35

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(0.5, 1.5, (n, 1))

    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = len(x)
        means = np.array([[-3.0, 0.0], [3.0, 0.0]])
        # Speeds outside the range keep the noise of its end, so that it is never negative.
        noise = self.least_noise + (self.most_noise - self.least_noise) * (np.clip(x, 0.5, 1.5) - 0.5)
        return np.full((rows, 2), 0.5), np.broadcast_to(means, (rows, 2, 2)), np.repeat(noise, 2, axis=1)
