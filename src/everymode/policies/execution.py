"""The receding horizon: what robots saw, the actions they still have to do, and when they look again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from everymode.errors import DataError
from everymode.randomness import mix, new_generator

if TYPE_CHECKING:
    from everymode.policies.policy import Policy

__all__ = ["Execution"]


class Execution:
    """A policy executed by several robots side by side; made by `Policy.start`.

    Each robot keeps its last observations, the first one standing for those before it, its queue of actions, and a
    generator of its own: what it does depends on its own observations and seed, not on the robots beside it. Robots
    whose queue is empty are planned for in one call.

    Args:
        policy: fitted.
        generators: one a robot, on the CPU.

    Attributes:
        planned: which robots got new actions in the last `act`, (robots,), bool.
        seconds: wall seconds of every planning call.
        chunks: the actions that were last predicted for each robot, (robots, prediction_horizon, d).
    """

    def __init__(self, policy: Policy, generators: Sequence[torch.Generator]) -> None:
        self.policy, self._generators = policy, list(generators)
        self.robots = len(self._generators)
        self.planned = np.zeros(self.robots, dtype=bool)
        self.seconds: list[float] = []
        self.chunks = np.zeros((self.robots, policy.prediction_horizon, policy.n_actions_))
        self._done = np.zeros(self.robots, dtype=np.int64)  # actions of the chunk that were executed
        self._fresh = np.ones(self.robots, dtype=bool)  # whose episode has not begun
        self._seen: dict[str, np.ndarray] = {}

    def act(self, observations: Mapping[str, Any] | Any) -> np.ndarray:
        """Return the next action of each robot, (robots, d), in the units of the demonstrations.

        Args:
            observations: the present ones by name, (robots, *shape); an array alone is the `state`.

        Raises:
            DataError: an observation is missing, or not there for every robot.
        """
        self._see(self.policy.named(observations))
        self.planned = self._fresh | (self._done >= self.policy.execution_horizon)
        if self.planned.any():
            self._plan(np.flatnonzero(self.planned))
        self._fresh[:] = False
        actions = self.chunks[np.arange(self.robots), self._done]
        self._done += 1
        return actions

    def _see(self, observations: dict[str, np.ndarray]) -> None:
        """Keep the present observations."""
        for name, values in observations.items():
            if values.ndim < 1 or len(values) != self.robots:
                raise DataError(
                    f"observation {name!r} has shape {values.shape}: give ({self.robots}, ...), one a robot."
                )
            if name not in self._seen:
                horizon = self.policy.observation_horizon
                self._seen[name] = np.repeat(values[:, None], horizon, axis=1)
                continue
            seen = self._seen[name]
            if values.shape[1:] != seen.shape[2:]:
                raise DataError(f"observation {name!r} has shape {values.shape}; before it was of {seen.shape[2:]}.")
            seen[:, :-1] = seen[:, 1:]
            seen[:, -1] = values
            seen[self._fresh] = values[self._fresh, None]

    def _plan(self, robots: np.ndarray) -> None:
        """Predict new actions for these robots."""
        started = time.perf_counter()
        seen = {name: values[robots] for name, values in self._seen.items()}
        self.chunks[robots] = self.policy.plan(seen, [self._generators[robot] for robot in robots])
        self.seconds.append(time.perf_counter() - started)
        self._done[robots] = 0

    def reset(self, robots: Sequence[int] | None = None, *, random_state: Sequence[int] | None = None) -> None:
        """Let robots begin a new episode: what they saw and had to do is forgotten.

        Args:
            robots: which; all if None.
            random_state: a new seed for each of them, so that an episode is what it is with `start(random_state=seed)`
                for one robot, whatever came before it; if None their generators go on.
        """
        chosen = np.arange(self.robots) if robots is None else np.asarray(robots, dtype=np.int64)
        self._fresh[chosen] = True
        if random_state is not None:
            for robot, seed in zip(chosen, random_state, strict=True):
                self._generators[robot] = new_generator(mix(int(seed), 0))
