"""Which way to head, when something round stands before the goal."""

from __future__ import annotations

import numpy as np

__all__ = ["bypass"]


def bypass(position: np.ndarray, goal: np.ndarray, centre: np.ndarray, radius: float, side: int) -> np.ndarray:
    """Return the unit direction of the shortest path to the goal that leaves a disc on one side.

    The path is a tangent to the disc, an arc along it, and a tangent to the goal.

    Args:
        position: (2,).
        goal: (2,).
        centre: (2,), of the disc.
        radius: of the disc, the room to keep included.
        side: 1 passes left of it (as seen from the position), -1 right.
    """
    towards, ahead = centre - position, goal - position
    distance = float(np.hypot(*towards))
    to_goal = side * float(np.arctan2(towards[0] * ahead[1] - towards[1] * ahead[0], towards @ ahead))
    if to_goal < -np.pi / 2:  # the disc lies behind: the goal is beyond it on this side, too
        to_goal += 2 * np.pi
    out_again = np.pi / 2 + min(1.2, 25.0 * (radius - distance))  # where it is too near
    tangent = np.arcsin(radius / distance) if distance > radius else out_again
    angle = np.arctan2(towards[1], towards[0]) + side * max(tangent, to_goal)
    return np.array([np.cos(angle), np.sin(angle)])
