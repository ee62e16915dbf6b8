"""What every environment here has: ways, paths, pictures; and a demonstrator where one is scripted.

Times are control steps, `rate` of them a second. Everything random comes from the seed of `reset`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from matplotlib.axes import Axes

from everymode.errors import DataError, SettingError, check_choice, check_number, unknown_name
from everymode.policies.demonstrations import STATE, Demonstrations

__all__ = ["Environment", "Scripted", "probabilities"]


class Environment(gym.Env[Any, np.ndarray]):
    """An episode in which a robot acts on what it observes.

    `reset(options={"symmetric": True})` draws a start that favours no way, where `reset_options` names it.
    `step` returns a reward in [0, 1], the score of the present state, and `info` with `is_success` and `collided`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # pyright: ignore[reportIncompatibleVariableOverride]
    name: ClassVar[str]
    rate: ClassVar[float] = 10.0  # control steps a second
    max_steps: ClassVar[int]  # an episode is truncated here
    goals: int = 1  # parts of the task; where there are several, the reward is the share of them that is done
    way_names: tuple[str, ...] = ()  # empty where ways have no meaning
    angles: Mapping[str, Sequence[int]] = MappingProxyType({})  # values in radians, as `Demonstrations` has it
    names: Mapping[str, Sequence[str]] = MappingProxyType({})  # the names of values, as `Demonstrations` has it
    no_script: ClassVar[str] = ""  # why there is no scripted demonstrator, where there is none
    reset_options: ClassVar[tuple[str, ...]] = ()  # what `reset(options=...)` knows

    way: int = -1  # which of way_names the episode went; -1 until it has gone one
    leaning: int = -1  # the way it is heading to; -1 while undecided

    def __init__(self, *, render_mode: str | None = None) -> None:
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self._path: list[np.ndarray] = []

    def _start(self, seed: int | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Forget the last episode; return the options, checked."""
        super().reset(seed=seed)
        self.way = self.leaning = -1
        self._path = []
        for option in options or {}:
            if option not in self.reset_options:
                raise SettingError(unknown_name(f"option of reset in {self.name}", option, self.reset_options))
        return dict(options or {})

    def _checked(self, action: Any) -> np.ndarray:
        """Return the action as float64, within the action space."""
        space, values = self.action_space, np.asarray(action, dtype=np.float64)
        if values.shape != space.shape or not np.isfinite(values).all():
            raise DataError(f"{self.name}: the action {values.tolist()} must be finite numbers of shape {space.shape}.")
        return np.clip(values, space.low, space.high)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def _truncated(self) -> bool:
        return len(self._path) > self.max_steps  # the path holds the start, too

    def path(self) -> np.ndarray:
        """Return where the robot has been in this episode, (steps + 1, 2), for a picture of paths."""
        return np.array(self._path).reshape(-1, 2)

    @abstractmethod
    def backdrop(self, axes: Axes) -> None:
        """Draw the scene, without the robot, and set the limits of the axes."""

    @abstractmethod
    def picture(self, size: int = 256) -> np.ndarray:
        """Return the scene from above, `size` pixels high, (height, width, 3) uint8."""

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return `picture()`, or None where no `render_mode` was asked for."""
        return None if self.render_mode is None else self.picture()


class Scripted(Environment):
    """An environment that can show how it is done.

    The demonstrator knows the scene, draws a way with the probabilities `way_weights`, and keeps to it. Its hand shakes
    while it drives: what is executed is its action plus a slow disturbance, what is recorded is the action that it
    meant, so that states beside the path come with the actions that lead back.

    References:
        DART: noise injection for robust imitation learning (Laskey et al., 2017), https://arxiv.org/abs/1703.09327
    """

    way_weights: np.ndarray  # (ways,), the probability of each way in the demonstrations
    noise: float  # standard deviation of the disturbance, in units of the action

    @abstractmethod
    def intend(self, way: int) -> np.ndarray:
        """Return the action of a demonstrator who takes this way, (d,), in the present state."""

    def demonstrate(
        self, episodes: int = 1, seed: int = 0, *, way: int | None = None, symmetric: bool = False
    ) -> Demonstrations:
        """Return demonstrations; episode e starts as `reset(seed=seed + e)` does.

        Args:
            episodes: how many.
            seed: of the first one's start.
            way: the way to take in all of them; None draws it with `way_weights`.
            symmetric: from symmetric starts.
        """
        episodes = check_number("episodes", episodes, 1, integer=True)
        seed = check_number("seed", seed, 0, integer=True)
        states, actions, ends, ways = [], [], [], []
        for episode in range(episodes):
            rng = np.random.default_rng([seed + episode, 1])  # not the stream that draws the start
            chosen = int(rng.choice(len(self.way_names), p=self.way_weights)) if way is None else way
            state, _ = self.reset(seed=seed + episode, options={"symmetric": True} if symmetric else None)
            shaking, done = 0.0, False
            while not done:
                action = self.intend(chosen)
                states.append(state)
                actions.append(action)
                shaking = _STEADY * shaking + np.sqrt(1 - _STEADY**2) * self.noise * rng.standard_normal(len(action))
                state, _, ended, truncated, _ = self.step(action + shaking)
                done = ended or truncated
            ends.append(len(actions))
            ways.append(chosen)
        return Demonstrations(
            observations={STATE: np.array(states, dtype=np.float32)},
            actions=np.array(actions, dtype=np.float32),
            episode_ends=np.array(ends),
            rate=self.rate,
            angles=self.angles,
            names=self.names,
            ways=np.array(ways),
            way_names=self.way_names,
            source=f"{self.name}, scripted",
        )


def probabilities(weights: Sequence[float] | None, ways: int) -> np.ndarray:
    """Return the weights as probabilities, (ways,); all alike where they are None."""
    if weights is None:
        return np.full(ways, 1 / ways)
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (ways,) or not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise SettingError(f"weights={weights!r}: give {ways} numbers of at least 0, one a way, not all of them 0.")
    return given / given.sum()


_STEADY = 0.9  # what is left of the disturbance a step later
