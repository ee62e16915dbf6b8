"""Many episodes of one policy from fixed starts: robots side by side, their chunks planned in one call.

Episode i of a block starts from seed `SEED_BLOCKS[block] + i`, whatever the policy: two policies are compared on the
same starts, start by start. What a policy is chosen on and what it is reported on are different blocks.

What is the same again: the starts, and the draws of each episode, which have a seed of their own; so the whole result
for any number of robots and jobs, up to rounding: networks round otherwise in batches of another size, and an episode
may turn on that. For the same seeds, robots and jobs it is the same to the last bit on the same machine.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter, deque
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

__all__ = ["SEED_BLOCKS", "Actor", "Make", "block", "maker", "named", "roll_out"]

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

    def reset(self, robots: Sequence[int], *, random_state: Sequence[int]) -> None:
        """Begin new episodes on these robots, each with a seed for its draws."""
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
        seeds: of the starts; those that stand several times are run as often, each time with other draws.
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
    jobs = check_number("jobs", jobs, 1, 4096, integer=True)
    if not seeds:
        raise SettingError("seeds: give at least one.")
    rendered = {"render_mode": "rgb_array"} if frames and isinstance(environment, str) else {}
    make = maker(environment, **dict(settings or {}), **rendered)
    way_names, rate, goals = _described(make)
    starts, times = [], Counter[int]()
    for seed in seeds:
        starts.append((seed, mix(random_state, seed, times[seed])))
        times[seed] += 1
    jobs = min(jobs, len(starts))
    shares = [starts[len(starts) * job // jobs : len(starts) * (job + 1) // jobs] for job in range(jobs)]
    work = [_Fleet(policy, make, share, min(robots, len(share)), options, frames) for share in shares]
    if jobs == 1:
        ended = [work[0].run(progress)]
    else:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            ended: Any = Parallel(n_jobs=jobs)(delayed(_Fleet.run)(fleet) for fleet in work)
    name = environment if isinstance(environment, str) else getattr(environment, "__name__", "environment")
    episodes = tuple(episode for part, _ in ended for episode in part)
    return Rollouts(name, episodes, way_names, rate, np.concatenate([seconds for _, seconds in ended]), goals)


def _described(make: Make) -> tuple[tuple[str, ...], float | None, int]:
    env = make()
    try:
        told = env.unwrapped
        return tuple(getattr(told, "way_names", ())), getattr(told, "rate", None), int(getattr(told, "goals", 1))
    finally:
        env.close()


class _Fleet:
    """The robots of one process, and the starts that they work through: a seed, and one of the draws, of each."""

    def __init__(
        self,
        policy: Actor,
        make: Make,
        starts: Sequence[tuple[int, int]],
        robots: int,
        options: Mapping[str, Any] | None,
        frames: bool,
    ) -> None:
        self.policy, self.make, self.starts, self.robots = policy, make, list(starts), robots
        self.options, self.frames = options, frames

    def run(self, progress: Callable[[int, int], None] | None = None) -> tuple[list[Episode], np.ndarray]:
        """Return the episodes in the order of the starts, and the wall time of each planning call."""
        execution = self.policy.start(robots=self.robots, random_state=0)  # reset seeds each robot anew
        fleet = [_Robot(self.make, self.options, self.frames) for _ in range(self.robots)]
        waiting, tick = deque(range(len(self.starts))), 0
        ended: dict[int, Episode] = {}

        def over(robot: _Robot, episode: Episode) -> None:
            ended[robot.number] = episode
            if progress is not None:
                progress(len(ended), len(self.starts))

        while len(ended) < len(self.starts):
            if tick % self.policy.execution_horizon == 0:
                idle = [index for index, robot in enumerate(fleet) if not robot.running]
                for robot in (fleet[index] for index in idle):
                    while waiting and not robot.running:
                        robot.number = waiting.popleft()
                        crash = robot.begin(self.starts[robot.number][0])
                        if crash is not None:
                            over(robot, crash)
                # those that stay idle are reset, too: so all plan in the same call
                execution.reset(idle, random_state=[self.starts[fleet[index].number][1] for index in idle])
            if not any(robot.running for robot in fleet):
                tick = 0
                continue
            actions = np.asarray(execution.act(_stacked(fleet)))
            for robot, action, planned in zip(fleet, actions, execution.planned, strict=True):
                if robot.running:
                    episode = robot.step(action, bool(planned))
                    if episode is not None:
                        over(robot, episode)
            tick += 1
        for robot in fleet:
            robot.close()
        return [ended[number] for number in range(len(ended))], np.asarray(execution.seconds, dtype=np.float64)


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
        self.running, self.number = False, 0
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
            self.observation = named(seen)
            self._render()
        except Exception as error:
            return self._crashed(error)
        return None

    def step(self, action: np.ndarray, planned: bool) -> Episode | None:
        """Act, and return the episode if it is over."""
        try:
            seen, reward, ended, cut, info = self.env.step(action)
            leaning = int(getattr(self.env.unwrapped, "leaning", UNDECIDED))
            self.observation = named(seen)
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


def named(observation: Any) -> dict[str, np.ndarray]:
    """Return an observation by name; an array alone is the `state`."""
    if isinstance(observation, Mapping):
        return {name: np.asarray(values) for name, values in observation.items()}
    return {STATE: np.asarray(observation)}
