"""Two interleaved half circles, turned by x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import logsumexp

from everymode.errors import check_number
from everymode.problems.base import Modes, Problem, turn

__all__ = ["TwoMoons"]

# Both moons are half circles of radius 1; the pair is centred so that turning keeps its mean at the origin.
_CENTRES = np.array([[-0.5, -0.25], [0.5, 0.25]])
_SIDES = np.array([1.0, -1.0])  # the upper moon bends upwards, the lower one downwards
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(160)


@dataclass(frozen=True)
class TwoMoons(Problem):
    """A point uniform on one of two half circles, plus isotropic Gaussian noise, turned by the angle x.

    x is uniform on [-pi/4, pi/4] and the moons are equally probable. The density is the integral of the noise
    along each arc, by Gauss-Legendre quadrature with 160 nodes: relative error below 1e-8 within four
    standard deviations of a moon, for noise of .05 or more. A mode's location is the middle of its arc. The
    mean is the origin, between the moons.

    Valid: within 3.7 standard deviations of a moon, which holds over 99.9 % of its draws.

    Args:
        noise: standard deviation of the noise along each axis, at least .05.
    """

    name: ClassVar[str] = "two_moons"
    title: ClassVar[str] = "Two interleaved half circles, turned by x"
    x_names: ClassVar[tuple[str, ...]] = ("angle",)
    y_names: ClassVar[tuple[str, ...]] = ("first", "second")
    mode_names: ClassVar[tuple[str, ...]] = ("upper", "lower")

    noise: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(f"{self.name}.noise", self.noise, 0.05)  # below it the density would not be exact

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-np.pi / 4, np.pi / 4, (n, 1))

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        moon = rng.integers(2, size=(len(x), n))
        angle = rng.uniform(0, np.pi, moon.shape)
        points = _CENTRES[moon] + _SIDES[moon][..., None] * _unit(angle)
        return turn(points + self.noise * rng.standard_normal(points.shape), x[:, 0])

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        variance = self.noise**2
        # Seen from a moon, the squared distance from its point u(a) is |offset|^2 + 1 - 2 offset . u(a).
        offsets = self._seen_from_moons(x, y)  # (rows, n, 2, 2)
        along = offsets @ _unit(np.pi * (_NODES + 1) / 2).T  # (rows, n, 2, nodes)
        squares = (offsets**2).sum(axis=-1)[..., None] + 1 - 2 * along
        mass = logsumexp(-squares / (2 * variance), b=_NODE_WEIGHTS / 2, axis=-1)
        return np.asarray(logsumexp(mass, axis=-1)) - np.log(2 * 2 * np.pi * variance)

    def _modes(self, x: np.ndarray) -> list[Modes]:
        middles = _CENTRES + _SIDES[:, None] * np.array([0.0, 1.0])
        locations = turn(np.broadcast_to(middles, (len(x), 2, 2)), x[:, 0])
        return [Modes.ranked([0, 1], points, [0.5, 0.5], np.full(2, self.noise)) for points in locations]

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        offsets = self._seen_from_moons(x, y)
        to_circle = np.abs(np.linalg.norm(offsets, axis=-1) - 1)
        # Below the half circle the nearest point is one of its two ends, (-1, 0) and (1, 0).
        to_end = np.hypot(np.abs(offsets[..., 0]) - 1, offsets[..., 1])
        distance = np.where(offsets[..., 1] >= 0, to_circle, to_end)
        return np.where(distance.min(axis=-1) <= 3.7 * self.noise, distance.argmin(axis=-1), -1)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        return np.zeros((len(x), 2))

    def _seen_from_moons(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """y relative to each moon, turned so that either moon is the upper unit half circle."""
        return (turn(y, -x[:, 0])[:, :, None] - _CENTRES) * _SIDES[:, None]


def _unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
