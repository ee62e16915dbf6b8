"""One-answer problems: a curve plus noise of any one-dimensional distribution that SciPy knows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everymode.problems.base import Modes, Problem

__all__ = ["NoiseProblem"]


@dataclass(frozen=True)
class NoiseProblem(Problem):
    """y given x follows one distribution with a single peak; x is uniform on [-1, 1].

    Valid: within the central interval that holds 99.9 % of the draws.
    """

    x_names: ClassVar[tuple[str, ...]] = ("x",)
    y_names: ClassVar[tuple[str, ...]] = ("y",)
    mode_names: ClassVar[tuple[str, ...]] = ("only",)
    answers: ClassVar[str] = "one"

    @abstractmethod
    def _distribution(self, x: np.ndarray) -> Any:
        """The frozen `scipy.stats` distribution of y, whose parameters broadcast over x `(rows, 1)`."""

    @abstractmethod
    def _peak(self, x: np.ndarray) -> np.ndarray:
        """Where the density is highest, `(rows, 1)`."""

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, (n, 1))

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        return self._distribution(x).rvs(size=(len(x), n), random_state=rng)[..., None]

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._distribution(x).logpdf(y[..., 0])

    def _modes(self, x: np.ndarray) -> list[Modes]:
        peak, law = self._peak(x), self._distribution(x)
        spread = np.sqrt(law.var() + (law.mean() - peak) ** 2)
        return [Modes.ranked([0], [p], [1.0], s) for p, s in zip(peak, spread, strict=True)]

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        low, high = self._distribution(x).interval(0.999)
        return np.where((low <= y[..., 0]) & (y[..., 0] <= high), 0, -1)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        return self._distribution(x).mean()
