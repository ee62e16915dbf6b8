"""Is there a valley? Evidence against laws of one peak, from a mixture that was learned on other rows.

Let f be a mixture that someone believes in for one row, and g_m the law nearest to it, in Kullback-Leibler divergence,
among all laws on a line with one peak, at m. That set is convex, so g_m is the reverse information projection, and for
whatever law p of it y is drawn from, E_p[f(y) / g_m(y)] <= 1: the ratio is an e-value. Products of the ratios of
independent rows are e-values too, and so are their averages over choices made beforehand; by Markov's inequality one
exceeds 1 / alpha with probability alpha at most. It is large where y avoids the valley that f has and g_m has not.

Where the peak is, is not known. Two places are tried, the peaks of f on both sides of its deepest valley, and the
lesser product over rows counts: that with the peak of all rows at the summit of f, or that with the peak of all across
the valley. What is assumed of laws with one peak is thus that theirs is on the same side for all rows.

In several dimensions all this is done on a line through y, from the summit of f across its deepest valley: a law that
falls in all directions from its summit has one peak on every line through that. (On other lines it may have more: where
two values are heavy-tailed and independent, answers are likely along a cross.) Lines that do not pass by the summit do
not count. The law of y along the line, given what lies across it, is again a mixture of normals.

References:
    Safe testing (Grünwald, de Heide and Koolen, 2024), https://doi.org/10.1093/jrsssb/qkae011: the projection
    On the theory of mortality measurement, part II (Grenander, 1956): it is isotonic regression
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import logsumexp, ndtr
from scipy.stats import chi2

__all__ = ["Lines", "Mixtures", "Valleys", "directions", "log_evidence", "on_a_line", "one_peak", "valleys"]

_EDGES = np.array([-3.0, -2.0, -1.5, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0])  # of cells, in scales
_TOP = 6  # components behind valleys that are looked for
_NEAR = 0.9  # of a component, within which a line passes by it
_BETWEEN = np.linspace(0, 1, 11)
_DEPTHS = (0.9, 0.6, 0.3)  # rows count whose valley is at most so high, beside the lesser peak
_STAKES = (0.1, 0.3, 0.6, 1.0)  # share of the evidence that is put on a row's ratio
_LEAST_WEIGHT = 1e-3
_LEAST_SIDE = 0.05  # probability; a few outliers are no answer


@dataclass(frozen=True)
class Mixtures:
    """A mixture of normals for each row.

    Attributes:
        log_weights: (rows, k).
        means: (rows, k, d).
        roots: lower triangular factors of the covariances, (rows, k, d, d).
    """

    log_weights: np.ndarray
    means: np.ndarray
    roots: np.ndarray

    def log_density(self, y: np.ndarray) -> np.ndarray:
        """Return the log-density at points y (rows, points, d), (rows, points)."""
        z = np.einsum("nkij,ngkj->ngki", self._inverse, y[:, :, None] - self.means[:, None])
        size = y.shape[2]
        return logsumexp((self.log_weights - self._log_volume)[:, None] - 0.5 * (z**2).sum(axis=3), axis=2) - (
            0.5 * size * np.log(2 * np.pi)
        )

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.roots)

    @cached_property
    def _log_volume(self) -> np.ndarray:
        return np.log(np.diagonal(self.roots, axis1=2, axis2=3)).sum(axis=2)

    @property
    def mean(self) -> np.ndarray:
        """The means of the mixtures, (rows, d)."""
        return (np.exp(self.log_weights)[..., None] * self.means).sum(axis=1)

    @property
    def variance(self) -> np.ndarray:
        """The variances of the values, (rows, d)."""
        second = (self.roots**2).sum(axis=3) + self.means**2
        return (np.exp(self.log_weights)[..., None] * second).sum(axis=1) - self.mean**2

    @cached_property
    def highest(self) -> np.ndarray:
        """The component whose mean is the likeliest, (rows,)."""
        return self.log_density(self.means).argmax(axis=1)

    @property
    def summits(self) -> np.ndarray:
        """The likeliest of the components' means, (rows, d)."""
        return self.means[np.arange(len(self.means)), self.highest]


def directions(mixtures: Mixtures) -> np.ndarray:
    """Return unit vectors (rows, d) from each summit to the component behind the deepest valley that counts most."""
    rows, d = mixtures.means.shape[::2]
    if d == 1:
        return np.ones((rows, 1))
    order, index = np.argsort(-mixtures.log_weights, axis=1), np.arange(rows)
    best, found = np.full(rows, -1.0), np.tile(np.eye(1, d), (rows, 1))
    weights, start = np.exp(mixtures.log_weights), mixtures.means[index, mixtures.highest]
    for other in order.T[:_TOP]:
        way = mixtures.means[index, other] - start
        log_density = mixtures.log_density(start[:, None] + _BETWEEN[:, None] * way[:, None])
        depth = 1 - np.exp(log_density.min(axis=1) - np.minimum(log_density[:, 0], log_density[:, -1]))
        length = np.linalg.norm(way, axis=1)  # 0 to the summit itself
        score = np.where(length > 0, depth * weights[index, other], -1.0)
        better = score > best
        best[better] = score[better]
        found[better] = way[better] / length[better, None]
    return found


@dataclass(frozen=True)
class Lines:
    """Laws on the lines through y.

    Attributes:
        laws: of one dimension.
        place: of y on its line, (rows,).
        summit: of the point next to the summit on it, (rows,).
        counted: whether the line passes by the summit, within nine tenths of its component, (rows,).
    """

    laws: Mixtures
    place: np.ndarray
    summit: np.ndarray
    counted: np.ndarray


def on_a_line(mixtures: Mixtures, along: np.ndarray, through: np.ndarray) -> Lines:
    """Return the law of `along` . y (rows, 1) given all that lies across it in `through` (rows, d)."""
    place, summit = ((points * along).sum(axis=1) for points in (through, mixtures.summits))
    rows = len(through)
    if along.shape[1] == 1:
        return Lines(mixtures, place, summit, np.ones(rows, dtype=bool))
    inverse = mixtures._inverse
    across = through - place[:, None] * along
    slope = np.einsum("nkij,nj->nki", inverse, along)
    offset = np.einsum("nkij,nkj->nki", inverse, mixtures.means - across[:, None])
    precision = (slope**2).sum(axis=2)
    mean, scale = (slope * offset).sum(axis=2) / precision, precision**-0.5
    away = (offset**2).sum(axis=2) - mean**2 * precision  # of each component from the line, squared, in its scale
    log_weights = mixtures.log_weights - mixtures._log_volume - 0.5 * away + np.log(scale)
    log_weights = log_weights - logsumexp(log_weights, axis=1, keepdims=True)
    counted = away[np.arange(rows), mixtures.highest] < chi2.ppf(_NEAR, along.shape[1] - 1)
    return Lines(Mixtures(log_weights, mean[..., None], scale[..., None, None]), place, summit, counted)


@dataclass(frozen=True)
class Valleys:
    """The deepest valley of each row's law on its line, if there is one with enough on both sides.

    Attributes:
        height: density in the valley over that of the lesser peak, (rows,); 1 where there is one peak.
        lesser: probability of the side with less of it, (rows,); 0 where there is one peak.
        peaks: places of the peak next to the summit and of the other, (rows, 2); NaN where there is one.
        floor: place of the valley, (rows,); NaN where there is one peak.
        gains: log f / g_m at what was observed, with m at each of the two peaks, (rows, 2).
    """

    height: np.ndarray
    lesser: np.ndarray
    peaks: np.ndarray
    floor: np.ndarray
    gains: np.ndarray


def valleys(lines: Lines, *, blur: float = 1.0) -> Valleys:
    """Return the valleys of laws on lines that are counted.

    Args:
        lines: with what was observed.
        blur: factor on the scales of the components; a blurred mixture is the better bet where it was overfitted.
    """
    rows, laws = len(lines.place), lines.laws
    height, lesser, gains = np.ones(rows), np.zeros(rows), np.zeros((rows, 2))
    peaks, floor = np.full((rows, 2), np.nan), np.full(rows, np.nan)
    weights, means = np.exp(laws.log_weights), laws.means[..., 0]
    scales = blur * laws.roots[..., 0, 0]
    for row in np.flatnonzero(lines.counted):
        kept = weights[row] > _LEAST_WEIGHT
        if kept.sum() < 2:
            continue
        edges, mass = _cells(weights[row, kept], means[row, kept], scales[row, kept])
        width = np.diff(edges)
        density = mass / width
        found = _deepest(density, edges)
        if found is None:
            continue
        high, low, other = found
        side = min(mass[: low + 1].sum(), mass[low:].sum())
        if side < _LEAST_SIDE:
            continue
        height[row], lesser[row] = density[low] / density[other], side
        middles = (edges[1:] + edges[:-1]) / 2
        modes = sorted((high, other), key=lambda mode: abs(middles[mode] - lines.summit[row]))
        peaks[row] = middles[modes]
        floor[row] = middles[low]
        cell = int(np.searchsorted(edges, lines.place[row])) - 1
        if 0 <= cell < len(density):
            gains[row] = [np.log(density[cell] / one_peak(density, width, mode)[cell]) for mode in modes]
    return Valleys(height, lesser, peaks, floor, gains)


def _cells(weights: np.ndarray, means: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of cells that are fine where the mixture is, and the probability of each, which add up to 1."""
    edges = np.unique((means[:, None] + scales[:, None] * _EDGES).ravel())
    edges = edges[np.r_[True, np.diff(edges) > 1e-9 * (edges[-1] - edges[0])]]
    below = (weights * ndtr((edges[:, None] - means) / scales)).sum(axis=1)
    mass = np.maximum(np.diff(below), 1e-300)
    return edges, mass / mass.sum()


def _deepest(density: np.ndarray, edges: np.ndarray) -> tuple[int, int, int] | None:
    """Return the cells of the highest peak, of the deepest valley beside it, and of the peak on its other side."""
    rising = np.r_[True, density[1:] > density[:-1]]
    falling = np.r_[density[:-1] >= density[1:], True]
    tops = np.flatnonzero(rising & falling)
    high = int(tops[density[tops].argmax()])
    best, found = 0.0, None
    for top in map(int, tops):
        first, last = sorted((high, top))
        low = first + int(density[first : last + 1].argmin())
        missing = (density[top] - density[low]) * abs(edges[top] - edges[high])
        if top != high and missing > best:
            best, found = missing, (high, low, top)
    return found


def one_peak(density: np.ndarray, width: np.ndarray, mode: int) -> np.ndarray:
    """Return the law nearest to a piecewise constant one that rises up to the end of cell `mode` and falls from there.

    The Kullback-Leibler divergence from `density` (cells,) to it is least: isotonic regression on each side.
    """
    left = isotonic_regression(density[: mode + 1], weights=width[: mode + 1]).x
    right = isotonic_regression(density[mode + 1 :], weights=width[mode + 1 :], increasing=False).x
    return np.concatenate([left, right])


def log_evidence(found: Valleys, together: np.ndarray | None = None) -> float:
    """Return the logarithm of an e-value against one peak, of rows on which the mixtures were not learned.

    An average over how deep a valley has to be for a row to count, and over the share that is staked on each row's
    ratio: bets that are too bold about a valley lose, and others are there.

    Of rows that depend on one another, the geometric mean of the ratios counts. It is at most their average, which is
    an e-value whatever the dependence, given which of them have valleys.

    Args:
        found: of rows.
        together: numbers of the groups of rows that depend on one another, (rows,); None: no row depends on another.
    """
    together = np.arange(len(found.height)) if together is None else together
    logs = []
    for depth in _DEPTHS:
        deep = found.height < depth
        gains, group = found.gains[deep], together[deep]
        weight = 1 / np.bincount(group)[group]
        logs += [float((weight @ np.log1p(stake * np.expm1(gains))).min()) for stake in _STAKES]
    return float(logsumexp(logs) - np.log(len(logs)))
