"""BlockPush: push two blocks into two zones, in either order, either block into either zone.

References:
    Behavior Transformers: cloning k modes with one stone (Shafiullah et al., 2022), https://arxiv.org/abs/2206.11251
    Implicit behavioral cloning (Florence et al., 2021), https://arxiv.org/abs/2109.00137
    Mechanics and planning of manipulator pushing operations (Mason, 1986), https://doi.org/10.1177/027836498600500303
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from everymode.errors import check_number
from everymode.policies.environments.base import Scripted, probabilities
from everymode.policies.environments.raster import Raster
from everymode.policies.environments.steering import bypass

__all__ = ["BlockPush"]

_PUSHER, _BLOCK, _ZONE = 0.05, 0.1, 0.1  # radii; a block whose centre is in a zone is in it
_REACH = _PUSHER + _BLOCK
_FRICTION = 0.5  # between pusher and block
_CRUISE, _TOP_SPEED = 0.4, 0.6  # units a second: of a demonstrator, of the pusher
_SUBSTEPS = 4
_LEANS = 0.15  # how far a block has been moved when it is clear where to
_RED, _ORANGE, _BLUE = (217, 72, 15), (230, 159, 0), (0, 96, 127)


class BlockPush(Scripted):
    """Push two round blocks, A and B, into two zones, 1 on the left and 2 on the right.

    Pushing is quasi-static: a block moves while it is pushed, along the pusher's move where that lies in the cone of
    friction, else along the cone's edge, and the pusher slides. Blocks do not turn.

    A way is the block that is first in a zone, and that zone: the other block is left for the other zone. The reward
    is the share of zones that hold a block; `info["blocks_in"]` counts them, and the field's p1 and p2 are how
    often it came to 1 and to 2. Two end the episode with success. `leaning` is the block that was moved most, and
    the zone it was moved towards.

    Observation (10,): the pusher, A, B, zone 1 and zone 2; x and y of each. Action (2,): the pusher's velocity, in
    units a second. An episode takes about 85 steps.

    Args:
        weights: (4,) probabilities of the ways, in the order of `way_names`; None makes all alike.
        noise: standard deviation of the demonstrator's disturbance; in units a second; at most 0.06.
        render_mode: 'rgb_array' or None.
    """

    name = "BlockPush"
    max_steps = 200
    goals = 2
    way_names = ("A1 B2", "A2 B1", "B1 A2", "B2 A1")
    names = MappingProxyType(
        {
            "state": tuple(f"{thing}_{axis}" for thing in ("pusher", "a", "b", "zone_1", "zone_2") for axis in "xy"),
            "action": ("velocity_x", "velocity_y"),
        }
    )
    reset_options = ("symmetric",)
    low, high = (-1.0, -1.0), (1.0, 1.0)

    def __init__(
        self, *, weights: Sequence[float] | None = None, noise: float = 0.03, render_mode: str | None = None
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.way_weights = probabilities(weights, len(self.way_names))
        self.noise = check_number("noise", noise, 0, 0.06)
        self.action_space = Box(-_TOP_SPEED, _TOP_SPEED, (2,), np.float32)
        self.observation_space = Box(-1.0, 1.0, (10,), np.float32)
        self.position, self.blocks, self.zones = np.zeros(2), np.zeros((2, 2)), np.zeros((2, 2))
        self._first_at = self.blocks

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start an episode; see `Environment`."""
        symmetric = self._start(seed, options).get("symmetric", False)
        draws = self.np_random.uniform(-1.0, 1.0, (5, 2))
        if symmetric:
            draws[0, 0] = 0.0
            draws[[2, 4]] = draws[[1, 3]] * (-1.0, 1.0)
        self.position = np.array([0.0, -0.7]) + 0.05 * draws[0]
        self.blocks = np.array([[-0.35, -0.2], [0.35, -0.2]]) + 0.08 * draws[1:3]
        self.zones = np.array([[-0.4, 0.6], [0.4, 0.6]]) + 0.05 * draws[3:]
        self._first_at = self.blocks.copy()
        self._path.append(self.position)
        return self._observe(), {"is_success": False, "blocks_in": 0}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.position, self.blocks.ravel(), self.zones.ravel()]).astype(np.float32)

    def step(self, action: Any):
        """Move the pusher at a velocity for one step."""
        velocity = self._checked(action)
        velocity *= min(1.0, _TOP_SPEED / max(float(np.hypot(*velocity)), 1e-12))
        move = (np.clip(self.position + velocity / self.rate, self.low, self.high) - self.position) / _SUBSTEPS
        near = np.hypot(*(self.blocks - self.position).T).min() < _REACH + _TOP_SPEED / self.rate
        for _ in range(_SUBSTEPS if near else 0):
            self.position, self.blocks = _push(self.position, move, self.blocks)
        if not near:
            self.position = self.position + _SUBSTEPS * move
        self._path.append(self.position)
        held = np.hypot(*(self.blocks[:, None] - self.zones).transpose(2, 0, 1)) < _ZONE  # (blocks, zones)
        self._note(held)
        count = int(held.any(axis=0).sum())
        info = {"is_success": count == 2, "blocks_in": count}
        return self._observe(), count / 2, count == 2, self._truncated, info

    def _note(self, held: np.ndarray) -> None:
        if self.way >= 0:
            return
        if held.any():
            block, zone = np.argwhere(held)[0]
            self.way = self.leaning = _way(block, zone)
        else:
            moved = self.blocks - self._first_at
            lengths = np.hypot(*moved.T)
            block = int(np.argmax(lengths))
            if lengths[block] > _LEANS:
                towards = self.zones - self._first_at[block]
                self.leaning = _way(block, int(np.argmax(towards @ moved[block] / np.hypot(*towards.T))))

    def intend(self, way: int) -> np.ndarray:
        """Return the velocity of a pusher that goes behind a block and pushes it to its zone, (2,)."""
        first, into = divmod(way, 2)
        for block, zone in ((first, into), (1 - first, 1 - into)):
            towards = self.zones[zone] - self.blocks[block]
            if np.hypot(*towards) > _ZONE / 2:
                return self._velocity(block, towards / np.hypot(*towards))
        return np.zeros(2)

    def _velocity(self, block: int, towards: np.ndarray) -> np.ndarray:
        """Return the velocity of a pusher that wants a block to go `towards`."""
        ahead = self.blocks[block] - self.position
        distance = float(np.hypot(*ahead))
        touching = distance < _REACH + 0.01
        if ahead @ towards > (0.92 if touching else 0.97) * distance and distance < _REACH + 0.05:
            return _CRUISE * towards  # within the cone of friction the block goes where the pusher goes
        behind = self.blocks[block] - (_REACH + 0.03) * towards
        way = behind - self.position
        for other in sorted((0, 1), key=lambda b: float(np.hypot(*(self.blocks[b] - self.position)))):
            apart = self.blocks[other] - self.position
            along = min(float(apart @ way / (way @ way)), 1.0)
            if along > 0 and np.hypot(*(apart - along * way)) < _REACH + 0.02:
                side = 1 if apart[0] * way[1] - apart[1] * way[0] > 0 else -1
                return _CRUISE * bypass(self.position, behind, self.blocks[other], _REACH + 0.02, side)
        return way * min(self.rate, _CRUISE / float(np.hypot(*way)))

    def backdrop(self, axes: Axes) -> None:
        """Draw the zones and where the blocks started, and set the limits of the axes."""
        for (x, y), label in zip(self.zones, "12", strict=True):
            axes.add_patch(Circle((x, y), _ZONE, facecolor="#d5e0bb", edgecolor="#86a83e", zorder=0))
            axes.text(x, y, label, ha="center", va="center")
        for (x, y), label in zip(self._first_at, "AB", strict=True):
            axes.add_patch(Circle((x, y), _BLOCK, facecolor="#c9ced6", edgecolor="#7d848f", zorder=0))
            axes.text(x, y, label, ha="center", va="center")
        axes.set(xlim=(self.low[0], self.high[0]), ylim=(self.low[1], self.high[1]), aspect="equal")

    def picture(self, size: int = 256) -> np.ndarray:
        """Return the table from above, (size, size, 3) uint8."""
        raster = Raster(self.low, self.high, size)
        for x, y in self.zones:
            raster.disc(x, y, _ZONE, (213, 224, 187))
        for (x, y), colour in zip(self.blocks, (_RED, _ORANGE), strict=True):
            raster.disc(x, y, _BLOCK, colour)
        raster.disc(self.position[0], self.position[1], _PUSHER, _BLUE)
        return raster.pixels()


def _way(block: int, zone: int) -> int:
    return int(2 * block + zone)


def _push(position: np.ndarray, move: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pusher and the blocks, (2, 2), are after a small move of the pusher; jammed, nothing moves."""
    after, moved = position + move, blocks.copy()
    for block in (0, 1):
        moved[block] += _pushed(after, move, moved[block])
    gap = moved[1] - moved[0]
    overlap = 2 * _BLOCK - float(np.hypot(*gap))
    if overlap > 0:  # the block that moved pushes the other
        other = 1 if np.any(moved[0] != blocks[0]) else 0
        moved[other] += (gap if other else -gap) * overlap / np.hypot(*gap)
    jammed = (
        np.abs(moved).max() > 1.0 - _BLOCK
        or np.hypot(*(moved - after).T).min() < _REACH - 1e-6
        or np.hypot(*(moved[1] - moved[0])) < 2 * _BLOCK - 1e-6
    )
    return (position, blocks) if jammed else (after, moved)


def _pushed(pusher: np.ndarray, move: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Return how far a pusher that has just made a move pushes a block, (2,)."""
    x, y = float(block[0] - pusher[0]), float(block[1] - pusher[1])
    distance = math.hypot(x, y)
    depth = _REACH - distance
    if depth <= 0:
        return np.zeros(2)
    x, y = x / distance, y / distance  # the normal of the contact
    along = float(move[0]) * x + float(move[1]) * y
    across = float(move[1]) * x - float(move[0]) * y
    slope = min(max(across / along, -_FRICTION), _FRICTION) if along > 0 else 0.0
    return np.array([x - slope * y, y + slope * x]) * depth
