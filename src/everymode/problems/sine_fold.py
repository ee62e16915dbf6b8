"""A sine wave read backwards: the classic inverse problem, with one to three answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everymode.errors import check_number
from everymode.problems.base import Modes, Problem, draw_labels

__all__ = ["SineFold"]

_GRID = np.linspace(0, 1, 2001)
_STEP = _GRID[1]
_SIMPSON = np.concatenate([[1], np.tile([4, 2], 1000)[:-1], [1]]) * _STEP / 3
# The curve turns back where its slope is 0: cos(2 pi y) = -1 / (0.6 pi). The folds part its three branches.
_FIRST_FOLD = np.arccos(-1 / (0.6 * np.pi)) / (2 * np.pi)
_FOLDS = np.array([_FIRST_FOLD, 1 - _FIRST_FOLD])
_BRANCH = np.searchsorted(_FOLDS, _GRID)
_MERGED = 0.6  # two branches are one mode where the density between them exceeds this share of the lower peak


@dataclass(frozen=True)
class SineFold(Problem):
    """x = y + 0.3 sin(2 pi y) + Gaussian noise, y uniform on [0, 1]; to predict is y given x.

    p(y | x) is the noise's density normalised over y in [0, 1] by Simpson's rule with 2001 points: relative
    error below 1e-4 for the default noise and x in [-0.2, 1.2], where all but 1e-9 of x lies. The mean is
    integrated likewise. Draws given x come from that grid, uniform within one of its cells of width 0.0005.

    The curve has three branches, parted by its two folds. Each branch's highest point is a mode, and what the
    branch holds its probability (to .002). Near a fold, where the density between two branches is above .6 of
    the lower peak, the two are one mode, which keeps the name of the outer branch. Modes of probability under
    .01 are dropped and the rest renormalised.

    Valid: within the highest-density region that holds 99.5 % of p(y | x); wider ones join the branches. The
    mean is invalid where two answers are about as probable, x of .34 to .38 and .62 to .66. Between, where
    there are three, it passes through the middle one, which averaging therefore happens to get right.

    References:
        Mixture density networks (Bishop, 1994), with uniform noise there,
        https://publications.aston.ac.uk/id/eprint/373/

    Args:
        noise: standard deviation of x given y, at least .01.
    """

    name: ClassVar[str] = "sine_fold"
    title: ClassVar[str] = "A sine wave read backwards: one to three answers"
    x_names: ClassVar[tuple[str, ...]] = ("x",)
    y_names: ClassVar[tuple[str, ...]] = ("y",)
    mode_names: ClassVar[tuple[str, ...]] = ("low", "middle", "high")

    noise: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(f"{self.name}.noise", self.noise, 0.01)  # below it the density would not be exact

    def _draw_pairs(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        y = rng.uniform(0, 1, (n, 1))
        return _curve(y) + self.noise * rng.standard_normal((n, 1)), y

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self._draw_pairs(n, rng)[0]

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        density, _ = self._on_grid(x)
        cells = draw_labels(density[:, 1:] + density[:, :-1], n, rng)
        return (_GRID[cells] + _STEP * rng.random(cells.shape))[..., None]

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        density, log_scale = self._on_grid(x)
        inside = (y[..., 0] >= 0) & (y[..., 0] <= 1)
        log_density = self._log_noise(x, y[..., 0]) - log_scale - np.log(density @ _SIMPSON)[:, None]
        return np.where(inside, log_density, -np.inf)

    def _modes(self, x: np.ndarray) -> list[Modes]:
        return [self._modes_of(density) for density in self._on_grid(x)[0]]

    def _modes_of(self, density: np.ndarray) -> Modes:
        density = density / (density @ _SIMPSON)
        names = self._names(density[None])[0]
        labels, locations, probabilities, spreads = np.unique(names[_BRANCH]), [], [], []
        for label in labels:
            part = np.where(names[_BRANCH] == label, density, 0)
            location, probability = _GRID[part.argmax()], part @ _SIMPSON
            locations.append([location])
            probabilities.append(probability)
            spreads.append(np.sqrt(((_GRID - location) ** 2 * part) @ _SIMPSON / max(probability, 1e-300)))
        return Modes.ranked(labels, locations, probabilities, spreads)

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        density, log_scale = self._on_grid(x)
        ordered = -np.sort(-density, axis=1)
        held = np.cumsum(ordered, axis=1) / ordered.sum(axis=1, keepdims=True)
        least = np.take_along_axis(ordered, (held >= 0.995).argmax(axis=1)[:, None], axis=1)
        inside = (y[..., 0] >= 0) & (y[..., 0] <= 1)
        high = inside & (self._log_noise(x, y[..., 0]) - log_scale >= np.log(least))
        branch = np.searchsorted(_FOLDS, y[..., 0])
        return np.where(high, np.take_along_axis(self._names(density), branch, axis=1), -1)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        density, _ = self._on_grid(x)
        return ((density @ (_SIMPSON * _GRID)) / (density @ _SIMPSON))[:, None]

    def _log_noise(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -((x - _curve(y)) ** 2) / (2 * self.noise**2)

    def _on_grid(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p(y | x) at the grid, up to a factor that makes its peak 1, `(rows, 2001)`; log of that factor."""
        log_density = self._log_noise(x, _GRID)
        log_scale = log_density.max(axis=1, keepdims=True)
        return np.exp(log_density - log_scale), log_scale

    def _names(self, density: np.ndarray) -> np.ndarray:
        """The label that each of the three branches goes by, `(rows, 3)`: merged branches share one."""
        peaks = np.stack([density[:, branch == _BRANCH].max(axis=1) for branch in range(3)], axis=1)
        valleys = density[:, np.searchsorted(_GRID, _FOLDS)]  # (rows, 2)
        merged = valleys > _MERGED * np.minimum(peaks[:, :2], peaks[:, 1:])
        middle = np.where(merged[:, 0], 0, np.where(merged[:, 1], 2, 1))
        return np.stack([np.zeros_like(middle), middle, np.full_like(middle, 2)], axis=1)


def _curve(y: np.ndarray) -> np.ndarray:
    return y + 0.3 * np.sin(2 * np.pi * y)
