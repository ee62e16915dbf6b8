"""The kitchen, through gymnasium-robotics: what is told where it is missing or too new, and the wrapper over it."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest

from everymode.errors import MissingExtraError, SettingError, UnsupportedError
from everymode.policies import environments
from everymode.policies.environments import kitchen

MEND = r'pip install "gymnasium-robotics==1\.4\.2" "mujoco<3\.4"'


def test_a_missing_package_is_named_with_what_mends_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(kitchen, "version", missing)
    with pytest.raises(MissingExtraError, match=MEND):
        environments.make("Kitchen")
    with pytest.raises(UnsupportedError, match="no scripted demonstrator"):
        environments.demonstrate("Kitchen")


def test_a_mujoco_that_is_too_new_is_named(monkeypatch):
    monkeypatch.setattr(kitchen, "version", lambda name: "3.4.0")
    with pytest.raises(MissingExtraError, match=rf"below 3\.4, but 3\.4\.0 is installed: {MEND}"):
        environments.make("Kitchen")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks": ["microwave", "toaster"]}, "toaster"),
        ({"tasks": []}, "at least one"),
        ({"tasks": ["kettle", "kettle"], "enough": 1}, "each once"),
        ({"tasks": ["kettle"], "enough": 2}, "at most 1"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(SettingError, match=said):
        environments.make("Kitchen", **settings)


class FakeKitchen:
    """A kitchen in which an action's first value says what is done: 0.5 the microwave, -0.5 the kettle."""

    def __init__(self, tasks, terminate_on_tasks_completed):
        from gymnasium.spaces import Box, Dict

        self.tasks, self.done = tasks, []
        self.observation_space = Dict({"observation": Box(-np.inf, np.inf, (59,))})
        self.action_space = Box(-1, 1, (9,))
        self.data = self

    def site(self, name):
        return type("Site", (), {"xpos": np.arange(3.0)})

    def reset(self, seed):
        self.done = []
        return {"observation": np.zeros(59)}, {}

    def step(self, action):
        task = {0.5: "microwave", -0.5: "kettle"}.get(action[0])
        if task and task not in self.done:
            self.done.append(task)
        return {"observation": np.zeros(59)}, 0.0, False, False, {"episode_task_completions": self.done}


def test_ways_are_the_sets_of_tasks_done(monkeypatch):
    monkeypatch.setattr(kitchen, "_kitchen", lambda: FakeKitchen)
    environment = environments.make("Kitchen", enough=2)
    assert len(environment.way_names) == 21  # 7 choose 2
    for order in ((0.5, -0.5), (-0.5, 0.5)):
        state, _ = environment.reset(seed=0)
        assert environment.observation_space.contains(state)
        answers = [environment.step([value, *[0.0] * 8]) for value in (0.0, *order)]
        assert [answer[1] for answer in answers] == [0.0, 0.5, 1.0]
        assert [answer[2] for answer in answers] == [False, False, True]
        assert answers[-1][4]["is_success"]
        assert set(environment.way_names[environment.way].split(", ")) == {"microwave", "kettle"}
    assert environment.path().tolist() == [[0.0, 2.0]] * 4
