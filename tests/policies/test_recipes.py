"""Recipes: every one of them fits, acts and comes back from its file."""

from __future__ import annotations

import numpy as np
import pytest

from everymode.errors import SettingError
from everymode.policies import Demonstrations, load_policy, recipes

TINY = {
    "width": 16,
    "depth": 1,
    "steps": 4,
    "batch_size": 16,
    "precision": "float32",
    "validation_fraction": 0.0,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def demonstrations() -> Demonstrations:
    """Episodes with numbers and a task, shorter than most horizons."""
    rng, lengths = np.random.default_rng(0), [9, 6, 12, 3, 10] * 3
    steps = sum(lengths)
    observations = {
        "state": rng.normal(size=(steps, 4)),
        "task": np.repeat(["lift", "push", "lift"] * 5, lengths),
    }
    return Demonstrations(observations, rng.normal(size=(steps, 2)), np.cumsum(lengths), angles={"state": (3,)})


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_fits_acts_and_comes_back_from_its_file(name, demonstrations, tmp_path):
    policy = recipes.get(name, **TINY).fit(demonstrations)
    assert policy.family_.name == recipes.recipe(name).family
    now = {key: values[:3] for key, values in demonstrations.observations.items()}
    seen = {key: np.repeat(values[:, None], policy.observation_horizon, axis=1) for key, values in now.items()}
    chunks = policy.act_chunk(seen, random_state=1)
    assert chunks.shape == (3, policy.prediction_horizon, 2)
    assert np.isfinite(chunks).all()
    execution = policy.start(3, random_state=1)
    np.testing.assert_allclose(execution.act(now), chunks[:, 0], atol=1e-5)
    loaded = load_policy(policy.save(tmp_path / "policy.safetensors"))
    np.testing.assert_allclose(loaded.act_chunk(seen, random_state=1), chunks, atol=1e-6)
    assert (loaded.nfe, loaded.n_parameters_) == (policy.nfe, policy.n_parameters_)


@pytest.mark.parametrize(("name", "width"), [("flow_policy", 256), ("diffusion_policy", 32), ("lstm_gmm", 128)])
def test_the_width_suits_the_network(name, width, demonstrations):
    """A U-Net widens by itself, and a core is to train it."""
    policy = recipes.get(name, **{**TINY, "width": None, "steps": 1}).fit(demonstrations)
    assert policy.width_ == width


def test_a_policy_sees_pictures():
    """The action is the place of a bright square: only the picture tells it."""
    rng, steps = np.random.default_rng(0), 240
    places = rng.integers(0, 12, (steps, 2))
    pictures = np.zeros((steps, 16, 16, 3), dtype=np.uint8)
    for picture, (row, column) in zip(pictures, places, strict=True):
        picture[row : row + 4, column : column + 4] = 255
    shown = Demonstrations({"image": pictures}, places / 12.0, np.arange(1, steps + 1))
    policy = recipes.get("mse", observation_horizon=1, prediction_horizon=1, execution_horizon=1)
    policy.set_params(**{**TINY, "width": 64, "steps": 80, "batch_size": 32}).fit(shown)
    told = policy.act_chunk({"image": pictures[:, None]})[:, 0]
    # untold, the error would be the variance
    assert np.mean((told - places / 12.0) ** 2) < 0.3 * np.var(places / 12.0)


def test_settings_take_the_place_of_the_recipes():
    policy = recipes.get("flow_policy", family__steps=3, prediction_horizon=5, execution_horizon=2)
    assert (policy.nfe, policy.prediction_horizon) == (3, 5)
    assert recipes.get("flow_policy").nfe == 10
    assert recipes.get("diffusion_policy", network="transformer").network == "transformer"


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("flow_polic", {}, "Unknown recipe 'flow_polic'. Did you mean 'flow_policy'"),
        ("flow_policy", {"horizon": 3}, "parameter of recipe 'flow_policy' 'horizon'"),
        ("flow_policy", {"family__step": 3}, "setting of family 'flow_matching' 'step'"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(name, settings, said):
    with pytest.raises(SettingError, match=said):
        recipes.get(name, **settings)
