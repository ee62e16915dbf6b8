"""A point robot in the plane among round obstacles: what `Obstacle` and `Avoiding` share.

The action is the robot's velocity, in units a second. A chunk of velocities goes on from wherever the robot is, and a
network that is off by a twentieth of their spread is off by a twentieth of a step; of positions, by a whole one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from everymode.policies.environments.base import Scripted
from everymode.policies.environments.raster import Raster

__all__ = ["CRUISE", "TOP_SPEED", "Driving"]

CRUISE = 0.4  # of a demonstrator, in units a second
TOP_SPEED = 0.6  # of the robot

_RED, _BLUE = (217, 72, 15), (0, 96, 127)


class Driving(Scripted):
    """Drive from a start to a goal; whoever touches an obstacle has failed."""

    reset_options = ("symmetric",)
    low: ClassVar[tuple[float, float]]  # the room's corners
    high: ClassVar[tuple[float, float]]

    discs: np.ndarray  # (obstacles, 3): x, y, radius

    def __init__(self, *, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.action_space = Box(-TOP_SPEED, TOP_SPEED, (2,), np.float32)
        self.position = np.zeros(2)

    @abstractmethod
    def _set_out(self, symmetric: bool) -> np.ndarray:
        """Lay out the scene; return the robot's start."""

    @abstractmethod
    def _note(self, before: np.ndarray) -> None:
        """Set `way` and `leaning` after a move from `before`."""

    @abstractmethod
    def _remaining(self) -> float:
        """Return how far the goal is, as a share of the whole; 0 once it is reached."""

    @abstractmethod
    def _observe(self) -> np.ndarray: ...

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start an episode; see `Environment`."""
        self.position = self._set_out(bool(self._start(seed, options).get("symmetric", False)))
        self._path.append(self.position)
        return self._observe(), {"is_success": False, "collided": False}

    def step(self, action: Any):
        """Drive at a velocity for one step; walls and the top speed hold the robot back."""
        before, velocity = self.position, self._checked(action)
        velocity *= min(1.0, TOP_SPEED / max(float(np.hypot(*velocity)), 1e-12))
        self.position = np.clip(before + velocity / self.rate, self.low, self.high)
        self._path.append(self.position)
        collided = bool((_closest(before, self.position, self.discs[:, :2]) < self.discs[:, 2]).any())
        self._note(before)
        remaining = self._remaining()
        success = remaining == 0 and not collided
        reward = 0.0 if collided else 1.0 - min(remaining, 1.0)
        info = {"is_success": success, "collided": collided}
        return self._observe(), reward, success or collided, self._truncated, info

    @abstractmethod
    def _goal_on(self, axes: Axes) -> None: ...

    @abstractmethod
    def _goal_in(self, raster: Raster) -> None: ...

    def backdrop(self, axes: Axes) -> None:
        """Draw the obstacles and the goal, and set the limits of the axes."""
        self._goal_on(axes)
        for x, y, radius in self.discs:
            axes.add_patch(Circle((x, y), radius, facecolor="#c9ced6", edgecolor="#7d848f", zorder=1))
        axes.set(xlim=(self.low[0], self.high[0]), ylim=(self.low[1], self.high[1]), aspect="equal")

    def picture(self, size: int = 256) -> np.ndarray:
        """Return the scene from above, `size` pixels high, (height, width, 3) uint8."""
        raster = Raster(self.low, self.high, size)
        self._goal_in(raster)
        for x, y, radius in self.discs:
            raster.disc(x, y, radius, _RED)
        raster.disc(self.position[0], self.position[1], 0.03, _BLUE)
        return raster.pixels()


def _closest(start: np.ndarray, end: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance of each point, (n, 2), to the segment from start to end."""
    along = end - start
    share = np.clip((points - start) @ along / max(float(along @ along), 1e-18), 0.0, 1.0)
    return np.hypot(*(points - start - share[:, None] * along).T)
