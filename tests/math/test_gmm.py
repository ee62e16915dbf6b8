"""A joint mixture of normals, conditioned: closed forms, ratios of densities, and the number of components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import everymode as em
from everymode.errors import SettingError
from everymode.randomness import new_generator
from everymode.spaces import TableSpace, VectorSpace


def unit(d):
    """A space whose values are standardised already."""
    return VectorSpace((d,), (0.0,) * d, (1.0,) * d)


def fitted(x, y, **settings):
    """A mixture of x (rows, k) and y (rows, d), fitted as they are."""
    family = em.GMM(**settings).build(unit(y.shape[1]), unit(x.shape[1]))
    for _ in family.solve(
        torch.from_numpy(y).float(), torch.from_numpy(x).float(), held_out=None, seed=0, seconds=None
    ):
        pass
    return family


def clusters(k, rows=1500, seed=0):
    """Values (rows, 2) in k round clusters on a circle, twelve deviations and more apart."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(k, size=rows) / k
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal(size=(rows, 2))


def test_one_component_is_the_conditional_of_a_normal():
    """E[y | x] = b + C A^-1 (x - a), and the covariance B - C A^-1 C'."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    joint = rng.normal(size=(20_000, 4)) @ mixing.T
    family = fitted(joint[:, :2], joint[:, 2:], components=1, reg_covar=1e-9)
    mean, cov = joint.mean(axis=0), np.cov(joint.T, bias=True)
    x = np.array([[0.3, -1.2], [2.0, 0.5], [-4.0, 6.0]])
    gain = cov[2:, :2] @ np.linalg.inv(cov[:2, :2])
    left = cov[2:, 2:] - gain @ cov[:2, 2:]
    wanted = mean[2:] + (x - mean[:2]) @ gain.T
    told = family.encode(torch.from_numpy(x).float())
    np.testing.assert_allclose(told["means"][:, 0].numpy(), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose((family.y_factors[0] @ family.y_factors[0].T).numpy(), left, rtol=1e-4, atol=1e-4)
    y = torch.tensor([[0.5, -0.7]]).expand(3, 2)
    density = [multivariate_normal(m, left).logpdf(y[0].numpy()) for m in wanted]
    log_prob = family.log_prob(y, torch.from_numpy(x).float())
    np.testing.assert_allclose(log_prob.numpy(), density, rtol=1e-3, atol=1e-3)


def test_the_conditional_density_is_the_joint_over_the_marginal():
    """p(y | x) = p(x, y) / p(x), the marginal being the numerical integral of the joint over y."""
    values = clusters(3)
    family = fitted(values[:, :1], values[:, 1:], components=3)
    from sklearn.mixture import GaussianMixture

    joint = GaussianMixture(3, reg_covar=1e-4, random_state=0).fit(values)
    line = np.linspace(-3, 3, 6001)
    for x in (-0.5, 0.2, 1.0):
        both = np.exp(joint.score_samples(np.stack([np.full_like(line, x), line], axis=1)))
        wanted = both / (both.sum() * (line[1] - line[0]))
        with torch.no_grad():
            log_prob = family.log_prob(torch.from_numpy(line)[:, None].float(), torch.full((len(line), 1), x))
        told = log_prob.exp().numpy()
        assert np.abs(told - wanted).max() < 0.01 * wanted.max()


def test_draws_follow_the_conditional_density():
    values = clusters(4)
    family = fitted(values[:, :1], values[:, 1:])
    x = torch.zeros(1, 1)  # two clusters, above and below
    draws = family.sample(x, 20_000, generator=new_generator(1))[:, 0].numpy()
    edges = np.linspace(-1.5, 1.5, 61)
    middle = torch.from_numpy((edges[1:] + edges[:-1]) / 2).float()[:, None]
    with torch.no_grad():
        wanted = family.log_prob(middle, x.expand(60, 1)).exp().numpy() * (edges[1] - edges[0])
    found = np.histogram(draws, edges)[0] / len(draws)
    assert np.abs(found - wanted).sum() / 2 < 0.05  # total variation
    assert 0.4 < (draws > 0).mean() < 0.6


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_bic_finds_the_number_of_clear_clusters(k):
    values = clusters(k) if k > 1 else np.random.default_rng(0).normal(size=(1500, 2))
    assert len(fitted(values[:, :1], values[:, 1:]).log_weights) == k


def test_categories_choose_the_answer():
    """y is -1 for one letter and 1 for the other: draws for a letter are its own."""
    rng = np.random.default_rng(0)
    letters = np.array(list("ab"))[rng.integers(2, size=600)]
    y = np.where(letters == "a", -1.0, 1.0)[:, None] + 0.1 * rng.normal(size=(600, 1))
    space = TableSpace.fit({"letter": letters}, categorical=["letter"])
    family = em.GMM().build(VectorSpace.fit(y), space)
    for _ in family.solve(
        family.y_space.encode(y), space.encode({"letter": letters}), held_out=None, seed=0, seconds=None
    ):
        pass
    draws = family.sample(space.encode({"letter": np.array(["a", "b"])}), 200, generator=new_generator(0))
    drawn = family.y_space.decode(draws).reshape(2, 200)
    assert (drawn[0] < 0).all()
    assert (drawn[1] > 0).all()


HARD = {
    "constant columns": lambda rng: (np.c_[rng.normal(size=(200, 1)), np.ones((200, 2))], rng.normal(size=(200, 1))),
    "duplicated rows": lambda rng: (
        np.repeat(rng.normal(size=(5, 2)), 40, 0),
        np.repeat(rng.normal(size=(5, 2)), 40, 0),
    ),
    "twenty rows": lambda rng: (rng.normal(size=(20, 3)), rng.normal(size=(20, 2))),
    "64 outputs": lambda rng: (rng.normal(size=(100, 2)), rng.normal(size=(100, 64))),
    "heavy tails": lambda rng: (rng.normal(size=(300, 1)), rng.standard_t(1, size=(300, 1))),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_data_leave_finite_numbers(case):
    """Warnings are errors here, so none leaks either."""
    x, y = HARD[case](np.random.default_rng(0))
    model = em.OneToManyRegressor("gmm", random_state=0, device="cpu").fit(x, y)
    assert np.isfinite(model.sample(x, 5)).all()
    assert all(torch.isfinite(value).all() for value in model.family_.state_dict().values())
    space, family = model.x_space_, model.family_
    with torch.no_grad():
        assert torch.isfinite(family.log_prob(model.y_space_.encode(y), space.encode(x))).all()


def test_more_components_than_rows_are_refused():
    with pytest.raises(SettingError, match="components=50 of 10 rows"):
        fitted(np.zeros((10, 1)), np.zeros((10, 1)), components=50)
