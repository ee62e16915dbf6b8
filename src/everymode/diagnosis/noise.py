"""What the noise around one answer is like: even or not, skewed, heavy-tailed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from everymode.diagnosis.forests import out_of_bag

__all__ = ["Noise", "noise_of"]

_LEAF, _TREES = 20, 100
_SURE = 1e-3  # p-value of the unevenness
_UNEVEN = 2.0  # spread at the 90th over that at the 10th percentile
_SKEWED, _HEAVY = 0.15, 3.5  # a normal's are 0 and 2.91
_ERRORS = 4.0  # standard errors that a skew has to be away from 0


@dataclass(frozen=True)
class Noise:
    """The noise of one target.

    Attributes:
        spread_ratio: of the spread where it is large (the 90th percentile over rows) to that where it is small.
        uneven: whether the spread depends on x by so much that it matters.
        skew: octile skewness, from -1 to 1; 0 if symmetric (Hinkley, 1975: On power transformations to symmetry).
        tails: the range of 95 % of the noise over that of 50 %; a normal's is 2.91.
        misshapen: whether it is skewed, or has heavy tails.
    """

    spread_ratio: float
    uneven: bool
    skew: float
    tails: float
    misshapen: bool


def noise_of(x: np.ndarray, left: np.ndarray, seed: int) -> list[Noise]:
    """Return the noise of each target.

    Args:
        x: (rows, columns).
        left: what averages leave of y, (rows, d).
        seed: of the trees.
    """
    found = []
    for column in left.T:
        usual = np.median(np.abs(column))
        size = np.log(np.abs(column) + 0.05 * usual + 1e-300)
        leaf = min(_LEAF, max(2, len(x) // 20))
        _, told = out_of_bag(x, size, trees=_TREES, leaf=leaf, seed=seed)
        agreement: Any = spearmanr(told, size)
        # trees say too much of small differences: the slope of what happened on what they say mends it
        slope = float(np.clip(np.cov(told, size)[0, 1] / max(told.var(ddof=1), 1e-12), 0.0, 1.0))
        low, high = np.quantile(told, [0.1, 0.9])
        ratio = float(np.exp(slope * (high - low)))
        uneven = bool(agreement.statistic > 0 and agreement.pvalue < _SURE and ratio > _UNEVEN)
        even = column / np.exp(slope * told) if uneven else column
        q = np.quantile(even, [0.025, 0.125, 0.25, 0.5, 0.75, 0.875, 0.975])
        skew = float((q[5] + q[1] - 2 * q[3]) / max(q[5] - q[1], 1e-300))
        tails = float((q[6] - q[0]) / max(q[4] - q[2], 1e-300))
        skewed = abs(skew) > max(_SKEWED, _ERRORS * 1.4 / np.sqrt(len(x)))
        heavy = tails > _HEAVY * (1 + _ERRORS / np.sqrt(len(x)))
        found.append(Noise(ratio, uneven, skew, tails, bool(skewed or heavy)))
    return found
