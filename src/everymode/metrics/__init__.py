"""Scores, coverage, distances and their intervals, each beside its real-against-real floor; scikit-learn scorers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from everymode.metrics.base import Measure
from everymode.metrics.classifier import c2st
from everymode.metrics.coverage import Tally, mode_entropy, mode_recall, modes_found, probability_error, valid_share
from everymode.metrics.energy import energy_score, energy_scores
from everymode.metrics.intervals import bootstrap_interval, wilson_interval
from everymode.metrics.kernels import mmd, mmd_values
from everymode.metrics.likelihood import log_likelihood
from everymode.metrics.neighbours import PRDC, prdc
from everymode.metrics.ranked import crps, crps_values
from everymode.metrics.scorers import Scorer, scorer, scorer_names
from everymode.metrics.variogram import variogram_score, variogram_scores
from everymode.metrics.wasserstein import sliced_wasserstein, sliced_wassersteins
from everymode.problems import Problem

__all__ = [
    "Measure",
    "Scorer",
    "Tally",
    "bootstrap_interval",
    "c2st",
    "crps",
    "crps_values",
    "energy_score",
    "energy_scores",
    "evaluate",
    "log_likelihood",
    "mmd",
    "mmd_values",
    "mode_entropy",
    "mode_recall",
    "modes_found",
    "prdc",
    "probability_error",
    "scorer",
    "scorer_names",
    "sliced_wasserstein",
    "sliced_wassersteins",
    "valid_share",
    "variogram_score",
    "variogram_scores",
    "wilson_interval",
]


def evaluate(
    problem: Problem,
    x: ArrayLike,
    y: ArrayLike,
    draws: ArrayLike,
    reference: ArrayLike,
    real: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Measure | int | None]:
    """Everything the mode table shows about one model on one problem.

    The distances are measured on one scale, that of `reference`: see `sliced_wasserstein`. Two of the questions
    cannot be asked of too little data and are answered by None: `c2st` of one row, and `precision`, `recall`,
    `density` and `coverage` of one draw a row.

    Args:
        problem: where x and y are from.
        x: conditions, `(rows, dx)`.
        y: what happened, `(rows, dy)`.
        draws: the model's draws, `(rows, n, dy)`.
        reference: as many real draws, `problem.sample_given(x, n, seed)`. They give the floors of the counts and of
            the energy score, and the draws' distances are from them.
        real: as many real draws again, with another seed: their distances from `reference` are the floors of
            `sliced_wasserstein`, `c2st`, `precision`, `recall`, `density` and `coverage`, else None.
        seed: of the bootstraps, the directions, the folds and the classifier.
    """
    tally, real_tally = Tally.of(problem, x, draws), Tally.of(problem, x, reference)
    found, total = tally.modes_found
    rows, n = np.shape(draws)[:2]
    return {
        "valid_share": tally.valid_share(real_tally),
        "modes_found": found,
        "modes_total": total,
        "mode_recall": tally.mode_recall(real_tally, seed),
        "probability_error": tally.probability_error(real_tally, seed),
        "mode_entropy": tally.mode_entropy(real_tally, seed),
        "energy_score": energy_score(y, draws, reference=reference, seed=seed),
        "sliced_wasserstein": sliced_wasserstein(draws, reference, real, seed=seed),
        "c2st": c2st(x, draws, reference, real, seed=seed) if rows > 1 else None,
        **(prdc(draws, reference, real, seed=seed) if n > 1 else dict.fromkeys(PRDC)),
    }
