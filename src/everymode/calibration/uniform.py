"""Are ranks uniform? Randomised ranks, the exact law of their ECDF, and shares with their binomial bands.

Let a score be any function that treats y and the draws of its row alike. If y is drawn from the same law as the draws,
each of the n + 1 is as likely as any other to have the r-th score. With ties broken at random, and a uniform number for
where in the r-th of the n + 1 equal parts of [0, 1] the rank lies, it is uniform on [0, 1], exactly and for any n.

The ECDF is looked at in up to 100 places at once. Its count at z is binomial; the least of the two-sided tail
probabilities over the places is the statistic, and the band is where all of them exceed the bound that 95 % of uniform
samples stay above. Both this bound and the p-value are exact: the counts are a Markov chain, whose probability of
staying within a band is summed forward, as sums of Poisson numbers given their total.

References:
    Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation and multiple sample
    comparison (Säilynoja, Bürkner and Vehtari, 2022), https://arxiv.org/abs/2103.10522
    Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018),
    https://arxiv.org/abs/1804.06788
    A simple sequentially rejective multiple test procedure (Holm, 1979)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binom, poisson

__all__ = ["LEVEL", "Band", "band_of", "ecdf", "ecdf_p_value", "holm", "least_tail", "ranks", "share_band", "share_p"]

LEVEL = 0.05
_PLACES = 100
_ROUNDING = 1e-9  # of tail probabilities
_ENOUGH = 1e-10  # p-value below which a bound is told, for 1 - p loses its digits


def ranks(of_y: np.ndarray, of_draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return where the score of y lies among those of the draws, (rows,), uniform on [0, 1] under calibration.

    Args:
        of_y: (rows,).
        of_draws: (rows, n).
        rng: for the ties, and for the place within one of the n + 1 parts.
    """
    below = (of_draws < of_y[:, None]).sum(axis=1)
    tied = (of_draws == of_y[:, None]).sum(axis=1)
    return (below + rng.random(len(of_y)) * (1 + tied)) / (of_draws.shape[1] + 1)


@dataclass(frozen=True)
class Band:
    """The simultaneous 95 % band of the ECDF of uniform ranks.

    Attributes:
        places: where the ECDF is looked at, (k,).
        low, high: between which it lies in all places in 95 % of samples, (k,).
        bound: of the least tail probability; the ECDF is inside if that is at least as large.
    """

    places: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bound: float


def ecdf(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the share of `values` at or below each place."""
    return np.searchsorted(np.sort(values), places, side="right") / len(values)


@lru_cache(maxsize=32)
def band_of(rows: int) -> Band:
    """Return the band of so many ranks."""
    low, high = np.log(LEVEL / _PLACES / 10), np.log(LEVEL)
    while high - low > 1e-6:
        middle = (low + high) / 2
        enough = _stays(rows, *_counts(rows, np.exp(middle) * (1 - _ROUNDING))) >= 1 - LEVEL
        low, high = (middle, high) if enough else (low, middle)
    bound = float(np.exp(low))
    least, most = _counts(rows, bound * (1 - _ROUNDING))
    return Band(_places(rows), least / rows, most / rows, bound)


def least_tail(values: np.ndarray) -> float:
    """Return the least two-sided tail probability of the ECDF's counts: small where it strays from uniform."""
    rows = len(values)
    places = _places(rows)
    counts = np.rint(ecdf(values, places) * rows)
    return float(_two_sided(counts, rows, places).min())


def ecdf_p_value(least: float, rows: int) -> float:
    """Return the probability that uniform ranks have a least tail probability of at most `least`."""
    if least >= 1:
        return 1.0
    most = least * len(_places(rows))  # the sum over the places: a bound, and near where it is small
    if most < _ENOUGH:
        return most
    return float(np.clip(1 - _stays(rows, *_counts(rows, least * (1 + _ROUNDING))), 0, most))


def share_band(level: float, rows: int) -> tuple[float, float]:
    """Return between which the share of uniform ranks at or below `level` lies, in 95 % of samples or more."""
    low, high = binom.ppf(LEVEL / 2, rows, level), rows - binom.ppf(LEVEL / 2, rows, 1 - level)
    return float(low / rows), float(high / rows)


def share_p(share: float, level: float, rows: int) -> float:
    """Return the two-sided p-value of that share."""
    return float(_two_sided(np.rint(share * rows), rows, level))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values that hold for all tests at once."""
    values = np.asarray(p_values, float)
    order = np.argsort(values)
    adjusted = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]


def _places(rows: int) -> np.ndarray:
    parts = min(_PLACES, max(2, rows))
    return np.arange(1, parts) / parts


def _two_sided(counts: np.ndarray, rows: int, share: np.ndarray | float) -> np.ndarray:
    return np.minimum(1, 2 * np.minimum(binom.cdf(counts, rows, share), binom.sf(counts - 1, rows, share)))


def _counts(rows: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest count in each place whose two-sided tail probability is at least `tail`."""
    places = _places(rows)
    return binom.ppf(tail / 2, rows, places).astype(int), rows - binom.ppf(tail / 2, rows, 1 - places).astype(int)


def _stays(rows: int, low: np.ndarray, high: np.ndarray) -> float:
    """Return the probability that the counts of uniform ranks are within [low, high] in all places."""
    step = poisson.pmf(np.arange(rows + 1), rows / (len(low) + 1))
    first, state = 0, np.ones(1)
    for least, most in zip(low, high, strict=True):
        state = np.convolve(state, step[: most - first + 1])[least - first : most - first + 1]
        first = least
    left = rows - first - np.arange(len(state))
    return float(state[left >= 0] @ step[left[left >= 0]] / poisson.pmf(rows, rows))
