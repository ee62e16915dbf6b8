"""Which joint angles bring the hand to a point? Two families of poses, each a continuum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from everymode.errors import DataError
from everymode.problems.base import Modes, NotKnownError, Problem

__all__ = ["InverseKinematics"]

_LENGTHS = np.array([0.5, 0.5, 1.0])
_REACH = 1.3, 1.75  # distance of the target from the shoulder
_SWING = np.pi / 4  # direction of the target, either side of straight ahead
_TILT = 0.3  # most that the last link turns from the target's direction
_MIRRORED = np.array([-1.0, 1.0])  # which way the elbow bends


@dataclass(frozen=True)
class InverseKinematics(Problem):
    """A planar arm with links of length .5, .5 and 1: x is the point its hand reaches, y its joint angles.

    The shoulder is at the origin. The target lies at a distance of 1.3 to 1.75 within 45 degrees of straight
    ahead. The last link points in the target's direction, tilted by an angle uniform on [-.3, .3]; that puts
    the wrist .3 to .9 from the shoulder, and the elbow goes up or down with probability 1/2. No angle comes
    near a full turn in this region, so y has no jumps. The poses of one x are two curves in three dimensions,
    one with the elbow up and one with it down: they have no density. Each mode's location is its untilted
    pose; the mean of y is the stretched arm, which overshoots every target by .25 or more.

    Valid: the hand is within `tolerance` of x, and the last link is tilted by at most .3 plus `tolerance`
    radians. Full turns are ignored. A draw belongs to the family its elbow bends to.

    References:
        Analyzing inverse problems with invertible neural networks (Ardizzone et al., 2019),
        https://arxiv.org/abs/1808.04730; Benchmarking invertible architectures on inverse problems (Kruse et
        al., 2021), https://arxiv.org/abs/2101.10763. Their shoulder also slides and their y is Gaussian.

    Args:
        tolerance: how far the hand may miss; the arm's reach is 2.
    """

    name: ClassVar[str] = "inverse_kinematics"
    title: ClassVar[str] = "The joint angles with which a three-link arm reaches a point"
    x_names: ClassVar[tuple[str, ...]] = ("ahead", "aside")
    y_names: ClassVar[tuple[str, ...]] = ("shoulder", "elbow", "wrist")
    mode_names: ClassVar[tuple[str, ...]] = ("elbow down", "elbow up")
    exact: ClassVar[bool] = False

    tolerance: float = 0.08

    def forward(self, y: ArrayLike) -> np.ndarray:
        """The point `(..., 2)` that the hand reaches with joint angles y `(..., 3)`."""
        headings = np.cumsum(np.asarray(y, float), axis=-1)
        return np.stack([np.cos(headings) @ _LENGTHS, np.sin(headings) @ _LENGTHS], axis=-1)

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        distance, direction = rng.uniform(*_REACH, n), rng.uniform(-_SWING, _SWING, n)
        return np.stack([distance * np.cos(direction), distance * np.sin(direction)], axis=-1)

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        tilt = rng.uniform(-_TILT, _TILT, (len(x), n))
        return self._pose(x, tilt, _MIRRORED[rng.integers(2, size=tilt.shape)])

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> NoReturn:
        raise NotKnownError("inverse_kinematics has no density: its answers are curves in three dimensions")

    def _modes(self, x: np.ndarray) -> list[Modes]:
        self._refuse_unreachable(x)
        zero = np.zeros((len(x), 2))
        locations = self._pose(x, zero, np.broadcast_to(_MIRRORED, zero.shape))
        # The poses lie on their curves exactly, so that the distance from a curve says nothing: the spread
        # is the distance from the untilted pose, averaged over tilts.
        tilts = np.broadcast_to(_TILT * np.linspace(-1, 1, 101), (len(x), 101))
        offsets = self._pose(x, tilts, np.ones_like(tilts)) - locations[:, 1:]
        spreads = np.sqrt((offsets**2).sum(axis=-1).mean(axis=-1))
        return [Modes.ranked([0, 1], y, [0.5, 0.5], [s, s]) for y, s in zip(locations, spreads, strict=True)]

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        miss = np.linalg.norm(self.forward(y) - x[:, None], axis=-1)
        tilt = y.sum(axis=-1) - np.arctan2(x[:, 1], x[:, 0])[:, None]
        tilt = np.abs((tilt + np.pi) % (2 * np.pi) - np.pi)
        fits = (miss <= self.tolerance) & (tilt <= _TILT + self.tolerance)
        # The elbow is up, on the left of the line to the wrist, when it bends clockwise.
        return np.where(fits, (np.sin(y[..., 1]) < 0).astype(int), -1)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        # Mirroring a pose about the line to the target gives a pose as probable: all bends cancel.
        direction = np.arctan2(x[:, 1], x[:, 0])
        return np.stack([direction, np.zeros(len(x)), np.zeros(len(x))], axis=-1)

    def _pose(self, x: np.ndarray, tilt: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Joint angles `(rows, n, 3)` for targets x `(rows, 2)`, given tilts and elbow sides `(rows, n)`."""
        self._refuse_unreachable(x)
        distance, direction = np.linalg.norm(x, axis=1)[:, None], np.arctan2(x[:, 1], x[:, 0])[:, None]
        # The wrist, seen with the target straight ahead.
        ahead, aside = distance - _LENGTHS[2] * np.cos(tilt), -_LENGTHS[2] * np.sin(tilt)
        bend = np.arccos(np.hypot(ahead, aside) / (_LENGTHS[0] + _LENGTHS[1]))
        shoulder = direction + np.arctan2(aside, ahead) + side * bend
        elbow = -2 * side * bend
        return np.stack([shoulder, elbow, direction + tilt - shoulder - elbow], axis=-1)

    def _refuse_unreachable(self, x: np.ndarray) -> None:
        distance = np.linalg.norm(x, axis=1)
        low, high = _REACH
        if distance.min() < low - 1e-9 or distance.max() > high + 1e-9:
            raise DataError(
                f"inverse_kinematics: x must lie {low} to {high} from the origin; "
                f"got distances from {distance.min():.3g} to {distance.max():.3g}"
            )
