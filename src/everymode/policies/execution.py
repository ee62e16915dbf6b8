"""The receding horizon: what robots saw, the actions they still have to do, and when they look again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from everymode.errors import DataError, SettingError, check_number
from everymode.policies.continuity import Continuity, Look
from everymode.policies.queue import ActionQueue
from everymode.randomness import mix, new_generator

if TYPE_CHECKING:
    from everymode.policies.policy import Policy

__all__ = ["Execution"]


class Execution:
    """A policy executed by several robots side by side; made by `Policy.start`.

    Each robot keeps its last observations, the first one standing for those before it, its queue of actions, and a
    generator of its own: what it does depends on its own observations and seed, not on the robots beside it. Robots
    that look again in the same step are planned for in one call.

    A robot looks again `execution_horizon` steps after it last looked. What is predicted then can be executed `delay`
    steps later; until it can, the robot goes on with what it has. The first chunk of an episode is there at once: the
    clock starts with it.

    Args:
        policy: fitted.
        generators: one a robot, on the CPU.
        continuity: how the next chunk meets the last one; the next takes the place of the last if None.
        delay: control steps from an observation to the first action of its own chunk.

    Attributes:
        planned: which robots began a new chunk in the last `act`, (robots,), bool.
        seconds: wall seconds of every planning call.
        chunks: the actions that were last predicted for each robot, (robots, prediction_horizon, d).

    Raises:
        SettingError: a queue would be empty before the next chunk arrives.
    """

    def __init__(
        self,
        policy: Policy,
        generators: Sequence[torch.Generator],
        *,
        continuity: Continuity | None = None,
        delay: int = 0,
    ) -> None:
        self.policy, self._generators = policy, list(generators)
        self.continuity = continuity or Continuity()
        self.delay = check_number("delay", delay, 0, integer=True)
        if delay > policy.execution_horizon:
            raise SettingError(
                f"delay={delay}: robots look again after execution_horizon={policy.execution_horizon} steps, before "
                "the actions of the last look arrive. Execute more."
            )
        if policy.execution_horizon + delay > policy.prediction_horizon:
            raise SettingError(
                f"delay={delay}: with execution_horizon={policy.execution_horizon} the {policy.prediction_horizon} "
                "predicted actions run out before the next arrive. Execute fewer, or predict more."
            )
        self.robots = len(self._generators)
        self.planned = np.zeros(self.robots, dtype=bool)
        self.seconds: list[float] = []
        self.chunks = np.zeros((self.robots, policy.prediction_horizon, policy.n_actions_))
        decay, angles = self.continuity.queue_decay, policy.action_angles_
        self._queues = [ActionQueue(decay=decay, angles=angles) for _ in generators]
        self._looked = np.zeros(self.robots, dtype=np.int64)  # the step of the last look
        self._underway = np.zeros(self.robots, dtype=bool)  # whose chunk has not arrived
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
        steps = np.asarray([queue.step for queue in self._queues])
        looks = self._fresh | (steps - self._looked >= self.policy.execution_horizon)
        if looks.any():
            self._plan(np.flatnonzero(looks))
            self._looked[looks], self._underway[looks] = steps[looks], True
        self.planned = self._underway & (self._fresh | (steps - self._looked >= self.delay))
        for robot in np.flatnonzero(self.planned):
            self._queues[robot].put(self.chunks[robot], int(self._looked[robot]))
        self._underway[self.planned] = False
        self._fresh[:] = False
        return np.asarray([queue.pop() for queue in self._queues])

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
        ahead = np.full((len(robots), *self.chunks.shape[1:]), np.nan)
        for row, robot in zip(ahead, robots, strict=True):
            for step, action in enumerate(self._queues[robot].ahead(len(row))):
                row[step] = action
        generators = [self._generators[robot] for robot in robots]
        self.chunks[robots] = self.continuity.plan(self.policy, Look(seen, generators, ahead, self.delay))
        self.seconds.append(time.perf_counter() - started)

    def reset(self, robots: Sequence[int] | None = None, *, random_state: Sequence[int] | None = None) -> None:
        """Let robots begin a new episode: what they saw and had to do is forgotten.

        Args:
            robots: which; all if None.
            random_state: a new seed for each of them, so that an episode is what it is with `start(random_state=seed)`
                for one robot, whatever came before it; if None their generators go on.
        """
        chosen = np.arange(self.robots) if robots is None else np.asarray(robots, dtype=np.int64)
        self._fresh[chosen], self._underway[chosen], self._looked[chosen] = True, False, 0
        for robot in chosen:
            self._queues[robot].clear()
        if random_state is not None:
            for robot, seed in zip(chosen, random_state, strict=True):
                self._generators[robot] = new_generator(mix(int(seed), 0))
