"""Inpainting against the exact conditional of mixtures of normals, and what the estimator makes of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import everymode as em
from everymode.control import Control
from everymode.errors import DataError, SettingError, UnsupportedError
from everymode.families import get_family
from everymode.inpainting import Known
from everymode.metrics import wilson_interval
from everymode.paths import get_path
from everymode.randomness import new_generator
from everymode.solvers import get_method, karras_grid, time_grid

FLOWS = ("flow_matching", "diffusion")
METHODS = ("posterior", "replacement")


class Mixture:
    """Normals in d dimensions with full covariances, scaled to unit variance, and their exact E[y | y_t] on a path."""

    def __init__(self, d: int, components: int, *, path: str = "linear", seed: int = 0) -> None:
        generator = new_generator(seed)

        def drawn(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.path, self.weights = get_path(path), (0.3 + drawn(components).abs()).log().softmax(0)
        factors = 0.1 * drawn(components, d, d) + 0.25 * torch.eye(d)
        covariances = factors @ factors.mT + 0.05**2 * torch.eye(d)
        means = drawn(components, d) * (components > 1)
        means = means - self.weights @ means
        spread = self.weights @ (means.square() + covariances.diagonal(dim1=1, dim2=2))
        self.means = means / spread.sqrt()
        self.covariances = covariances / (spread[:, None] * spread).sqrt()

    def data(self, y_t, t):
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        away = y_t[:, None] - alpha * self.means
        covariances = alpha**2 * self.covariances + sigma**2 * torch.eye(y_t.shape[1])
        log_weights = self.weights.log() + torch.distributions.MultivariateNormal(
            torch.zeros_like(self.means), covariances
        ).log_prob(away)
        slopes = alpha * torch.linalg.solve(covariances, self.covariances).mT  # (k, d, d)
        each = self.means + torch.einsum("kij,bkj->bki", slopes, away)
        return (log_weights.softmax(1)[..., None] * each).sum(1)

    def given(self, known, mask):
        """Return weights, means and covariances of the rest, given the values `known[mask]`."""
        a, b = (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]
        inner, cross = self.covariances[:, b][:, :, b], self.covariances[:, a][:, :, b]
        gain = torch.linalg.solve(inner, cross.mT).mT
        away = known[b] - self.means[:, b]
        law = torch.distributions.MultivariateNormal(torch.zeros_like(away), inner)
        weights = (self.weights.log() + law.log_prob(away)).softmax(0)
        left = self.covariances[:, a][:, :, a] - gain @ cross.mT
        return weights, self.means[:, a] + torch.einsum("kij,kj->ki", gain, away), 0.5 * (left + left.mT)

    def inpaint(self, known, mask, n, *, method="ddpm", steps=24, seed=0, settings=("posterior", 1)):
        generator, method = new_generator(seed), get_method(method, prefer="sampler")
        start = self.path.prior_scale * torch.randn(n, len(mask), dtype=torch.float64, generator=generator)
        times = karras_grid(self.path, steps) if hasattr(method, "states") else time_grid(steps)
        control = Control(Known(known.expand(n, -1), mask.expand(n, -1), *settings))
        with torch.no_grad():
            return control.draw(self.data, start, times, self.path, method, generator)


def draw(weights, means, covariances, n, generator):
    chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
    noise = torch.randn(n, means.shape[1], dtype=torch.float64, generator=generator)
    return means[chosen] + torch.einsum("bij,bj->bi", torch.linalg.cholesky(covariances)[chosen], noise)


def distance(draws, real):
    """The energy distance, without bias, in mean distances between two real draws."""
    n, m = len(draws), len(real)
    within = torch.cdist(real, real).sum() / (m * (m - 1))
    own = torch.cdist(draws, draws).sum() / (n * (n - 1))
    return float((2 * torch.cdist(draws, real).mean() - own - within) / within)


# Against the truth -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["linear", "cosine", "ve"])
@pytest.mark.parametrize("method", ["ddpm", "dpm_solver_2m", "rk4"])
def test_the_posterior_of_a_normal_is_exact(method, path):
    """One normal, three of five values known: no resampling is needed, and only the steps' own error is left."""
    mixture, mask = Mixture(5, 1, path=path, seed=3), torch.tensor([True, False, True, False, True])
    known = torch.tensor([0.7, 9.0, -0.4, 9.0, 0.2], dtype=torch.float64)
    _, mean, covariance = mixture.given(known, mask)
    draws = mixture.inpaint(known, mask, 4000, method=method, steps=40)
    assert torch.equal(draws[:, mask], known[mask].expand(4000, -1))
    rest = draws[:, ~mask]
    spread = covariance[0].diagonal().sqrt()
    assert float(((rest.mean(0) - mean[0]) / spread).abs().max()) < 0.12
    assert float((rest.std(0) / spread - 1).abs().max()) < 0.15


@pytest.mark.parametrize("method", ["ddpm", "rk4"])
def test_the_posterior_of_a_normal_given_noisy_values_is_exact(method):
    """One value known exactly, two up to noise of their own: the normal given all three, in closed form."""
    mixture, mask = Mixture(5, 1, seed=3), torch.tensor([True, False, True, False, True])
    known = torch.tensor([0.7, 9.0, -0.4, 9.0, 0.2], dtype=torch.float64)
    spread = torch.tensor([0.0, 9.0, 0.3, 9.0, 1.0], dtype=torch.float64)
    told = mixture.covariances[0][mask][:, mask] + spread[mask].square().diag()
    gain = torch.linalg.solve(told, mixture.covariances[0][mask]).mT
    mean = mixture.means[0] + gain @ (known[mask] - mixture.means[0][mask])
    covariance = mixture.covariances[0] - gain @ mixture.covariances[0][mask]
    draws = mixture.inpaint(
        known, mask, 4000, method=method, steps=40, settings=("posterior", 1, spread.expand(4000, -1))
    )
    assert (draws[:, 0] == known[0]).all()
    rest, off = draws[:, 1:], covariance.diagonal().sqrt()[1:]
    assert float(((rest.mean(0) - mean[1:]) / off).abs().max()) < 0.15
    assert float((rest.std(0) / off - 1).abs().max()) < 0.15


def test_noisy_values_are_refused_by_replacement():
    with pytest.raises(SettingError, match="takes values as exact"):
        Known(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), "replacement", 1, torch.ones(1, 2))


CASES = [(2, [1], 0), (2, [0], 1), (3, [0], 1), (3, [0, 2], 2), (5, [1, 2, 4], 0)]


def wrong(n=300, *, inpainting, resamplings):
    """The mean distance from the exact conditional over mixtures of four normals in 2 to 5 dimensions."""
    found = []
    for d, indices, seed in CASES:
        mixture, mask = Mixture(d, 4, seed=seed), torch.zeros(d, dtype=torch.bool)
        mask[indices] = True
        generator = new_generator(10 + seed)
        known = draw(mixture.weights, mixture.means, mixture.covariances, 1, generator)[0]
        real = draw(*mixture.given(known, mask), n, generator)
        found.append(distance(mixture.inpaint(known, mask, n, settings=(inpainting, resamplings))[:, ~mask], real))
    return float(np.mean(found))


def test_the_default_is_the_nearer_method_and_resampling_brings_both_nearer():
    posterior, replacement = ([wrong(inpainting=name, resamplings=rounds) for rounds in (1, 10)] for name in METHODS)
    assert posterior[1] < 0.03
    assert posterior[1] < 0.5 * posterior[0]
    assert replacement[1] < 0.5 * replacement[0]
    assert posterior[0] < 0.5 * replacement[0]
    assert posterior[1] < replacement[1]


def test_shares_of_modes_are_those_given_what_is_known():
    """Two answers, (-1, -.3) and (1, .3) with standard deviation .3: y_2 = .15 makes the second 73 % likely."""
    mixture, mask = Mixture(2, 2), torch.tensor([False, True])
    mixture.weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    mixture.means = torch.tensor([[-1.0, -0.3], [1.0, 0.3]], dtype=torch.float64)
    mixture.covariances = 0.09 * torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
    known = torch.tensor([0.0, 0.15], dtype=torch.float64)
    share = float(mixture.given(known, mask)[0][1])
    assert share == pytest.approx(0.731, abs=1e-3)
    draws = mixture.inpaint(known, mask, 4000, method="midpoint", steps=16, settings=("posterior", 10))[:, 0]
    low, high = wilson_interval(int((draws > 0).sum()), 4000)
    assert low - 0.06 < share < high + 0.06
    assert float(((draws.abs() - 1) / 0.3).std()) == pytest.approx(1, abs=0.1)


# Through the estimator ---------------------------------------------------------------------------------------------

SMALL = {"width": 16, "depth": 1, "steps": 20, "batch_size": 16, "random_state": 0, "precision": "float32"}
SHAPES = {"vector": (3,), "sequence": (8, 2), "image": (1, 8, 8)}


def small(family, kind="vector", **settings):
    rng = np.random.default_rng(0)
    y = rng.normal(5, 3, (60, *SHAPES[kind]))
    return em.OneToManyRegressor(get_family(family, settings), **SMALL).fit(rng.normal(size=(60, 2)), y)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("family", FLOWS)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_known_comes_back_as_it_was_given(family, kind, method):
    model, x = small(family, kind), np.zeros((3, 2))
    known = np.random.default_rng(1).normal(5, 3, (3, *SHAPES[kind]))
    known[:, ..., 0] = np.nan
    known[0] = np.nan  # nothing is known of this row, and everything of the next
    known[1] = 1 / 3
    settings = {"known": known, "inpainting": method, "resamplings": 2}
    model.family_.set_params(steps=6)
    draws = model.sample(x, 4, **settings)
    assert draws.shape == (3, 4, *SHAPES[kind])
    assert np.isfinite(draws).all()
    given = np.broadcast_to(~np.isnan(known)[:, None], draws.shape)
    np.testing.assert_array_equal(draws[given], np.broadcast_to(known[:, None], draws.shape)[given])
    assert (draws.std(axis=1)[np.isnan(known)] > 0).all()
    np.testing.assert_array_equal(draws, model.sample(x, 4, **settings))
    assert not np.array_equal(draws, model.sample(x, 4, random_state=1, **settings))


@pytest.mark.parametrize(
    ("family", "settings"),
    [("flow_matching", {"solver": name}) for name in ("euler", "heun", "rk4", "ddim", "dpm_solver_3m", "ddpm")]
    + [("diffusion", {"sampler": name}) for name in ("heun", "unipc", "euler")]
    + [("diffusion", {"target": "noise", "precondition": False}), ("flow_matching", {"drop": 0.2, "guidance": 2.0})],
)
def test_every_solver_and_target(family, settings):
    model = small(family, steps=6, **settings)
    draws = model.sample(np.zeros((2, 2)), 3, known=[np.nan, 4.0, np.nan], resamplings=2)
    assert np.isfinite(draws).all()
    assert (draws[..., 1] == 4.0).all()


@pytest.fixture(scope="module")
def linked():
    """y = (side, side + x + noise, noise): the second value tells the side, and the third knows nothing."""
    rng = np.random.default_rng(0)
    x, side = rng.normal(size=(3000, 1)), rng.choice([-2.0, 2.0], 3000)
    y = np.stack([side + 0.3 * rng.normal(size=3000), side + x[:, 0], 5 + 0.5 * rng.normal(size=3000)], axis=1)
    y[:, 1] += 0.4 * rng.normal(size=3000)
    frame = pd.DataFrame(y, columns=["side", "sum", "other"])
    settings = {"width": 32, "depth": 2, "steps": 800, "random_state": 0, "precision": "float32"}
    return em.OneToManyRegressor("diffusion", **settings).fit(x, frame)


def test_a_trained_model_draws_the_side_that_what_is_known_tells(linked):
    x = np.zeros((2, 1))
    draws = linked.sample(x, 300, known=np.array([[np.nan, 2.0, np.nan], [np.nan, -2.0, np.nan]]))
    assert (draws[0, :, 0] > 0).mean() > 0.97
    assert (draws[1, :, 0] < 0).mean() > 0.97
    assert np.abs(draws[..., 0]).mean() == pytest.approx(2, abs=0.15)
    assert 0.15 < draws[0, :, 0].std() < 0.35
    assert draws[..., 2].mean() == pytest.approx(5, abs=0.15)


def test_known_columns_by_name(linked):
    x, by_place = np.zeros((2, 1)), np.array([[np.nan, 2.0, 5.0], [np.nan, -2.0, 5.0]])
    expected = linked.sample(x, 3, known=by_place, resamplings=1)
    for known in ({"sum": [2.0, -2.0], "other": 5}, pd.DataFrame({"other": [5, 5], "sum": [2.0, -2.0]})):
        np.testing.assert_array_equal(linked.sample(x, 3, known=known, resamplings=1), expected)


def test_a_target_of_one_value_may_be_known_in_some_rows():
    rng = np.random.default_rng(0)
    model = em.OneToManyRegressor("diffusion", **SMALL).fit(rng.normal(size=(60, 2)), rng.normal(size=60))
    draws = model.sample(np.zeros((2, 2)), 3, known=[np.nan, 0.25], resamplings=1)
    assert draws.shape == (2, 3)
    assert (draws[1] == 0.25).all()
    assert draws[0].std() > 0


# Bad input ---------------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD = {
    "too few values": ([NAN, 1.0], r"known has shape \(2,\): give \(4, 3\), a row for each of X, or \(3,\)"),
    "too few rows": ([[NAN, 1.0, 2.0]], r"known has shape \(1, 3\): give \(4, 3\)"),
    "nothing to draw": ([1.0, 2.0, 3.0], r"known leaves nothing to draw: put NaN"),
    "an infinite value": ([NAN, np.inf, 3.0], r"known holds 1 infinite value\(s\): give numbers, or NaN"),
    "text": ([NAN, "left", 3.0], r"known holds text where numbers belong"),
    "names that Y never had": ({"side": 1.0}, r"known names columns, but Y had none in fit: give an array of shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_known_is_refused(case):
    known, said = BAD[case]
    with pytest.raises(DataError, match=said):
        small("diffusion").sample(np.zeros((4, 2)), 2, known=known)


def test_unknown_columns_and_wrong_settings_are_refused(linked):
    x = np.zeros((4, 1))
    with pytest.raises(DataError, match=r"Unknown column of known 'sid'\. Did you mean 'side'"):
        linked.sample(x, known={"sid": 1.0})
    with pytest.raises(DataError, match=r"column sum of known has shape \(3,\): give one number or 4, a row each"):
        linked.sample(x, known={"sum": [1.0, 2.0, 3.0]})
    for settings in ({"inpainting": "repaint"}, {"resamplings": 0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            linked.sample(x, known={"sum": 1.0}, **settings)


def test_a_family_that_cannot_names_those_that_can():
    with pytest.raises(UnsupportedError, match=r"'mdn' cannot draw a part of y .*: flow_matching, diffusion"):
        small("mdn").sample(np.zeros((4, 2)), known=[NAN, 1.0, 2.0])
    built = small("vae").family_
    with pytest.raises(UnsupportedError, match="'vae'"):
        built.controlled(torch.zeros(1, 16), Control())
