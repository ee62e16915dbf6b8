"""Obstacle: an obstacle stands between the robot and its goal; go round it left or right."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from gymnasium.spaces import Box
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from everymode.errors import check_number
from everymode.policies.environments.driving import CRUISE, Driving
from everymode.policies.environments.raster import Raster
from everymode.policies.environments.steering import bypass

__all__ = ["Obstacle"]

_GOAL_RADIUS = 0.08
_SCATTER = np.array([0.08, 0.05, 0.1])  # of the start, the obstacle and the goal, across


class Obstacle(Driving):
    """Drive from the near end of a room to a goal at its far end, round an obstacle between them.

    The average of the two ways leads straight on, and the start is so near that its first 8 steps end in the obstacle:
    a policy that answers with the average of what was shown collides before it looks again. Nothing in what it sees
    at a symmetric start favours a side.

    Observation (6,): the robot, the obstacle's centre, the goal; x and y of each. Action (2,): the velocity, in
    units a second. An episode takes about 40 steps.

    Args:
        difficulty: in [0, 1]: the obstacle's radius grows from 0.12 to 0.2, and the room that demonstrators keep
            shrinks from 0.1 to 0.07.
        weights: probability that a demonstrator goes left.
        noise: standard deviation of the demonstrator's disturbance; in units a second; at most 0.1.
        render_mode: 'rgb_array' or None.
    """

    name = "Obstacle"
    max_steps = 90
    way_names = ("left", "right")
    names = MappingProxyType(
        {
            "state": ("robot_x", "robot_y", "obstacle_x", "obstacle_y", "goal_x", "goal_y"),
            "action": ("velocity_x", "velocity_y"),
        }
    )
    low, high = (-0.8, -0.6), (0.8, 1.4)

    def __init__(
        self, *, difficulty: float = 0.5, weights: float = 0.5, noise: float = 0.06, render_mode: str | None = None
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.difficulty = check_number("difficulty", difficulty, 0, 1)
        left = check_number("weights", weights, 0, 1)
        self.way_weights = np.array([left, 1 - left])
        self.noise = check_number("noise", noise, 0, 0.1)
        self.radius = 0.12 + 0.08 * self.difficulty
        self.clearance = 0.1 - 0.03 * self.difficulty
        self.observation_space = Box(
            np.array(self.low * 3, np.float32), np.array(self.high * 3, np.float32), dtype=np.float32
        )
        self.goal, self._axis, self._whole = np.zeros(2), np.zeros(2), 1.0
        self.discs = np.array([[0.0, 0.0, self.radius]])

    def _set_out(self, symmetric: bool) -> np.ndarray:
        rng = self.np_random
        start = np.array([0.0, rng.uniform(-0.19, -0.15) - self.radius])
        self.goal = np.array([0.0, 1.2])
        across = rng.uniform(-1.0, 1.0, 3)
        start[0], self.discs[0, 0], self.goal[0] = np.full(3, 0.05 * across[0]) if symmetric else across * _SCATTER
        self._axis = (self.goal - start) / np.hypot(*(self.goal - start))
        self._whole = float(np.hypot(*(self.goal - start)))
        return start

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.position, self.discs[0, :2], self.goal]).astype(np.float32)

    def _note(self, before: np.ndarray) -> None:
        if self.way >= 0:
            return
        past = self.position - self.discs[0, :2]
        to_left = float(self._axis[0] * past[1] - self._axis[1] * past[0])
        side = 0 if to_left > 0 else 1
        if past @ self._axis >= 0:
            self.way = self.leaning = side
        else:
            self.leaning = side if abs(to_left) > self.radius / 3 else -1

    def _remaining(self) -> float:
        distance = float(np.hypot(*(self.goal - self.position)))
        return 0.0 if distance < _GOAL_RADIUS else distance / self._whole

    def intend(self, way: int) -> np.ndarray:
        """Return the velocity along the shortest path on that side, (2,)."""
        side = 1 if way == 0 else -1
        direction = bypass(self.position, self.goal, self.discs[0, :2], self.radius + self.clearance, side)
        return CRUISE * direction

    def _goal_on(self, axes: Axes) -> None:
        axes.add_patch(Circle((self.goal[0], self.goal[1]), _GOAL_RADIUS, facecolor="#d5e0bb", edgecolor="#86a83e"))

    def _goal_in(self, raster: Raster) -> None:
        raster.disc(self.goal[0], self.goal[1], _GOAL_RADIUS, (134, 168, 62))
