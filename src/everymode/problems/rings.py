"""Three rings: a continuum of answers in every mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ive, logsumexp

from everymode.problems.base import Modes, Problem

__all__ = ["Rings"]

_RADII = np.array([1.0, 2.0, 3.0])


@dataclass(frozen=True)
class Rings(Problem):
    """A point uniform on one of three circles of radius 1, 2 and 3 times x, plus isotropic Gaussian noise.

    x is uniform on [0.7, 1.3] and the circles are equally probable. The density of a circle of radius R is
    `exp(-(r - R)^2 / (2 s^2)) ive(0, r R / s^2) / (2 pi s^2)`, r being the distance from the centre, s the
    noise, and `ive` the scaled modified Bessel function. A mode's location is the point of its circle on the
    first axis. The mean is the centre, on no circle.

    Valid: within 3.5 standard deviations of a circle, which holds over 99.9 % of its draws.

    Args:
        noise: standard deviation of the noise along each axis.
    """

    name: ClassVar[str] = "rings"
    title: ClassVar[str] = "Three concentric rings whose radii grow with x"
    x_names: ClassVar[tuple[str, ...]] = ("size",)
    y_names: ClassVar[tuple[str, ...]] = ("first", "second")
    mode_names: ClassVar[tuple[str, ...]] = ("inner", "middle", "outer")

    noise: float = 0.08

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(0.7, 1.3, (n, 1))

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        shape = (len(x), n)
        radius = x * _RADII[rng.integers(3, size=shape)]
        angle = rng.uniform(0, 2 * np.pi, shape)
        circle = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        return circle + self.noise * rng.standard_normal((*shape, 2))

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        r, radius, variance = np.linalg.norm(y, axis=-1)[..., None], (x * _RADII)[:, None], self.noise**2
        log_ring = np.log(ive(0, r * radius / variance)) - (r - radius) ** 2 / (2 * variance)
        return np.asarray(logsumexp(log_ring, axis=-1)) - np.log(3 * 2 * np.pi * variance)

    def _modes(self, x: np.ndarray) -> list[Modes]:
        spreads = np.full(3, self.noise)
        locations = np.stack([x * _RADII, np.zeros((len(x), 3))], axis=-1)
        return [Modes.ranked(np.arange(3), points, np.full(3, 1 / 3), spreads) for points in locations]

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        distance = np.abs(np.linalg.norm(y, axis=-1)[..., None] - (x * _RADII)[:, None])
        return np.where(distance.min(axis=-1) <= 3.5 * self.noise, distance.argmin(axis=-1), -1)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        return np.zeros((len(x), 2))
