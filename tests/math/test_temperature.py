"""Draws from p^(1 / T): numbers for every family that has a temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import everymode as em
from everymode.control import Control
from everymode.errors import SettingError, UnsupportedError
from everymode.families import get_family, names
from everymode.paths import get_path
from everymode.randomness import new_generator
from everymode.solvers import get_method, karras_grid, time_grid
from everymode.spaces import VectorSpace
from everymode.temperature import STEPS

ABLE = [name for name in names() if get_family(name).abilities.temperature]
SETTINGS = {"width": 32, "depth": 2, "steps": 300, "random_state": 0, "precision": "float32"}


def test_these_have_one():
    assert set(ABLE) >= {"gaussian", "mdn", "gmm", "normalizing_flow", "flow_matching", "diffusion"}


class Mixture:
    """Round normals on a line or in a plane, with their exact E[y | y_t] on a path."""

    def __init__(self, means, scale, weights, path="linear") -> None:
        self.path, self.scale = get_path(path), scale
        self.means, self.weights = (torch.tensor(part, dtype=torch.float64) for part in (means, weights))

    def data(self, y_t, t):
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        away = y_t[:, None] - alpha * self.means
        variance = (alpha * self.scale) ** 2 + sigma**2
        shares = (self.weights.log() - away.square().sum(-1) / (2 * variance)).softmax(1)
        return (shares[..., None] * (self.means + alpha * self.scale**2 / variance * away)).sum(1)

    def draw(self, temperature, n, method="midpoint", steps=40):
        generator, method = new_generator(0), get_method(method, prefer="sampler")
        shape = (n, self.means.shape[1])
        start = self.path.prior_scale * torch.randn(shape, dtype=torch.float64, generator=generator)
        times = karras_grid(self.path, steps) if hasattr(method, "states") else time_grid(steps)
        with torch.no_grad():
            draws = Control(temperature=temperature).draw(self.data, start, times, self.path, method, generator)
        nearest = torch.cdist(draws, self.means).argmin(1)
        shares = torch.bincount(nearest, minlength=len(self.means)) / n
        away = (draws - self.means[nearest]).abs() / self.scale
        outside = float((away > 4 * math.sqrt(temperature)).double().mean())
        return shares, float(away.median()) / 0.6745, outside  # the spread of a normal by its median


# Flows, with exact data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize(("path", "method"), [("linear", "rk4"), ("cosine", "dpm_solver_2m"), ("ve", "unipc")])
@pytest.mark.parametrize("temperature", [0.25, 2.0])
def test_a_normal_of_any_width_is_exact(path, method, temperature, scale):
    _, spread, _ = Mixture([[0.4, -0.2]], scale, [1.0], path).draw(temperature, 4000, method, 60)
    # what little noise 've' keeps at t = 1 counts at a low temperature
    assert spread == pytest.approx(math.sqrt(temperature), rel=0.08 if path == "ve" else 0.04)


def test_what_it_does_to_several_answers():
    """The numbers of the module's docstring."""
    fork = Mixture([[-1.0], [1.0]], 1 / 12, [0.5, 0.5])
    for temperature in (0.25, 0.5, 2.0):
        shares, spread, outside = fork.draw(temperature, 4000, "ddpm", STEPS)
        assert float(shares[0]) == pytest.approx(0.5, abs=0.03)
        assert spread == pytest.approx(math.sqrt(temperature), rel=0.11)
        assert outside < 0.002
    _, spread, outside = fork.draw(0.25, 4000, "midpoint")
    assert spread == pytest.approx(2 * 0.5, rel=0.1)
    assert outside > 0.03
    uneven = Mixture([[-0.3], [3.0]], 0.2, [0.9, 0.1])
    for temperature, share in ((0.5, 0.98), (2.0, 0.80)):
        assert float(uneven.draw(temperature, 4000, "ddpm", STEPS)[0][0]) == pytest.approx(share, abs=0.02)
    row = Mixture([[-1.2], [0.0], [1.2]], 0.1, [1 / 3] * 3)
    middle = {at: float(row.draw(at, 4000, "ddpm", STEPS)[0][1]) for at in (0.25, 0.5, 2.0)}
    assert middle == pytest.approx({0.25: 0.59, 0.5: 0.44, 2.0: 0.28}, abs=0.03)


# Families ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normal():
    """y given x is N((x, 1), .5^2 I)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 1))
    return x, np.concatenate([x, np.ones_like(x)], axis=1) + 0.5 * rng.normal(size=(1500, 2))


@pytest.mark.parametrize("family", ABLE)
def test_the_standard_deviations_of_a_normal_change_by_its_square_root(normal, family):
    model = em.OneToManyRegressor(family, **SETTINGS).fit(*normal)
    x = np.linspace(-1, 1, 3)[:, None]
    plain = model.sample(x, 400)
    assert np.array_equal(plain, model.sample(x, 400, temperature=1.0))
    for temperature in (0.25, 1.5):
        draws = model.sample(x, 400, temperature=temperature)
        ratio = draws.std(axis=1).mean() / plain.std(axis=1).mean()
        assert ratio == pytest.approx(math.sqrt(temperature), rel=0.09)
        np.testing.assert_allclose(draws.mean(axis=1), plain.mean(axis=1), atol=0.2)


def test_a_mixture_is_exact_also_where_components_are_copies():
    """Two answers of .8 and .2, the first told by three like components: T = .5 makes .64 / .68 and .04 / .68."""
    one = VectorSpace.fit(np.array([[0.0], [2.0]]))
    family = get_family("mdn", {"components": 4}).build(one, one, width=8, depth=1)
    mixture = {
        "log_weights": torch.tensor([[0.5, 0.2, 0.1, 0.2]]).log().expand(20_000, -1),
        "means": torch.tensor([[[-1.0], [-1.0], [-1.0], [1.0]]]).expand(20_000, -1, -1),
        "scales": torch.full((20_000, 4, 1), 0.1),
    }
    draws = family.controlled(mixture, Control(temperature=0.5), generator=new_generator(0))[:, 0]
    assert float((draws < 0).float().mean()) == pytest.approx(0.64 / 0.68, abs=0.015)
    assert float(draws[draws < 0].std()) == pytest.approx(0.1 * math.sqrt(0.5), rel=0.03)


def test_wider_components_lose():
    """Of equal weights, scales 1 and 2 in two dimensions: weights go as scale^(2 (1 - 1 / T)), 4 to 1 at T = .5."""
    plane = VectorSpace.fit(np.array([[0.0, 0.0], [2.0, 2.0]]))
    family = get_family("mdn", {"components": 2, "covariance": "diagonal"}).build(plane, plane, width=8, depth=1)
    mixture = {
        "log_weights": torch.zeros(20_000, 2),
        "means": torch.tensor([[[-20.0, 0.0], [20.0, 0.0]]]).expand(20_000, -1, -1),
        "scales": torch.tensor([[[1.0, 1.0], [2.0, 2.0]]]).expand(20_000, -1, -1),
    }
    draws = family.controlled(mixture, Control(temperature=0.5), generator=new_generator(0))
    assert float((draws[:, 0] < 0).float().mean()) == pytest.approx(0.8, abs=0.015)


def test_it_goes_with_known_values():
    """Of a normal with correlation .8, y_2 given y_1 = 1 has mean .8 and variance .36 T."""
    rng = np.random.default_rng(0)
    y = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 2000)
    model = em.OneToManyRegressor("diffusion", **SETTINGS).fit(rng.normal(size=(2000, 1)), y)
    draws = model.sample(np.zeros((1, 1)), 1000, known=[1.0, np.nan], temperature=0.25, resamplings=2)
    assert (draws[..., 0] == 1).all()
    assert draws[..., 1].mean() == pytest.approx(0.8, abs=0.15)
    assert draws[..., 1].std() == pytest.approx(0.3, abs=0.08)


# Bad input ---------------------------------------------------------------------------------------------------------


def test_a_family_without_one_names_those_that_have_it(normal):
    model = em.OneToManyRegressor("vae", **{**SETTINGS, "steps": 5}).fit(*normal)
    with pytest.raises(UnsupportedError, match=r"'vae' has no temperature; these have one: gaussian, .*diffusion"):
        model.sample(np.zeros((1, 1)), temperature=0.5)
    for wrong in (0, -1.0, math.inf, "hot"):
        with pytest.raises(SettingError, match="temperature"):
            model.sample(np.zeros((1, 1)), temperature=wrong)
