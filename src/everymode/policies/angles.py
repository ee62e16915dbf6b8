"""Differences and sums of actions some of whose values are angles in radians: the short way round, in [-pi, pi)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["add", "difference"]


def difference(to: np.ndarray, since: np.ndarray, angles: Sequence[int] = ()) -> np.ndarray:
    """Return to - since, (..., d)."""
    return _turned(to - since, angles)


def add(since: np.ndarray, move: np.ndarray, angles: Sequence[int] = ()) -> np.ndarray:
    """Return since + move, (..., d)."""
    return _turned(since + move, angles)


def _turned(values: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    for each in angles:
        values[..., each] = np.mod(values[..., each] + np.pi, 2 * np.pi) - np.pi
    return values
