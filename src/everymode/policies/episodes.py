"""What happened in the episodes of a policy, as arrays: all that the evaluator and the figures read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from everymode.errors import DataError
from everymode.files import atomically

__all__ = ["UNDECIDED", "Episode", "Rollouts"]

UNDECIDED = -1
"""The way of an episode that has gone none, and the leaning of one that is heading to none."""

_STEPWISE = ("rewards", "actions", "planned", "leaning")


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode, from its reset to its end or to its crash.

    Attributes:
        seed: of the start.
        rewards: (steps,), the score of each state reached, in [0, 1].
        actions: (steps, d), as they were given to the environment.
        planned: (steps,), whether a chunk was planned for this step: the first step, and the seams.
        leaning: (steps,), the way that the episode was heading to after each step.
        path: (places, 2), where the robot was; no rows where the environment tells none.
        way: that it went.
        success: whether the task was done at any step.
        collided: whether anything was touched that must not be; None where that has no meaning.
        error: what the environment raised, in one line; None if it did not.
        frames: (frames, height, width, 3) uint8, if they were asked for.
    """

    seed: int
    rewards: np.ndarray
    actions: np.ndarray
    planned: np.ndarray
    leaning: np.ndarray
    path: np.ndarray
    way: int = UNDECIDED
    success: bool = False
    collided: bool | None = None
    error: str | None = None
    frames: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Number of control steps."""
        return len(self.rewards)

    @property
    def best(self) -> float:
        """The highest reward: the score that the literature on Push-T reports."""
        return float(self.rewards.max()) if self.steps else 0.0

    @property
    def final(self) -> float:
        """The last reward."""
        return float(self.rewards[-1]) if self.steps else 0.0


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Episodes of one policy in one environment, in the order of their seeds.

    Attributes:
        environment: its name.
        episodes: those that crashed among them.
        way_names: names of the ways; none where ways have no meaning.
        rate: control steps a second; None where it is not known.
        seconds: wall time of each planning call, over all robots.
        goals: parts of the task; where there are several, the reward is the share of them that is done.
    """

    environment: str
    episodes: tuple[Episode, ...]
    way_names: tuple[str, ...] = ()
    rate: float | None = None
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    goals: int = 1

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def whole(self) -> tuple[Episode, ...]:
        """The episodes that did not crash: what scores are of."""
        return tuple(episode for episode in self.episodes if episode.error is None)

    @property
    def failures(self) -> tuple[Episode, ...]:
        """The episodes in which the environment crashed."""
        return tuple(episode for episode in self.episodes if episode.error is not None)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all but the frames to one .npz file, whole or not at all."""
        header = {
            "environment": self.environment,
            "way_names": list(self.way_names),
            "rate": self.rate,
            "goals": self.goals,
            "episodes": [[e.seed, e.way, e.success, e.collided, e.error] for e in self.episodes],
        }
        arrays = {name: _joined([getattr(episode, name) for episode in self.episodes]) for name in (*_STEPWISE, "path")}
        ends = {
            "ends": np.cumsum([episode.steps for episode in self.episodes], dtype=np.int64),
            "path_ends": np.cumsum([len(episode.path) for episode in self.episodes], dtype=np.int64),
        }
        with atomically(path) as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), seconds=self.seconds, **arrays, **ends)  # type: ignore[arg-type]
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Rollouts:
        """Return what `save` wrote; nothing is unpickled.

        Raises:
            DataError: the file is absent or damaged.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                parts = {name: np.split(stored[name], stored["ends"][:-1]) for name in _STEPWISE}
                paths = np.split(stored["path"], stored["path_ends"][:-1])
                seconds = stored["seconds"]
            episodes = tuple(
                Episode(
                    seed=seed,
                    path=paths[index],
                    way=way,
                    success=success,
                    collided=collided,
                    error=error,
                    **{name: parts[name][index] for name in _STEPWISE},
                )
                for index, (seed, way, success, collided, error) in enumerate(header["episodes"])
            )
            way_names, goals = tuple(header["way_names"]), header.get("goals", 1)
            return cls(header["environment"], episodes, way_names, header["rate"], seconds, goals)
        except Exception as error:  # a damaged archive raises whatever its damage leads to
            raise DataError(f"{os.fspath(path)} holds no episodes, or is damaged: {error}.") from error


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Lay arrays end to end; those of episodes that crashed before their first step have no rows, and any columns."""
    filled = [array for array in arrays if len(array)]
    return np.concatenate(filled) if filled else np.asarray(arrays[0])
