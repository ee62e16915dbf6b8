"""What holds for every environment with a demonstrator: gymnasium's contract, seeds, weights, success."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.stats import binomtest

from everymode.errors import DataError, SettingError
from everymode.policies import environments

EPISODES = {"Obstacle": 300, "Avoiding": 300, "BlockPush": 100}
SCRIPTED = list(EPISODES)


@pytest.fixture(scope="module", params=SCRIPTED)
def shown(request):
    """An environment, its demonstrations, and how each of them ended: success and way."""
    environment, ended = environments.make(request.param), []
    step = environment.step

    def watched(action):
        answer = step(action)
        if answer[2] or answer[3]:
            ended.append((answer[4]["is_success"], environment.way, environment.leaning, environment.path()))
        return answer

    environment.step = watched
    return environment, environment.demonstrate(EPISODES[request.param]), ended


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")  # actions are in units of the scene
@pytest.mark.parametrize("name", SCRIPTED)
def test_gymnasium_finds_nothing_amiss(name):
    check_env(gym.make(f"everymode/{name}-v0", disable_env_checker=True).unwrapped)


def test_every_demonstration_succeeds_by_the_way_it_set_out_for(shown):
    _, demonstrations, ended = shown
    success, ways, leanings, paths = zip(*ended, strict=True)
    assert all(success)
    assert list(ways) == list(leanings) == demonstrations.ways.tolist()
    assert [len(path) - 1 for path in paths] == demonstrations.lengths.tolist()
    starts = demonstrations.observations["state"][demonstrations.starts, :2]
    assert np.allclose([path[0] for path in paths], starts)


def test_ways_occur_with_their_weights(shown):
    environment, demonstrations, _ = shown
    counts = np.bincount(demonstrations.ways, minlength=len(environment.way_names))
    for way, (count, weight) in enumerate(zip(counts, environment.way_weights, strict=True)):
        chance = binomtest(int(count), demonstrations.n_episodes, weight).pvalue
        assert chance > 1e-3 / len(counts), f"{environment.way_names[way]}: {count} of {demonstrations.n_episodes}"


def test_an_episode_is_a_function_of_its_seed(shown):
    environment, demonstrations, _ = shown
    later = environment.demonstrate(2, seed=7)
    for again, episode in zip(later, (7, 8), strict=True):
        rows = demonstrations.episode(episode)
        assert np.array_equal(later.actions[again], demonstrations.actions[rows])
        assert np.array_equal(later.observations["state"][again], demonstrations.observations["state"][rows])


@pytest.mark.parametrize("name", SCRIPTED)
def test_an_episode_ends_at_max_steps(name):
    environment = environments.make(name)
    environment.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        _, _, ended, truncated, _ = environment.step([0.0, 0.0])
        assert not ended
        steps += 1
    assert steps == environment.max_steps
    assert environment.way == -1


@pytest.mark.parametrize("name", SCRIPTED)
def test_pictures_show_the_robot_where_it_is(name):
    environment = environments.make(name, render_mode="rgb_array")
    environment.reset(seed=0)
    before = environment.render()
    for _ in range(8):
        environment.step(environment.intend(0))
    after = environment.render()
    assert before.dtype == np.uint8
    assert before.shape == after.shape
    changed = np.abs(after.astype(int) - before).max(axis=2) > 30
    assert 0 < changed.mean() < 0.02


def test_what_cannot_be_made_is_told():
    with pytest.raises(SettingError, match="Did you mean 'Obstacle'"):
        environments.make("Obstacles")
    with pytest.raises(SettingError, match=r"Unknown setting of Obstacle 'weight'\. Did you mean 'weights'"):
        environments.make("everymode/Obstacle-v0", weight=0.5)
    with pytest.raises(SettingError, match="at least 0 and at most 1"):
        environments.make("Obstacle", weights=1.5)
    environment = environments.make("Obstacle")
    with pytest.raises(SettingError, match="symmetric"):
        environment.reset(options={"symetric": True})
    environment.reset(seed=0)
    with pytest.raises(DataError, match="finite numbers"):
        environment.step([np.nan, 0.0])
    with pytest.raises(DataError, match=r"shape \(2,\)"):
        environment.step([0.0])
