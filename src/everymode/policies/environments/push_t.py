"""Push-T: push a T-shaped block onto its outline. The physics is gym-pusht's, as it is.

References:
    Implicit behavioral cloning (Florence et al., 2021), https://arxiv.org/abs/2109.00137
    Diffusion policy: visuomotor policy learning via action diffusion (Chi et al., 2023),
        https://arxiv.org/abs/2303.04137
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from everymode.errors import DataError, check_bool, require
from everymode.policies.environments.base import Environment

__all__ = ["PushT"]

_SIZE = 512.0  # of the table; y points down
_BANNER = "PYGAME_HIDE_SUPPORT_PROMPT"


class PushT(Environment):
    """Push a T onto its outline with a round pusher, within 300 steps of a tenth of a second.

    The reward is the covered share of the outline over 0.95, at most 1; the episode succeeds and ends above 0.95. The
    start is random; `reset(options={"state": (5,)})` starts from a given one: pusher x and y, block x, y and angle.

    Observation (5,): that state, positions in [0, 512], the angle in [0, 2 pi]; with `image`, a dict of `state` (2,),
    the pusher, and `image` (96, 96, 3) uint8. Action (2,): the position that the pusher is drawn to.

    Args:
        image: observe pixels instead of the block's pose.
        render_mode: 'rgb_array' or None.

    Raises:
        MissingExtraError: gym-pusht is not installed.
    """

    name = "PushT"
    max_steps = 300
    reset_options = ("state",)
    no_script = "PushT has no scripted demonstrator: read the published demonstrations with read_demonstrations."

    def __init__(self, *, image: bool = False, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.image = check_bool("image", image)
        self._table = _table()(render_mode="rgb_array")
        everywhere = np.full(5, _SIZE, np.float32)
        everywhere[4] = 2 * np.pi
        pusher, whole = (Box(np.zeros_like(high), high, dtype=np.float32) for high in (everywhere[:2], everywhere))
        self.action_space = pusher
        names = ("pusher_x", "pusher_y", "block_x", "block_y", "block_angle")
        if image:
            self.observation_space = Dict({"state": pusher, "image": Box(0, 255, (96, 96, 3), np.uint8)})
        else:
            self.observation_space = whole
            self.angles = MappingProxyType({"state": (4,)})
        action = ("target_x", "target_y")
        self.names = MappingProxyType({"state": names[:2] if image else names, "action": action})

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start an episode; see `Environment` and the class."""
        state = self._start(seed, options).get("state")
        self._table.reset(seed=seed)
        if state is not None:
            self._place(np.asarray(state, dtype=np.float64))
        return self._observe(), {"is_success": False}

    def _place(self, state: np.ndarray) -> None:
        """Put everything where a state says, at rest."""
        if state.shape != (5,) or not np.isfinite(state).all():
            raise DataError(f"{self.name}: the state {state.tolist()} must be five finite numbers.")
        table = self._table
        table.agent.position = tuple(state[:2].tolist())
        table.block.angle = float(state[4])  # first: it turns about the centre of mass, which moves the position
        table.block.position = tuple(state[2:4].tolist())
        table.agent.velocity = table.block.velocity = (0.0, 0.0)
        table.block.angular_velocity = 0.0
        table.space.step(table.dt)  # shapes follow their bodies

    def _observe(self) -> Any:
        state = self._table.get_obs().astype(np.float32)
        self._path.append(state[:2])
        return {"state": state[:2], "image": self._table._render()} if self.image else state

    def step(self, action: Any):
        """Draw the pusher to a position for one step."""
        target = self._checked(action)
        _, reward, success, _, info = self._table.step(self._table.vector(*target.tolist()))
        told = {"is_success": bool(success), "coverage": float(info["coverage"])}
        return self._observe(), float(reward), bool(success), self._truncated, told

    def backdrop(self, axes: Axes) -> None:
        """Draw the outline, and set the limits of the axes; y points down."""
        for part in self._table.outline:
            axes.add_patch(Polygon(part, closed=True, facecolor="#d5e0bb", edgecolor="none", zorder=0))
        axes.set(xlim=(0, _SIZE), ylim=(_SIZE, 0), aspect="equal")

    def picture(self, size: int = 256) -> np.ndarray:
        """Return the table from above, (size, size, 3) uint8."""
        return self._table._get_img(self._table._draw(), width=size, height=size)


@cache
def _table() -> type[Any]:
    """Return gym-pusht's environment, made quicker where it works the same out again.

    More than half of its time goes into polygons for the coverage of a block that mostly rests, and with pixels much
    into copying the screen; the numbers stay the same.
    """
    shown = os.environ.get(_BANNER)
    os.environ[_BANNER] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pygame's use of pkg_resources, among others
            table = require("gym_pusht.envs.pusht", "policies", "pushed blocks").PushTEnv
    finally:
        if shown is None:
            del os.environ[_BANNER]
        else:
            os.environ[_BANNER] = shown
    cv2, pygame, pymunk, shapely = (require(module, "policies") for module in ("cv2", "pygame", "pymunk", "shapely"))

    class Table(table):
        """gym-pusht's environment; coverage is measured when the block has moved, against an outline built once."""

        @staticmethod
        def vector(x: float, y: float) -> Any:
            return pymunk.Vec2d(x, y)

        def _setup(self) -> None:
            super()._setup()
            body = self.get_goal_pose_body(self.goal_pose)
            self._corners = [shape.get_vertices() for shape in self.block.shapes]
            self.outline = np.array([[body.local_to_world(v) for v in corners] for corners in self._corners])
            self._goal = shapely.multipolygons(shapely.polygons(self.outline))
            self._covered: tuple[Any, float] = (None, 0.0)  # the block's pose, and the coverage there

        def _get_coverage(self) -> float:
            pose, place = (*self.block.position, self.block.angle), self.block.local_to_world
            if pose != self._covered[0]:
                parts = shapely.polygons(np.array([[place(v) for v in corners] for corners in self._corners]))
                shared = shapely.intersection(self._goal, shapely.multipolygons(parts)).area
                self._covered = (pose, shared / self._goal.area)
            return self._covered[1]

        def _get_img(self, screen: Any, width: int, height: int, render_action: bool = False) -> np.ndarray:
            pixels = np.frombuffer(pygame.image.tobytes(screen, "RGB"), np.uint8)
            return cv2.resize(pixels.reshape(screen.get_height(), screen.get_width(), 3), (width, height))

    return Table
