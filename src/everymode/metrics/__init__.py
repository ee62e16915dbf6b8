"""Coverage, distances and their intervals, each beside its real-against-real floor."""

from __future__ import annotations

from numpy.typing import ArrayLike

from everymode.metrics.base import Measure
from everymode.metrics.coverage import Tally, mode_recall, modes_found, probability_error, valid_share
from everymode.metrics.energy import energy_score, energy_scores
from everymode.metrics.intervals import bootstrap_interval, wilson_interval
from everymode.problems import Problem

__all__ = [
    "Measure",
    "Tally",
    "bootstrap_interval",
    "energy_score",
    "energy_scores",
    "evaluate",
    "mode_recall",
    "modes_found",
    "probability_error",
    "valid_share",
    "wilson_interval",
]


def evaluate(
    problem: Problem, x: ArrayLike, y: ArrayLike, draws: ArrayLike, reference: ArrayLike, seed: int = 0
) -> dict[str, Measure | int]:
    """Everything the mode table shows about one model on one problem.

    Args:
        problem: where x and y are from.
        x: conditions, `(rows, dx)`.
        y: what happened, `(rows, dy)`.
        draws: the model's draws, `(rows, n, dy)`.
        reference: as many real draws, `problem.sample_given(x, n, seed)`; they give the floors.
        seed: of the bootstraps.
    """
    tally, real = Tally.of(problem, x, draws), Tally.of(problem, x, reference)
    found, total = tally.modes_found
    return {
        "valid_share": tally.valid_share(real),
        "modes_found": found,
        "modes_total": total,
        "mode_recall": tally.mode_recall(real, seed),
        "probability_error": tally.probability_error(real, seed),
        "energy_score": energy_score(y, draws, reference=reference, seed=seed),
    }
