"""The variational autoencoder against closed forms: its KL, its bound, and where the bound is tight."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import everymode as em
from everymode.families.vae import kl_of_normals, log_normal
from everymode.randomness import new_generator
from everymode.spaces import VectorSpace

PLAIN, NOTHING = VectorSpace((3,), (0.0,) * 3, (1.0,) * 3), VectorSpace((0,), (), ())
ROWS = 50_000


def test_the_kl_is_that_of_torch():
    mean, log_scale, prior_mean, prior_log_scale = torch.randn(4, 20, 5, generator=new_generator(0)).double()
    ours = kl_of_normals(mean, log_scale, prior_mean, prior_log_scale)
    q, p = Normal(mean, log_scale.exp()), Normal(prior_mean, prior_log_scale.exp())
    torch.testing.assert_close(ours, kl_divergence(q, p).sum(1))
    torch.testing.assert_close(kl_of_normals(mean, log_scale, mean, log_scale), torch.zeros(20).double())


@pytest.mark.parametrize("shape", [(3,), (4, 2), (1, 3, 3)])
def test_the_log_density_is_that_of_torch(shape):
    y, mean, scale = torch.randn(3, 6, *shape, generator=new_generator(1)).double()
    for spread in (scale[0].exp(), torch.tensor(0.3).double()):
        expected = Independent(Normal(mean, spread.expand(shape)), len(shape)).log_prob(y)
        torch.testing.assert_close(log_normal(y, mean, spread), expected)


# A decoder that is linear: z is normal, y = W z + c + noise, so that p(y) and the posterior of z are normal too -----


class Given(nn.Module):
    """A network whose answer is any function of its first argument."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, first, embedding):
        return self.function(first)


WEIGHT = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.6, 0.55]], dtype=torch.float64)  # (event, latent)
CENTRE = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
NOISE = torch.tensor([0.5, 0.8, 0.6], dtype=torch.float64)


def orthogonal_weight():
    """W such that W^T diag(noise^-2) W is diagonal: the posterior of z then has a diagonal covariance."""
    whitened = WEIGHT / NOISE[:, None]
    left, values, _ = torch.linalg.svd(whitened, full_matrices=False)
    return left * values * NOISE[:, None]


def linear_vae(weight, coder):
    family = em.VAE(latent=2).build(PLAIN, NOTHING, width=8, depth=1).double().eval()
    family.decoder = Given(lambda z: z @ weight.T + CENTRE)
    family.spread = Given(lambda _: None)
    family.spread.forward = lambda: NOISE
    family.coder = Given(coder)
    return family


def marginal(weight):
    return MultivariateNormal(CENTRE, weight @ weight.T + torch.diag(NOISE.square()))


def posterior(weight):
    """The mean (as a matrix) and the covariance of z given y."""
    precision = torch.eye(2).double() + weight.T @ torch.diag(NOISE.square().reciprocal()) @ weight
    covariance = torch.linalg.inv(precision)
    return covariance @ weight.T / NOISE.square(), covariance


def bound(family, y):
    """The mean of ELBO over many z for one y, and its standard error."""
    with torch.no_grad():
        losses = family.loss(y.expand(ROWS, 3), torch.zeros(ROWS, 0).double(), generator=new_generator(2))
    return -float(losses.mean()), float(losses.std()) / math.sqrt(ROWS)


@pytest.mark.parametrize("row", range(3))
def test_the_bound_is_tight_at_the_true_posterior(row):
    weight = orthogonal_weight()
    gain, covariance = posterior(weight)
    assert float((covariance - torch.diag(covariance.diagonal())).abs().max()) < 1e-12
    log_scale = 0.5 * covariance.diagonal().log()
    family = linear_vae(weight, lambda y: torch.cat([(y - CENTRE) @ gain.T, log_scale.expand(len(y), 2)], dim=1))
    y = marginal(weight).mean + torch.randn(3, 3, generator=new_generator(3)).double()[row]
    value, error = bound(family, y)
    assert value == pytest.approx(float(marginal(weight).log_prob(y)), abs=5 * error)
    assert error < 0.02


@pytest.mark.parametrize(("shift", "widen"), [(0.5, 1.0), (0.0, 2.0), (-0.3, 0.5)])
def test_elsewhere_the_bound_is_below_by_the_kl_to_the_true_posterior(shift, widen):
    """log p(y) - ELBO = KL(q || p(z | y)), also where no diagonal q is the true posterior."""
    gain, covariance = posterior(WEIGHT)
    scale = widen * covariance.diagonal().sqrt()
    family = linear_vae(
        WEIGHT, lambda y: torch.cat([(y - CENTRE) @ gain.T + shift, scale.log().expand(len(y), 2)], dim=1)
    )
    y = torch.tensor([1.0, -0.5, 0.7], dtype=torch.float64)
    mean = gain @ (y - CENTRE)
    gap = kl_divergence(
        MultivariateNormal(mean + shift, torch.diag(scale.square())), MultivariateNormal(mean, covariance)
    )
    value, error = bound(family, y)
    log_prob = float(marginal(WEIGHT).log_prob(y))
    assert float(gap) > 0.05
    assert value < log_prob
    assert value == pytest.approx(log_prob - float(gap), abs=5 * error)


def test_draws_are_those_of_the_model_with_the_noise_and_too_narrow_without():
    covariances = []
    for noise in (True, False):
        family = linear_vae(WEIGHT, lambda y: y).set_params(noise=noise)
        with torch.inference_mode():
            draws = family.sample(torch.zeros(200_000, 0).double(), generator=new_generator(4))
        torch.testing.assert_close(draws.mean(0), CENTRE, rtol=0, atol=0.02)
        covariances.append(draws.T.cov())
    torch.testing.assert_close(covariances[0], marginal(WEIGHT).covariance_matrix, rtol=0.02, atol=0.02)
    torch.testing.assert_close(covariances[1], WEIGHT @ WEIGHT.T, rtol=0.02, atol=0.02)


def test_the_spread_starts_at_a_tenth_and_has_a_floor():
    family = em.VAE().build(PLAIN, NOTHING, width=8, depth=1)
    assert float(family.spread().detach().max()) == pytest.approx(0.1, rel=0.2)
    with torch.no_grad():
        family.spread.log_scale.fill_(-50.0)
    assert float(family.spread().detach().min()) == pytest.approx(0.01)


def test_the_adversarial_term_is_weighed_and_the_judge_is_the_bound():
    y, x = torch.randn(5, 3, generator=new_generator(5)), torch.zeros(5, 0)
    family = em.VAEGAN(weight=0.0).build(PLAIN, NOTHING, width=8, depth=1)
    with torch.no_grad():
        bound = family.judge(y, x, generator=new_generator(6))
        torch.testing.assert_close(family.loss(y, x, generator=new_generator(6)), bound)
        one, two = (family.set_params(weight=w).loss(y, x, generator=new_generator(6)) - bound for w in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one, rtol=1e-4, atol=1e-5)
    assert (one > 0).all()
