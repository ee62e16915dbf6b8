"""A corridor and policies of a line each: what the evaluator is tested on where no model is trained."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

LENGTH = 12


class Corridor(gym.Env):
    """Ten steps along a line with a wall at both sides: left is way 0, right is way 1; the start is the seed's."""

    way_names = ("left", "right")
    rate = 10.0
    max_steps = 10
    render_mode = "rgb_array"

    def __init__(self, crash_at: int | None = None) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1, 1, (1,), np.float32)
        self.crash_at = crash_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = 0.0 if (options or {}).get("symmetric") else float(self.np_random.uniform(-0.5, 0.5))
        self.crashes = seed == self.crash_at
        self.places = [self.start]
        return self._seen(), {}

    def _seen(self):
        return np.array([self.places[-1], len(self.places) - 1], dtype=np.float32)

    @property
    def leaning(self):
        side = self.places[-1]
        return -1 if abs(side) < 1 else int(side > 0)

    @property
    def way(self):
        return self.leaning if len(self.places) > self.max_steps else -1

    def step(self, action):
        if self.crashes and len(self.places) > 3:
            raise RuntimeError("the gears jammed")
        self.places.append(self.places[-1] + float(np.clip(action[0], -1, 1)))
        collided = abs(self.places[-1]) > 3.5
        ended = len(self.places) > self.max_steps
        reward = min(abs(self.places[-1]) / 3, 1.0)
        return self._seen(), reward, False, ended, {"is_success": ended and self.way >= 0, "collided": collided}

    def path(self):
        return np.stack([self.places, np.arange(len(self.places))], axis=1)

    def backdrop(self, axes):
        axes.set(xlim=(-4, 4), ylim=(0, 10))

    def render(self):
        picture = np.full((16, 16, 3), 255, dtype=np.uint8)
        picture[len(self.places), int(np.clip(8 + 2 * self.places[-1], 0, 15))] = 0
        return picture


class Scripted:
    """A policy made of a function of the start of an episode and the step: both known from the observation."""

    observation_horizon, prediction_horizon, execution_horizon = 2, 8, 4
    nfe, n_parameters_, fit_seconds_ = 1, 7, 0.5

    def __init__(self, rule) -> None:
        self.rule = rule

    def start(self, robots=1, *, random_state=None):
        return Execution(self, robots)

    def act_chunk(self, observations, *, random_state=None):
        return np.stack([self.rule(each[-1]) * np.ones((8, 1)) for each in observations["state"]])


class Execution:
    def __init__(self, policy, robots) -> None:
        self.policy, self.left, self.seconds = policy, np.zeros(robots, dtype=int), []
        self.chunks = [np.zeros((1, 1))] * robots
        self.calls = []

    def reset(self, robots, *, random_state) -> None:
        self.left[list(robots)] = 0

    def act(self, observations):
        self.planned = self.left == 0
        self.calls.append(int(self.planned.sum()))
        for robot in np.flatnonzero(self.planned):
            chunk = self.policy.act_chunk({name: values[robot][None, None] for name, values in observations.items()})
            self.chunks[robot], self.left[robot] = chunk[0], self.policy.execution_horizon
        if self.planned.any():
            self.seconds.append(0.001)
        at = self.policy.execution_horizon - self.left
        self.left -= 1
        return np.stack([chunk[index] for chunk, index in zip(self.chunks, at, strict=True)])


def outward(observation):
    """Away from the middle, on whichever side the robot is: both ways are taken."""
    return 0.3 if observation[0] > 0 else -0.3
