"""Small pictures of flat scenes, in NumPy alone: distances to edges, one pixel of smoothing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["Raster"]

Colour = tuple[int, int, int]


class Raster:
    """A white picture of the rectangle `low` to `high`, in which shapes are filled one over the other.

    Args:
        low: (x, y) of the lower left corner, in units of the scene.
        high: (x, y) of the upper right corner.
        height: in pixels; the width follows.
    """

    def __init__(self, low: tuple[float, float], high: tuple[float, float], height: int) -> None:
        self.scale = height / (high[1] - low[1])  # pixels a unit
        width = round((high[0] - low[0]) * self.scale)
        self._x, self._y = _grid(low, height, width, self.scale)
        self._image = np.full((height, width, 3), 255.0, dtype=np.float32)

    def _fill(self, distance: np.ndarray, colour: Colour) -> None:
        cover = np.clip(0.5 - distance * self.scale, 0.0, 1.0)[..., None].astype(np.float32)
        self._image += cover * (np.array(colour, dtype=np.float32) - self._image)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a disc."""
        self._fill(np.hypot(self._x - x, self._y - y) - radius, colour)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, angle: float = 0.0) -> None:
        """Fill a rectangle about (x, y), turned by `angle` radians."""
        cos, sin = np.cos(angle), np.sin(angle)
        along = np.abs(cos * (self._x - x) + sin * (self._y - y)) - width / 2
        across = np.abs(cos * (self._y - y) - sin * (self._x - x)) - height / 2
        self._fill(np.maximum(along, across), colour)

    def pixels(self) -> np.ndarray:
        """Return the picture, (height, width, 3) uint8."""
        return np.rint(self._image).astype(np.uint8)


@lru_cache(maxsize=8)
def _grid(low: tuple[float, float], height: int, width: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    x = low[0] + (np.arange(width, dtype=np.float32) + 0.5) / scale
    y = low[1] + (np.arange(height, dtype=np.float32)[::-1, None] + 0.5) / scale
    return x[None, :], y
