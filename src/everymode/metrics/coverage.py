"""Which valid answers do the draws find, lose or invent?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr
from scipy.stats import binom

from everymode.errors import DataError
from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_over_rows, wilson_interval
from everymode.problems import Problem

__all__ = ["Tally", "mode_entropy", "mode_recall", "modes_found", "probability_error", "valid_share"]

_LEAST_PROBABILITY = 0.01  # a mode rarer than this for some x is not asked for there
_QUARTER = 0.25


def valid_share(problem: Problem, x: ArrayLike, draws: ArrayLike, reference: ArrayLike | None = None) -> Measure:
    """Share of the draws `(rows, n, dy)` that are valid answers for their x `(rows, dx)`.

    The interval is Wilson's, over rows times n trials: it counts the draws of a row as independent, which
    given x they are, and leaves out the chance in which rows were chosen. The floor is the share of the real
    draws `reference (rows, n, dy)`.
    """
    return Tally.of(problem, x, draws).valid_share(_reference(problem, x, reference))


def modes_found(problem: Problem, x: ArrayLike, draws: ArrayLike) -> tuple[int, int]:
    """How many of the problem's modes the draws find, and how many there are for these x: `(found, total)`.

    In one row a mode is found when at least one draw, and at least a quarter of the draws it should get, are
    in it. Real draws, too, miss a rare mode in some rows: by the binomial law we know in how many they would
    find it. Over all rows a mode is found when that happens in more than half as many rows. So given
    enough rows even one real draw a row finds all modes, and a model that gives one answer for each x can
    hardly find both modes of a pair: it would have to split the rows evenly between them.

    As published, modes are counted where all draws share one law: by VEEGAN (Srivastava et al., 2017,
    https://arxiv.org/abs/1705.07761) as found from one draw within three standard deviations on. Ours asks for a
    share of the draws, and of the rows, and what is within a mode is for the problem to say.
    """
    return Tally.of(problem, x, draws).modes_found


def mode_recall(
    problem: Problem, x: ArrayLike, draws: ArrayLike, reference: ArrayLike | None = None, seed: int = 0
) -> Measure:
    """Share of a row's modes that are found in this row, averaged over rows.

    Found: at least one draw, and at least a quarter of the draws that the mode should get. A mode of
    probability .02 gets none of 100 real draws in 13 % of rows, so read this beside its floor. The interval
    is a bootstrap over rows. No package publishes it: see `modes_found` for how others count.
    """
    return Tally.of(problem, x, draws).mode_recall(_reference(problem, x, reference), seed)


def probability_error(
    problem: Problem, x: ArrayLike, draws: ArrayLike, reference: ArrayLike | None = None, seed: int = 0
) -> Measure:
    """Total-variation distance between how the valid draws share out over modes and the true probabilities.

    0 is perfect, 1 is worst and what a row without a valid draw scores; averaged over rows. Real draws score
    above 0 since a row has only n of them: see the floor. The interval is a bootstrap over rows.
    """
    return Tally.of(problem, x, draws).probability_error(_reference(problem, x, reference), seed)


def mode_entropy(
    problem: Problem, x: ArrayLike, draws: ArrayLike, reference: ArrayLike | None = None, seed: int = 0
) -> Measure:
    """Entropy, in nats, of how the valid draws share out over modes, averaged over rows.

    0 for one mode, log k for k modes drawn equally often; 0 also for a row without a valid draw. Neither high nor
    low is good: the floor, the entropy of as many real draws, is the target. From n draws of k modes the entropy
    comes out too small, by about (k - 1) / (2 n), for the model as for the real draws. Below the floor modes are
    lost or neglected, above it rare ones are drawn too often. The interval is a bootstrap over rows.
    """
    return Tally.of(problem, x, draws).mode_entropy(_reference(problem, x, reference), seed)


@dataclass(frozen=True)
class Tally:
    """Draws counted by mode, and the true probabilities: all coverage metrics are read off these.

    Attributes:
        counts: `(rows, labels)`, how many of each row's draws are in each mode.
        truth: `(rows, labels)`, the true probabilities; 0 where a mode does not exist for that x.
        draws: how many draws each row has, invalid ones included.
    """

    counts: np.ndarray
    truth: np.ndarray
    draws: int

    @classmethod
    def of(cls, problem: Problem, x: ArrayLike, draws: ArrayLike) -> Tally:
        """Count the draws `(rows, n, dy)`."""
        assigned = problem.assign(x, draws)
        if assigned.size == 0:
            raise DataError(f"there must be a row and a draw to count, got draws of shape {np.shape(draws)}")
        labels = range(len(problem.mode_names))
        counts = np.stack([(assigned == label).sum(axis=1) for label in labels], axis=1)
        truth = np.zeros(counts.shape)
        for row, modes in zip(truth, problem.modes(x), strict=True):
            row[modes.labels] = modes.probabilities
        return cls(counts, truth, assigned.shape[1])

    def valid_share(self, reference: Tally | None = None) -> Measure:
        """See the function of this name."""
        valid, trials = int(self.counts.sum()), self.counts.shape[0] * self.draws
        floor = self._floor(reference, lambda real: real.counts.sum() / trials)
        return Measure(valid / trials, *wilson_interval(valid, trials), floor, trials)

    @property
    def modes_found(self) -> tuple[int, int]:
        """See the function of this name."""
        chance = binom.sf(self._enough - 1, self.draws, self.truth)  # that real draws find it in this row
        expected = np.where(self._exists, chance, 0).sum(axis=0)
        found = self._found.sum(axis=0) > expected / 2
        return int(found.sum()), int(self._exists.any(axis=0).sum())

    def mode_recall(self, reference: Tally | None = None, seed: int = 0) -> Measure:
        """See the function of this name."""
        floor = self._floor(reference, lambda real: real._recalls.mean())
        return mean_over_rows(self._recalls, floor, seed)

    def probability_error(self, reference: Tally | None = None, seed: int = 0) -> Measure:
        """See the function of this name."""
        floor = self._floor(reference, lambda real: real._errors.mean())
        return mean_over_rows(self._errors, floor, seed)

    def mode_entropy(self, reference: Tally | None = None, seed: int = 0) -> Measure:
        """See the function of this name."""
        floor = self._floor(reference, lambda real: real._entropies.mean())
        return mean_over_rows(self._entropies, floor, seed)

    def _floor(self, reference: Tally | None, metric: Callable[[Tally], float]) -> float | None:
        if reference is None:
            return None
        if (len(reference.counts), reference.draws) != (len(self.counts), self.draws):
            raise DataError(
                "a floor needs as many real draws as there are draws: got "
                f"{len(reference.counts)} x {reference.draws} beside {len(self.counts)} x {self.draws}"
            )
        return float(metric(reference))

    @cached_property
    def _exists(self) -> np.ndarray:
        return self.truth >= _LEAST_PROBABILITY

    @cached_property
    def _enough(self) -> np.ndarray:
        """How many draws a mode must get to be found in a row, `(rows, labels)`."""
        return np.maximum(1, np.ceil(_QUARTER * self.draws * self.truth))

    @cached_property
    def _found(self) -> np.ndarray:
        return self._exists & (self.counts >= self._enough)

    @cached_property
    def _recalls(self) -> np.ndarray:
        return self._found.sum(axis=1) / self._exists.sum(axis=1)

    @cached_property
    def _shares(self) -> np.ndarray:
        """Of each row's valid draws, the share of each mode; 0 throughout where none is valid, `(rows, labels)`."""
        return self.counts / np.maximum(self.counts.sum(axis=1), 1)[:, None]

    @cached_property
    def _errors(self) -> np.ndarray:
        some_valid = self.counts.any(axis=1)
        return np.where(some_valid, np.abs(self._shares - self.truth).sum(axis=1) / 2, 1.0)

    @cached_property
    def _entropies(self) -> np.ndarray:
        return entr(self._shares).sum(axis=1)


def _reference(problem: Problem, x: ArrayLike, reference: ArrayLike | None) -> Tally | None:
    return None if reference is None else Tally.of(problem, x, reference)
