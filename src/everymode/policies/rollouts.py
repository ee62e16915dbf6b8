"""Many episodes of one policy from fixed starts: robots side by side, their chunks planned in one call.

Episode i of a block starts from seed `SEED_BLOCKS[block] + i`, whatever the policy: two policies are compared on the
same starts, start by start. What a policy is chosen on and what it is reported on are different blocks.

What is the same again: the starts, always. The whole result, to the last bit, for the same seeds, `robots`, `jobs` and
`random_state` on the same machine. For another number of robots or jobs, a policy that draws nothing (such as `mse`)
gives the same actions up to rounding, as batches of other sizes round otherwise; one that draws gives other draws of
the same law, since the robots planned together share one generator.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from joblib import Parallel, delayed, parallel_config

from everymode.errors import SettingError, check_choice, check_number
from everymode.policies.demonstrations import STATE
from everymode.policies.episodes import UNDECIDED, Episode, Rollouts
from everymode.randomness import mix

if TYPE_CHECKING:
    import gymnasium

__all__ = ["SEED_BLOCKS", "Actor", "block", "maker", "roll_out"]

SEED_BLOCKS = {"choose": 100_000, "report": 200_000}
"""First seed of each block of starts; those of demonstrations begin at 0."""

Make = Callable[[], "gymnasium.Env[Any, Any]"]


class Running(Protocol):
    """A policy at work on several robots: what `Policy.start` returns."""

    @property
    def planned(self) -> np.ndarray:
        """Whether the last `act` planned a new chunk, (robots,)."""
        ...

    @property
    def seconds(self) -> Sequence[float]:
        """Wall time of each planning call."""
        ...

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return actions (robots, d)."""
        ...

    def reset(self, robots: Sequence[int]) -> None:
        """Begin new episodes on these robots."""
        ...


class Actor(Protocol):
    """What is rolled out: a `Policy`, or anything that starts as one."""

    @property
    def execution_horizon(self) -> int:
        """Steps between two plans."""
        ...

    def start(self, robots: int = 1, *, random_state: int | None = None) -> Running:
        """Return the policy at work on so many robots."""
        ...


def block(name: str, episodes: int) -> range:
    """Return the first seeds of a block.

    Raises:
        SettingError: there is no such block, or it is not that long.
    """
    first = SEED_BLOCKS[check_choice("seed_block", name, SEED_BLOCKS)]
    return range(first, first + check_number("episodes", episodes, 1, 100_000, integer=True))


def maker(environment: str | Make, **settings: Any) -> Make:
    """Return a function that makes the environment: of that name with these settings, or the function given."""
    if callable(environment):
        if settings:
            raise SettingError("settings belong to environments given by name; this one is given as a function.")
        return environment
    from everymode.policies import environments

    return functools.partial(environments.make, environment, **settings)


def roll_out(
    policy: Actor,
    environment: str | Make,
    seeds: Iterable[int],
    *,
    robots: int = 32,
    jobs: int = 1,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    random_state: int = 0,
    frames: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rollouts:
    """Return one episode for each seed.

    A robot whose episode is over begins the next when the others plan anew, so that chunks are planned for all robots
    in one call. Where the environment raises, the episode ends with the error, and the robot goes on in a new
    environment; what the policy raises is raised.

    Args:
        policy: fitted.
        environment: a name of `everymode.policies.environments`, or a function that makes one.
        seeds: of the starts.
        robots: environments side by side in a process.
        jobs: processes; each takes its share of the seeds, and computes on one thread if there are several.
        settings: of the environment.
        options: for its `reset`, such as {"symmetric": True}.
        random_state: of the draws.
        frames: whether episodes are rendered; an environment given as a function must be made to render.
        progress: told how many episodes are over, and of how many; with one job only.

    Raises:
        SettingError: a setting is out of range, or there is no environment of that name.
    """
    seeds = [int(seed) for seed in seeds]
    robots = check_number("robots", robots, 1, 4096, integer=True)
    jobs = min(check_number("jobs", jobs, 1, 4096, integer=True), len(seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingError(
            f"seeds: give at least one, and none twice; got {len(seeds)}, {len(set(seeds))} of them new."
        )
    rendered = {"render_mode": "rgb_array"} if frames and isinstance(environment, str) else {}
    make = maker(environment, **dict(settings or {}), **rendered)
    shares = [[int(seed) for seed in part] for part in np.array_split(seeds, jobs)]
    work = [
        _Fleet(policy, make, share, min(robots, len(share)), options, mix(random_state, number), frames)
        for number, share in enumerate(shares)
    ]
    if jobs == 1:
        ended = [work[0].run(progress)]
    else:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            ended: Any = Parallel(n_jobs=jobs)(delayed(_Fleet.run)(fleet) for fleet in work)
    way_names, rate = _described(make)
    name = environment if isinstance(environment, str) else getattr(environment, "__name__", "environment")
    episodes = tuple(episode for part, _ in ended for episode in part)
    return Rollouts(name, episodes, way_names, rate, np.concatenate([seconds for _, seconds in ended]))


def _described(make: Make) -> tuple[tuple[str, ...], float | None]:
    env = make()
    try:
        return tuple(getattr(env.unwrapped, "way_names", ())), getattr(env.unwrapped, "rate", None)
    finally:
        env.close()


class _Fleet:
    """The robots of one process, and the seeds that they work through."""

    def __init__(
        self,
        policy: Actor,
        make: Make,
        seeds: Sequence[int],
        robots: int,
        options: Mapping[str, Any] | None,
        random_state: int,
        frames: bool,
    ) -> None:
        self.policy, self.make, self.seeds, self.robots = policy, make, list(seeds), robots
        self.options, self.random_state, self.frames = options, random_state, frames

    def run(self, progress: Callable[[int, int], None] | None = None) -> tuple[list[Episode], np.ndarray]:
        """Return the episodes in the order of the seeds, and the wall time of each planning call."""
        execution = self.policy.start(robots=self.robots, random_state=self.random_state)
        fleet = [_Robot(self.make, self.options, self.frames) for _ in range(self.robots)]
        waiting, ended, tick = deque(self.seeds), {}, 0

        def over(episode: Episode) -> None:
            ended[episode.seed] = episode
            if progress is not None:
                progress(len(ended), len(self.seeds))

        while True:
            if tick % self.policy.execution_horizon == 0:
                idle = [index for index, robot in enumerate(fleet) if not robot.running]
                for robot in (fleet[index] for index in idle):
                    while waiting and not robot.running:
                        crash = robot.begin(waiting.popleft())
                        if crash is not None:
                            over(crash)
                execution.reset(idle)  # those that stay idle, too: so all plan in the same call
            if not any(robot.running for robot in fleet):
                if not waiting:
                    break
                tick = 0
                continue
            actions = np.asarray(execution.act(_stacked(fleet)))
            for robot, action, planned in zip(fleet, actions, execution.planned, strict=True):
                if robot.running:
                    episode = robot.step(action, bool(planned))
                    if episode is not None:
                        over(episode)
            tick += 1
        for robot in fleet:
            robot.close()
        return [ended[seed] for seed in self.seeds], np.asarray(execution.seconds, dtype=np.float64)


def _stacked(fleet: Sequence[_Robot]) -> dict[str, np.ndarray]:
    """Return the observations of all robots; those that are idle show their last one, or another's."""
    known = next(robot.observation for robot in fleet if robot.running)
    seen = [robot.observation or known for robot in fleet]
    return {name: np.stack([observation[name] for observation in seen]) for name in known}


class _Robot:
    """One environment, and the episode that goes on in it."""

    def __init__(self, make: Make, options: Mapping[str, Any] | None, frames: bool) -> None:
        self.make, self.options, self.with_frames = make, options, frames
        self.env: Any = None
        self.running = False
        self.observation: dict[str, np.ndarray] = {}

    def begin(self, seed: int) -> Episode | None:
        """Begin an episode; if the environment crashes at once, return what there is of it."""
        self.seed, self.running = seed, True
        self.rewards: list[float] = []
        self.actions: list[np.ndarray] = []
        self.planned: list[bool] = []
        self.leaning: list[int] = []
        self.frames: list[np.ndarray] = []
        self.success, self.collided = False, None
        try:
            if self.env is None:
                self.env = self.make()
            seen, _ = self.env.reset(seed=seed, options=None if self.options is None else dict(self.options))
            self.observation = _named(seen)
            self._render()
        except Exception as error:
            return self._crashed(error)
        return None

    def step(self, action: np.ndarray, planned: bool) -> Episode | None:
        """Act, and return the episode if it is over."""
        try:
            seen, reward, ended, cut, info = self.env.step(action)
            leaning = int(getattr(self.env.unwrapped, "leaning", UNDECIDED))
            self.observation = _named(seen)
            self._render()
        except Exception as error:
            return self._crashed(error)
        self.actions.append(np.array(action))
        self.planned.append(planned)
        self.rewards.append(float(reward))
        self.leaning.append(leaning)
        self.success = self.success or bool(info.get("is_success", False))
        if "collided" in info:
            self.collided = bool(self.collided) or bool(info["collided"])
        late = len(self.rewards) >= getattr(self.env.unwrapped, "max_steps", math.inf)
        return self._episode() if ended or cut or late else None

    def _render(self) -> None:
        if self.with_frames:
            self.frames.append(np.asarray(self.env.render()))

    def _episode(self, error: str | None = None) -> Episode:
        self.running = False
        told = error is None and hasattr(self.env.unwrapped, "path")
        return Episode(
            self.seed,
            np.array(self.rewards),
            np.array(self.actions),
            np.array(self.planned, dtype=bool),
            np.array(self.leaning, dtype=np.int64),
            np.array(self.env.unwrapped.path(), dtype=np.float64) if told else np.zeros((0, 2)),
            UNDECIDED if error is not None else int(getattr(self.env.unwrapped, "way", UNDECIDED)),
            self.success,
            self.collided,
            error,
            np.stack(self.frames) if self.frames else None,
        )

    def _crashed(self, error: Exception) -> Episode:
        episode = self._episode(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
        self.close()
        return episode

    def close(self) -> None:
        """Let the environment go; the next episode makes a new one."""
        env, self.env = self.env, None
        if env is not None:
            with contextlib.suppress(Exception):  # after a crash it may not even close
                env.close()


def _named(observation: Any) -> dict[str, np.ndarray]:
    if isinstance(observation, Mapping):
        return {name: np.asarray(values) for name, values in observation.items()}
    return {STATE: np.asarray(observation)}
