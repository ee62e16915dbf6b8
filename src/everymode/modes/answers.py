"""The distinct answers of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import pandas as pd

from everymode.modes.basins import basins
from everymode.modes.points import middle

__all__ = ["Answers", "RowAnswers", "answers_among", "in_a_valley"]

_IN_A_VALLEY = 0.35  # draws about the average over those about the nearest answer


def answers_among(
    points: np.ndarray, *, least: float = 0.005, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the answers among the draws (n, size) of one row, in comparable units, the most probable first.

    Returns:
        the answer that each draw belongs to, (n,); how sure each answer is, (k,); and which draw is in the middle of
        each, (k,). See `basins` and `middle`.
    """
    basin, sureness = basins(points, least=least, seed=seed)
    mine = [np.flatnonzero(basin == answer) for answer in range(len(sureness))]
    return basin, sureness, np.array([rows[middle(points[rows])] for rows in mine])


def in_a_valley(points: np.ndarray, average: np.ndarray) -> bool:
    """Return whether there are several answers among draws (n, size), and their average (size,) is between them."""
    _, _, chosen = answers_among(points)
    if len(chosen) < 2:
        return False
    away = np.linalg.norm(points[chosen] - average, axis=1)
    nearest, radius = points[chosen[away.argmin()]], away.min() / 2
    about_average, about_answer = (
        (np.linalg.norm(points - place, axis=1) < radius).sum() for place in (average, nearest)
    )
    return bool(about_average < _IN_A_VALLEY * about_answer)


@dataclass(frozen=True)
class RowAnswers:
    """The distinct answers for one x, the most probable first.

    Attributes:
        locations: (k, *event), in the units of Y: a draw in the middle of the denser half of each answer's draws.
        means: (k, *event), in the units of Y: the average of each answer's draws. Where these are skewed, or many share
            one value, it lies beside the location; where they lie on a curve, it is no answer.
        probabilities: (k,), sum 1: the share of the draws that belong to each.
        spreads: (k, *event), in the units of Y: root mean square distance of an answer's draws from its location,
            value by value.
        sureness: (k,), from 0 to 1: in what share of random halves of the draws the answer is found, too.
        draws: (n, *event), what the answers were found among.
        basin: (n,), the answer that each draw belongs to.
    """

    locations: np.ndarray
    means: np.ndarray
    probabilities: np.ndarray
    spreads: np.ndarray
    sureness: np.ndarray
    draws: np.ndarray = field(repr=False)
    basin: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.locations)


class Answers(Sequence[RowAnswers]):
    """The distinct answers of rows: a sequence of `RowAnswers`, one a row.

    Attributes:
        names: of the values of y.
        titles: of the rows, what is known of each.

    Examples:
        >>> import everymode as em
        >>> x, y = em.problems.get("fork").sample(500, seed=0)
        >>> found = em.OneToManyRegressor("mdn", steps=300, random_state=0).fit(x, y).modes(x[:3])
        >>> found.counts
        array([2, 2, 2])
    """

    def __init__(self, rows: Sequence[RowAnswers], names: Sequence[str], titles: Sequence[str]) -> None:
        self._rows = tuple(rows)
        self.names: tuple[str, ...] = tuple(names)
        self.titles: tuple[str, ...] = tuple(titles)

    @overload
    def __getitem__(self, index: int) -> RowAnswers: ...

    @overload
    def __getitem__(self, index: slice) -> Answers: ...

    def __getitem__(self, index: int | slice) -> RowAnswers | Answers:
        if isinstance(index, slice):
            return Answers(self._rows[index], self.names, self.titles[index])
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[RowAnswers]:
        return iter(self._rows)

    @property
    def title(self) -> str:
        """One line."""
        return f"the distinct answers for {', '.join(self.names[:3])}{', ...' if len(self.names) > 3 else ''}"

    @property
    def counts(self) -> np.ndarray:
        """How many answers each row has, (rows,)."""
        return np.array([len(row) for row in self._rows], dtype=int)

    def best(self, k: int) -> np.ndarray:
        """Return the k most probable answers of each row, (rows, k, *event); NaN where a row has fewer."""
        event = self._rows[0].locations.shape[1:] if self._rows else ()
        found = np.full((len(self._rows), k, *event), np.nan)
        for row, answers in zip(found, self._rows, strict=True):
            row[: len(answers)] = answers.locations[:k]
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return one line an answer: row, answer, probability, sureness, and place, mean and spread of each value."""
        columns: dict[str, Any] = {
            "row": np.repeat(np.arange(len(self._rows)), self.counts),
            "answer": [answer for row in self._rows for answer in range(len(row))],
            "probability": [probability for row in self._rows for probability in row.probabilities],
            "sureness": [sureness for row in self._rows for sureness in row.sureness],
        }
        for told, ending in {"locations": "", "means": "_mean", "spreads": "_spread"}.items():
            values = [row for answers in self._rows for row in getattr(answers, told).reshape(len(answers), -1)]
            columns |= {f"{name}{ending}": [row[j] for row in values] for j, name in enumerate(self.names)}
        return pd.DataFrame(columns)

    def __str__(self) -> str:
        """Return the table."""
        return self.to_frame().to_string(index=False, float_format=lambda value: f"{value:.4g}")
