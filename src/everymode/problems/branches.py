"""One answer, then two, then three along x: where does a problem become one-to-many?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everymode.problems.mixture import MixtureProblem

__all__ = ["Branches"]


@dataclass(frozen=True)
class Branches(MixtureProblem):
    """A trunk for all x in [-1, 1]; an upper branch begins at -0.45 and a lower one at 0.25.

    A branch's probability rises smoothly from 0 over a width of 0.2: to .45 for the upper, to .2 for the
    lower. The trunk has the rest. Past both rises the mean lies on no branch; within a rise, where a branch
    is still rare, the mean stays close to the trunk and is valid.

    Args:
        noise: standard deviation of y about each branch.
    """

    name: ClassVar[str] = "branches"
    title: ClassVar[str] = "One branch, then two, then three along x"
    x_names: ClassVar[tuple[str, ...]] = ("x",)
    y_names: ClassVar[tuple[str, ...]] = ("y",)
    mode_names: ClassVar[tuple[str, ...]] = ("trunk", "upper", "lower")

    noise: float = 0.07

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, (n, 1))

    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        upper = 0.45 * _rise(x, start=-0.45, width=0.2)
        lower = 0.2 * _rise(x, start=0.25, width=0.2)
        weights = np.concatenate([1 - upper - lower, upper, lower], axis=1)
        means = np.stack([0.3 * np.sin(2 * x), 0.9 + 0.6 * x, -0.3 - 0.7 * x], axis=1)
        return weights, means, np.full(weights.shape, self.noise)


def _rise(x: np.ndarray, start: float, width: float) -> np.ndarray:
    """From 0 at `start` to 1 at `start + width`, with a continuous slope."""
    u = np.clip((x - start) / width, 0, 1)
    return u * u * (3 - 2 * u)
