"""How a policy behaves, beside whether it succeeds: the ways it takes, whether it keeps to one, and how it moves.

References:
    Note on the bias of information estimates (Miller, 1955): the correction of the entropy of counts
    Towards diverse behaviors: a benchmark for imitation learning with human demonstrations (Jia et al., 2024),
        https://arxiv.org/abs/2402.14606: entropy over the ways of successful episodes
    The coordination of arm movements (Flash and Hogan, 1985), https://doi.org/10.1523/JNEUROSCI.05-07-01688.1985: jerk
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from everymode.errors import DataError
from everymode.metrics import Measure, bootstrap_interval, wilson_interval
from everymode.policies.angles import difference
from everymode.policies.episodes import UNDECIDED, Episode

__all__ = [
    "LEAST_SHARE",
    "Behaviour",
    "commitment",
    "count_ways",
    "jerk",
    "jumps",
    "way_entropy",
    "way_recall",
]

LEAST_SHARE = 0.25
"""A way is recalled where it is taken at least this share as often as the demonstrators take it."""

_RESAMPLES = 1000


def count_ways(ways: Iterable[int], names: Sequence[str]) -> np.ndarray:
    """Return how many episodes went each way, (ways,); those that went none are not counted."""
    chosen = np.asarray([way for way in ways if way != UNDECIDED], dtype=np.int64)
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(names):
        raise DataError(f"an episode went the way {chosen.max()}, and there are {len(names)}: {', '.join(names)}.")
    return np.bincount(chosen, minlength=len(names))


def way_entropy(counts: ArrayLike) -> float:
    """Return the entropy, in nats, of the shares in which ways were taken, corrected for few episodes.

    The plug-in entropy -sum p log p of n episodes is too small by about (k - 1) / (2 n), k ways having been seen; that
    is added (Miller, 1955), and the sum is bounded by log of the number of ways. 0 where one way, or none, was taken.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total, seen = counts.sum(), int((counts > 0).sum())
    if seen < 2:
        return 0.0
    return min(float(entr(counts / total).sum() + (seen - 1) / (2 * total)), math.log(len(counts)))


def way_recall(counts: ArrayLike, demonstrated: ArrayLike) -> float:
    """Return the share of the demonstrators' ways that are taken at least `LEAST_SHARE` as often as they take them.

    Args:
        counts: (ways,), of the policy.
        demonstrated: (ways,), counts of the demonstrators, at least one.
    """
    counts, shown = np.asarray(counts, dtype=np.float64), np.asarray(demonstrated, dtype=np.float64)
    if shown.sum() == 0:
        raise DataError("the demonstrators took no way, so none can be recalled.")
    enough = LEAST_SHARE * counts.sum() * shown / shown.sum()
    return float(((counts >= enough) & (counts > 0))[shown > 0].mean())


def commitment(leaning: ArrayLike) -> bool | None:
    """Return whether an episode kept to the way that it first leaned to; None where it never leaned to any.

    Args:
        leaning: (steps,); undecided steps, -1, count for nothing, also between two that lean.
    """
    decided = np.asarray(leaning)
    decided = decided[decided != UNDECIDED]
    return bool((decided == decided[0]).all()) if len(decided) else None


def jerk(positions: ArrayLike, rate: float = 1.0) -> float | None:
    """Return the mean size of the jerk along a path: |third difference of the positions| rate^3.

    In units of the positions a second cubed, or a step cubed where the rate is 1. Constant acceleration has none.

    Args:
        positions: (places, d), one a control step.
        rate: control steps a second.

    Returns:
        None for fewer than four places.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if len(positions) < 4:
        return None
    return float(np.linalg.norm(np.diff(positions, n=3, axis=0), axis=1).mean() * rate**3)


def jumps(actions: ArrayLike, planned: ArrayLike, angles: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of consecutive actions at the seams of chunks, and those within chunks.

    Args:
        actions: (steps, d).
        planned: (steps,), whether a chunk began at this step. The first step is no seam.
        angles: which values of an action are angles in radians: they differ by the short way round.
    """
    actions, seams = np.asarray(actions, dtype=np.float64), np.asarray(planned, dtype=bool)
    if len(actions) < 2:
        return np.zeros(0), np.zeros(0)
    distances = np.linalg.norm(difference(actions[1:], actions[:-1], angles), axis=1)
    return distances[seams[1:]], distances[~seams[1:]]


@dataclass(frozen=True)
class Behaviour:
    """How a policy behaved in some of its episodes. None where there is nothing to tell it from.

    Attributes:
        episodes: how many.
        ways: episodes by the name of their way; empty where ways have no meaning.
        no_way: episodes that went none.
        entropy: of the ways, in nats, see `way_entropy`; the floor is the demonstrators'. Bootstrap over episodes.
        recall: see `way_recall`. Bootstrap over episodes.
        commitment: share of the episodes that ever lean to a way and keep to it. Wilson.
        jerk: mean over episodes, of the path where the environment tells one and of the actions otherwise. Bootstrap.
        seam_jump: mean distance of consecutive actions where a new chunk begins.
        inner_jump: the same within chunks.
    """

    episodes: int
    ways: dict[str, int]
    no_way: int
    entropy: Measure | None = None
    recall: Measure | None = None
    commitment: Measure | None = None
    jerk: Measure | None = None
    seam_jump: float | None = None
    inner_jump: float | None = None

    @classmethod
    def of(
        cls,
        episodes: Sequence[Episode],
        way_names: Sequence[str] = (),
        demonstrated: ArrayLike | None = None,
        rate: float | None = None,
        seed: int = 0,
        angles: Sequence[int] = (),
    ) -> Behaviour:
        """Describe episodes.

        Args:
            episodes: that did not crash.
            way_names: names of the ways.
            demonstrated: (ways,), how often the demonstrators take each way, as counts or shares.
            rate: control steps a second.
            seed: of the bootstraps.
            angles: which values of an action are angles in radians.
        """
        went = np.array([episode.way for episode in episodes], dtype=np.int64)
        counts = count_ways(went, way_names)
        pairs = [jumps(episode.actions, episode.planned, angles) for episode in episodes]
        seams, inner = (np.concatenate([pair[side] for pair in pairs] or [np.zeros(0)]) for side in (0, 1))
        kept = [kept for episode in episodes if (kept := commitment(episode.leaning)) is not None]
        jerks = [
            size
            for episode in episodes
            if (size := jerk(episode.path if len(episode.path) else episode.actions, rate or 1.0)) is not None
        ]
        return cls(
            len(episodes),
            dict(zip(way_names, counts.tolist(), strict=True)),
            int((went == UNDECIDED).sum()) if way_names else 0,
            **_of_ways(counts, demonstrated, seed),
            commitment=Measure(sum(kept) / len(kept), *wilson_interval(sum(kept), len(kept)), None, len(kept))
            if kept
            else None,
            jerk=Measure(float(np.mean(jerks)), *bootstrap_interval(jerks, seed), None, len(jerks)) if jerks else None,
            seam_jump=float(seams.mean()) if len(seams) else None,
            inner_jump=float(inner.mean()) if len(inner) else None,
        )

    @property
    def entropy_share(self) -> float | None:
        """The entropy as a share of the demonstrators'; None where theirs is not known, or is none."""
        if self.entropy is None or not self.entropy.floor:
            return None
        return self.entropy.value / self.entropy.floor

    @property
    def ways_taken(self) -> int:
        """How many ways were taken at least once."""
        return sum(count > 0 for count in self.ways.values())

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        shown = {name: value.to_dict() if isinstance(value, Measure) else value for name, value in vars(self).items()}
        return {**shown, "ways_taken": self.ways_taken, "entropy_share": self.entropy_share}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Behaviour:
        """Return what `to_dict` described."""
        values: dict[str, Any] = {name: described[name] for name in cls.__dataclass_fields__}
        for name in _MEASURES:
            values[name] = None if values[name] is None else Measure(**values[name])
        return cls(**values)


_MEASURES = ("entropy", "recall", "commitment", "jerk")


def _of_ways(counts: np.ndarray, demonstrated: ArrayLike | None, seed: int) -> dict[str, Measure]:
    """Return the entropy and the recall, with intervals over resampled episodes."""
    total = int(counts.sum())
    if total == 0:
        return {}
    again = np.random.default_rng(seed).multinomial(total, counts / total, size=_RESAMPLES)

    def measure(metric: Callable[[np.ndarray], float], floor: float | None) -> Measure:
        low, high = np.quantile([metric(each) for each in again], [0.025, 0.975])
        return Measure(metric(counts), float(low), float(high), floor, total)

    if demonstrated is None:
        return {"entropy": measure(way_entropy, None)}
    shares = np.asarray(demonstrated, dtype=np.float64) / np.sum(demonstrated)
    return {
        "entropy": measure(way_entropy, float(entr(shares).sum())),
        "recall": measure(lambda each: way_recall(each, shares), 1.0),
    }
