"""Franka Kitchen: an arm that does several of seven things in a kitchen. The physics is gymnasium-robotics', as it is.

References:
    Relay policy learning: solving long-horizon tasks via imitation and reinforcement learning (Gupta et al., 2019),
        https://arxiv.org/abs/1910.11956
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from matplotlib.axes import Axes

from everymode.errors import MissingExtraError, SettingError, check_choice, check_number
from everymode.policies.environments.base import Environment

__all__ = ["Kitchen"]

_TASKS = ("bottom burner", "top burner", "light switch", "slide cabinet", "hinge cabinet", "microwave", "kettle")
_SITES = {
    "light switch": "light_site",
    "slide cabinet": "slide_site",
    "hinge cabinet": "hinge_site2",
    "microwave": "microhandle_site",
    "kettle": "kettle_site",
}
_MEND = 'pip install "gymnasium-robotics==1.4.2" "mujoco<3.4"'


class Kitchen(Environment):
    """Open, switch or move `enough` of the things in a kitchen, within 280 steps.

    A way is the set of the first `enough` tasks done. The reward is the share of them done so far; `info["tasks"]`
    names those done, in order, and the field's p1 to p4 are how often it came to 1 to 4. `enough` of them end the
    episode with success.

    Observation (59,): positions and velocities of the arm, then of the things, with gymnasium-robotics' noise. Action
    (9,): joint velocities, in [-1, 1].

    Args:
        tasks: what counts.
        enough: how many tasks end the episode; demonstrators do 4 of the seven.
        render_mode: 'rgb_array' or None.

    Raises:
        MissingExtraError: gymnasium-robotics or mujoco is not installed, or mujoco is too new for it.
    """

    name = "Kitchen"
    rate = 12.5
    max_steps = 280
    no_script = "Kitchen has no scripted demonstrator: read the published demonstrations with read_demonstrations."

    def __init__(self, *, tasks: Sequence[str] = _TASKS, enough: int = 4, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.tasks = tuple(check_choice("tasks", task, _TASKS) for task in tasks)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise SettingError(f"tasks={tasks!r}: name at least one task, and each once.")
        self.goals = self.enough = check_number("enough", enough, 1, len(self.tasks), integer=True)
        self._sets = list(combinations(range(len(self.tasks)), self.enough))
        self.way_names = tuple(", ".join(self.tasks[task] for task in chosen) for chosen in self._sets)
        self._kitchen = _kitchen()(list(self.tasks), terminate_on_tasks_completed=False)
        self.observation_space = Box(-np.inf, np.inf, self._kitchen.observation_space["observation"].shape, np.float32)
        self.action_space = Box(-1.0, 1.0, self._kitchen.action_space.shape, np.float32)
        self._cameras: dict[int, Any] = {}

    def _observe(self, observed: Mapping[str, np.ndarray]) -> np.ndarray:
        self._path.append(self._kitchen.data.site("end_effector").xpos[[0, 2]])
        return observed["observation"].astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start an episode; see `Environment`."""
        self._start(seed, options)
        return self._observe(self._kitchen.reset(seed=seed)[0]), {"is_success": False, "tasks": []}

    def step(self, action: Any):
        """Move the arm for one step."""
        observed, _, _, _, told = self._kitchen.step(self._checked(action))
        done = list(told["episode_task_completions"])
        success = len(done) >= self.enough
        if success and self.way < 0:
            chosen = sorted(self.tasks.index(task) for task in done[: self.enough])
            self.way = self.leaning = self._sets.index(tuple(chosen))
        reward = min(len(done) / self.enough, 1.0)
        return self._observe(observed), reward, success, self._truncated, {"is_success": success, "tasks": done}

    def backdrop(self, axes: Axes) -> None:
        """Draw where the handles are, from the front: across, and height."""
        for task, site in _SITES.items():
            if task in self.tasks:
                x, _, z = self._kitchen.data.site(site).xpos
                axes.plot(x, z, "s", color="#7d848f", zorder=0)
                axes.annotate(task, (x, z), textcoords="offset points", xytext=(4, 4))
        axes.set(xlim=(-1.0, 0.3), ylim=(1.6, 2.8), aspect="equal")

    def picture(self, size: int = 256) -> np.ndarray:
        """Return the kitchen as its camera sees it, (size, size, 3) uint8; mujoco must find OpenGL (`MUJOCO_GL`)."""
        mujoco = import_module("mujoco")
        if size not in self._cameras:
            self._cameras[size] = mujoco.Renderer(self._kitchen.model, size, size)
        self._cameras[size].update_scene(self._kitchen.data)
        return self._cameras[size].render()

    def close(self) -> None:
        """Let go of the cameras."""
        for camera in self._cameras.values():
            camera.close()
        self._kitchen.close()


def _kitchen() -> type[Any]:
    """Return gymnasium-robotics' environment, or say what is missing."""
    try:
        found = version("mujoco")
        major, minor = (int(part) for part in found.split(".")[:2])
        if (major, minor) >= (3, 4):
            raise MissingExtraError(f"Kitchen needs mujoco below 3.4, but {found} is installed: {_MEND}.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notices about environments that are not asked for
            from gymnasium_robotics.envs.franka_kitchen import KitchenEnv  # pyright: ignore[reportMissingImports]
    except (PackageNotFoundError, ModuleNotFoundError) as error:
        raise MissingExtraError(f"Kitchen needs gymnasium-robotics and mujoco: {_MEND}.") from error
    return KitchenEnv
