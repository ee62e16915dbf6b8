"""Push-T: the physics repeats the published demonstrations, and what is made quicker gives the same."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from everymode.errors import DataError, SettingError, UnsupportedError
from everymode.policies import environments


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
@pytest.mark.parametrize("image", [False, True])
def test_gymnasium_finds_nothing_amiss(image):
    check_env(environments.make("PushT", image=image), skip_render_check=True)


@pytest.mark.data
def test_golden_trajectories(data_folder):
    """Demonstrations replayed from their first states end where they ended."""
    file = data_folder / "pusht_lowdim.npz"
    if not file.is_file():
        pytest.skip(f"no demonstrations at {file}")
    with np.load(file) as data:
        states, actions, ends = data["state"], data["action"], data["episode_ends"]
    environment, errors = environments.make("PushT"), []
    for episode in range(0, len(ends), 20):
        rows = np.arange(ends[episode - 1] if episode else 0, ends[episode])
        state, _ = environment.reset(seed=0, options={"state": states[rows[0]]})
        assert np.allclose(state, states[rows[0]], atol=1e-4)
        for row in rows[:-1]:
            state = environment.step(actions[row])[0]
        errors.append(np.abs(state - states[rows[-1]])[:4].max())  # pixels
    assert np.median(errors) < 5e-5
    assert max(errors) < 1e-2


def test_coverage_and_pixels_are_those_of_gym_pusht():
    environment = environments.make("PushT", image=True)
    table, plain = environment._table, type(environment._table).__mro__[1]
    rng = np.random.default_rng(0)
    for angle in rng.uniform(0, 2 * np.pi, 20):
        environment.reset(seed=0, options={"state": [50, 50, *rng.uniform(200, 312, 2), angle]})
        for _ in range(2):  # the second time, nothing has moved
            seen, _, _, _, info = environment.step([50, 50])
            assert info["coverage"] == pytest.approx(plain._get_coverage(table), abs=1e-12)
        assert np.array_equal(seen["image"], plain._get_img(table, table._draw(), 96, 96))


def test_a_block_on_its_outline_succeeds():
    environment = environments.make("PushT")
    state, info = environment.reset(seed=0, options={"state": [50, 50, 256, 256, np.pi / 4]})
    assert not info["is_success"]
    _, reward, ended, truncated, info = environment.step([50, 50])
    assert ended
    assert not truncated
    assert info["is_success"]
    assert reward == 1
    assert state[4] == pytest.approx(np.pi / 4)


def test_an_episode_is_a_function_of_its_seed_and_ends_after_300_steps():
    first, second = environments.make("PushT"), environments.make("PushT")
    assert np.array_equal(first.reset(seed=3)[0], second.reset(seed=3)[0])
    assert not np.array_equal(first.reset(seed=3)[0], second.reset(seed=4)[0])
    first.reset(seed=3)
    ends = [first.step([10.0, 10.0])[2:4] for _ in range(300)]
    assert ends[:-1] == [(False, False)] * 299
    assert ends[-1] == (False, True)
    assert first.path().shape == (301, 2)


def test_pixels_and_pictures_show_the_pusher():
    environment = environments.make("PushT", image=True, render_mode="rgb_array")
    seen, _ = environment.reset(seed=0, options={"state": [128, 384, 300, 100, 0]})
    assert seen["state"].tolist() == [128, 384]
    blue = np.argwhere((seen["image"][..., 2] > 150) & (seen["image"][..., 0] < 90))
    assert np.allclose(blue.mean(axis=0), [72, 24], atol=1)  # row, column: 96 pixels for 512
    picture = environment.render()
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8


def test_what_push_t_cannot_do_is_told():
    with pytest.raises(UnsupportedError, match="no scripted demonstrator"):
        environments.demonstrate("PushT", 2)
    with pytest.raises(SettingError, match="Unknown option of reset in PushT 'symmetric'"):
        environments.make("PushT").reset(options={"symmetric": True})
    with pytest.raises(DataError, match="five finite numbers"):
        environments.make("PushT").reset(options={"state": [1.0, 2.0]})
