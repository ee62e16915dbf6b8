"""Twenty-five answers: does a model keep them all?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everymode.problems.base import turn
from everymode.problems.mixture import MixtureProblem

__all__ = ["Grid"]

_PLACES = np.arange(-2.0, 3.0)
_SHARES = np.array([0.12, 0.15, 0.20, 0.24, 0.29])  # of each column, and of each row


@dataclass(frozen=True)
class Grid(MixtureProblem):
    """A 5 x 5 grid of Gaussians one unit apart, turned by the angle x, uniform on [-pi/4, pi/4].

    Probabilities run from .0144 in one corner to .0841 in the other. They are unequal so that the mean falls
    between four neighbours: with equal ones it would hit the central Gaussian, and averaging would look fine.

    Args:
        noise: standard deviation of each Gaussian.
    """

    name: ClassVar[str] = "grid"
    title: ClassVar[str] = "Twenty-five answers on a grid that turns with x"
    x_names: ClassVar[tuple[str, ...]] = ("angle",)
    y_names: ClassVar[tuple[str, ...]] = ("first", "second")
    mode_names: ClassVar[tuple[str, ...]] = tuple(f"{i},{j}" for i in range(1, 6) for j in range(1, 6))

    noise: float = 0.08

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-np.pi / 4, np.pi / 4, (n, 1))

    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = len(x)
        places = np.stack(np.meshgrid(_PLACES, _PLACES, indexing="ij"), axis=-1).reshape(25, 2)
        means = turn(np.broadcast_to(places, (rows, 25, 2)), x[:, 0])
        weights = np.broadcast_to(np.outer(_SHARES, _SHARES).ravel(), (rows, 25))
        return weights, means, np.full((rows, 25), self.noise)
