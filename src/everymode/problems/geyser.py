"""Old Faithful: after a long wait an eruption is either short or long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar, NoReturn

import numpy as np
import pandas as pd

from everymode.problems.base import Modes, NotKnownError, Problem, draw_labels

__all__ = ["Geyser"]

_SHORT = 3.0  # minutes; few eruptions last between 2.5 and 3.5
_LEAST_PROBABILITY = 0.05
_LEAST_SHARE = 0.04


@dataclass(frozen=True)
class Geyser(Problem):
    """299 eruptions of Old Faithful in August 1985: x is the wait before an eruption, y how long it lasted.

    Real data, so nothing is known exactly; what is given is estimated from the 299 eruptions. For a wait x
    each of them is weighted by a Gaussian of the difference in waiting time, and `sample_given` draws their
    durations with those weights: a kernel-weighted bootstrap. The modes are the eruptions shorter than 3
    minutes and the others; location, probability and spread are weighted mean, share and standard deviation;
    a mode with a share under .05 is dropped. `sample` draws the 299 rows with replacement. `log_density` and
    `mean` raise `NotKnownError`.

    Valid: eruptions within `similar_duration` of y hold at least 4 % of the weight. These numbers were chosen
    by looking at the data: with them 98 % of the 299 rows are valid, 96 % if a row may not count itself, and
    the weighted mean at waits of 72 to 83 minutes is invalid. At longer waits the weighted mean, below 2.85,
    is valid by a narrow margin (5 % of the weight): a few eruptions did last 2.5 to 3 minutes. 76
    durations are exactly 2 or 4, for at night eruptions were only noted as short, medium or long, and these
    became 2, 3 and 4 minutes; hence a tolerance as wide as .3.

    References:
        A look at some data on the Old Faithful geyser (Azzalini and Bowman, 1990),
        https://doi.org/10.2307/2347385

    Args:
        similar_wait: standard deviation of the weights, in minutes of waiting.
        similar_duration: how far durations may differ and still be about as long, in minutes.
    """

    name: ClassVar[str] = "geyser"
    title: ClassVar[str] = "How long Old Faithful erupts after a given wait (real data)"
    x_names: ClassVar[tuple[str, ...]] = ("waiting",)
    y_names: ClassVar[tuple[str, ...]] = ("duration",)
    mode_names: ClassVar[tuple[str, ...]] = ("short", "long")
    exact: ClassVar[bool] = False

    similar_wait: float = 5.0
    similar_duration: float = 0.3

    def table(self) -> pd.DataFrame:
        """The 299 eruptions, in order: columns `waiting` and `duration`, in minutes."""
        return _table().copy()

    def _draw_pairs(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        waits, durations = _columns()
        rows = rng.integers(len(waits), size=n)
        return waits[rows, None], durations[rows, None]

    def _draw_x(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self._draw_pairs(n, rng)[0]

    def _draw_y(self, x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        return _columns()[1][draw_labels(self._weights(x), n, rng)][..., None]

    def _log_density(self, x: np.ndarray, y: np.ndarray) -> NoReturn:
        raise NotKnownError("geyser has no known density: it is real data, 299 eruptions")

    def _modes(self, x: np.ndarray) -> list[Modes]:
        return [self._modes_of(weights) for weights in self._weights(x)]

    def _modes_of(self, weights: np.ndarray) -> Modes:
        durations = _columns()[1]
        parts = np.stack([weights * (durations < _SHORT), weights * (durations >= _SHORT)])
        probabilities = parts.sum(axis=1)
        parts = parts / np.maximum(probabilities, 1e-300)[:, None]
        means = parts @ durations
        spreads = np.sqrt((parts * (durations - means[:, None]) ** 2).sum(axis=1))
        return Modes.ranked([0, 1], means[:, None], probabilities, spreads, drop_below=_LEAST_PROBABILITY)

    def _assign(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        order = np.argsort(_columns()[1])
        durations = _columns()[1][order]
        held = np.cumsum(self._weights(x)[:, order], axis=1)
        held = np.concatenate([np.zeros((len(x), 1)), held], axis=1)  # weight of the durations before each
        first = np.searchsorted(durations, y[..., 0] - self.similar_duration, side="left")
        last = np.searchsorted(durations, y[..., 0] + self.similar_duration, side="right")
        share = np.take_along_axis(held, last, axis=1) - np.take_along_axis(held, first, axis=1)
        return np.where(share >= _LEAST_SHARE, (y[..., 0] >= _SHORT).astype(int), -1)

    def _mean(self, x: np.ndarray) -> NoReturn:
        raise NotKnownError("geyser has no known mean: it is real data, 299 eruptions")

    def _weights(self, x: np.ndarray) -> np.ndarray:
        """The weight of each eruption for each x, `(rows, 299)`, sum 1."""
        squares = ((x - _columns()[0]) / self.similar_wait) ** 2
        # Relative to the nearest eruption, so that a wait far from all still has neighbours.
        weights = np.exp(-(squares - squares.min(axis=1, keepdims=True)) / 2)
        return weights / weights.sum(axis=1, keepdims=True)


@cache
def _table() -> pd.DataFrame:
    with resources.files("everymode.problems").joinpath("data/geyser.csv").open() as file:
        return pd.read_csv(file)


def _columns() -> tuple[np.ndarray, np.ndarray]:
    table = _table()
    return table["waiting"].to_numpy(float), table["duration"].to_numpy(float)
