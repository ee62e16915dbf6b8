"""Avoiding: three rows of posts stand before the finish line, and 24 ways lead through them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from types import MappingProxyType

import numpy as np
from gymnasium.spaces import Box
from matplotlib.axes import Axes
from scipy.interpolate import PchipInterpolator

from everymode.errors import check_number
from everymode.policies.environments.base import probabilities
from everymode.policies.environments.driving import CRUISE, Driving
from everymode.policies.environments.raster import Raster

__all__ = ["Avoiding"]

_ROWS = (((0.0,), 0.09), ((-0.3, 0.3), 0.07), ((-0.6, 0.0, 0.6), 0.07))  # where posts stand across, and their radius
_LEVELS = (0.0, 0.72, 1.44)  # of the rows
_FINISH = 1.8
_START = -0.26
_GAPS = ((-0.25, 0.25), (-0.6, 0.0, 0.6), (-0.9, -0.3, 0.3, 0.9))  # where a demonstrator passes each row
_RETURN = 8.0  # share of its distance from the line that a demonstrator loses, a unit of the way


class Avoiding(Driving):
    """Drive through a triangle of posts, 1, 2 and 3 of them in a row, to the finish line behind.

    A way is the gap taken in each row: 2 times 3 times 4 of them. 'LM3' is left of the first post, the middle of the
    second row, and the third gap from the left in the last. The layout is that of the reference, four times as large,
    with a point for the robot's rod, thinner posts, and the start nearer to the first of them, so that the average of
    8 steps ends in it.

    Observation (2,): the robot, x and y. Action (2,): the velocity, in units a second. An episode takes about 70 steps.
    `leaning` is -1 until the last row is passed: any gap of a row can be reached from any of the row before.

    Args:
        weights: (24,) probabilities of the ways, in the order of `way_names`; None makes all alike.
        noise: standard deviation of the demonstrator's disturbance; in units a second; at most 0.1.
        render_mode: 'rgb_array' or None.

    References:
        Towards diverse behaviors: a benchmark for imitation learning with human demonstrations (Jia et al., 2024),
            https://arxiv.org/abs/2402.14606
    """

    name = "Avoiding"
    max_steps = 150
    way_names = tuple(f"{'LR'[a]}{'LMR'[b]}{c + 1}" for a, b, c in product(range(2), range(3), range(4)))
    names = MappingProxyType({"state": ("robot_x", "robot_y"), "action": ("velocity_x", "velocity_y")})
    low, high = (-1.3, -0.8), (1.3, 2.0)

    def __init__(
        self, *, weights: Sequence[float] | None = None, noise: float = 0.06, render_mode: str | None = None
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.way_weights = probabilities(weights, len(self.way_names))
        self.noise = check_number("noise", noise, 0, 0.1)
        self.observation_space = Box(np.array(self.low, np.float32), np.array(self.high, np.float32), dtype=np.float32)
        self.discs = np.array(
            [[x, y, radius] for y, (across, radius) in zip(_LEVELS, _ROWS, strict=True) for x in across]
        )
        self._gaps = [-1, -1, -1]
        self._lines: dict[int, np.ndarray] = {}

    def _set_out(self, symmetric: bool) -> np.ndarray:
        self._gaps, self._lines = [-1, -1, -1], {}
        across = self.np_random.uniform(-0.1, 0.1)
        return np.array([0.0 if symmetric else across, self.np_random.uniform(_START - 0.02, _START + 0.02)])

    def _observe(self) -> np.ndarray:
        return self.position.astype(np.float32)

    def _note(self, before: np.ndarray) -> None:
        for row, level in enumerate(_LEVELS):
            if before[1] < level <= self.position[1]:
                share = (level - before[1]) / (self.position[1] - before[1])
                across = before[0] + share * (self.position[0] - before[0])
                self._gaps[row] = int(np.searchsorted(_ROWS[row][0], across))
                if row == len(_LEVELS) - 1:
                    first, second, third = self._gaps
                    self.way = self.leaning = 12 * first + 4 * second + third

    def _remaining(self) -> float:
        return max(0.0, _FINISH - self.position[1]) / (_FINISH - self._path[0][1])

    def _line(self, way: int) -> np.ndarray:
        """Return the way's line from the start of this episode: points, (points, 2)."""
        if way not in self._lines:
            start = self._path[0]
            through = [gaps[gap] for gaps, gap in zip(_GAPS, (way // 12, way // 4 % 3, way % 4), strict=True)]
            curve = PchipInterpolator([start[1], *_LEVELS, self.high[1]], [start[0], *through, through[-1]])
            y = np.linspace(start[1], self.high[1], 400)
            self._lines[way] = np.stack([curve(y), y], axis=1)
        return self._lines[way]

    def intend(self, way: int) -> np.ndarray:
        """Return the velocity along a smooth line through the middle of the way's gaps, or back to it, (2,)."""
        line = self._line(way)
        apart = line - self.position
        nearest = min(int(np.argmin(np.einsum("ij,ij->i", apart, apart))), len(line) - 2)
        along = line[nearest + 1] - line[nearest]
        direction = along / np.hypot(*along) + _RETURN * apart[nearest]
        return CRUISE * direction / np.hypot(*direction)

    def _goal_on(self, axes: Axes) -> None:
        axes.axhspan(_FINISH, self.high[1], facecolor="#d5e0bb", edgecolor="none", zorder=0)

    def _goal_in(self, raster: Raster) -> None:
        behind = self.high[1] - _FINISH
        raster.box(0.0, _FINISH + behind / 2, self.high[0] - self.low[0], behind, (213, 224, 187))
