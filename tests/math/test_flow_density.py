"""The density of a flow: exact where the flow is known in closed form, whole where it was learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student

import everymode as em
from everymode.errors import SettingError
from everymode.families import get_family
from everymode.randomness import new_generator
from everymode.solvers import integrate_adaptively, log_density, velocity_and_divergence
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

FLOWS = ("flow_matching", "diffusion")


class Mixture:
    """Equal normals in d dimensions, and the velocity that leads to them on the linear path: E[y - noise | y_t]."""

    def __init__(self, d: int, components: int = 4, scale: float = 0.3) -> None:
        self.means = 1.5 * torch.randn(components, d, dtype=torch.float64, generator=new_generator(d))
        self.scale = scale

    def velocity(self, y_t, t):
        total = (t * self.scale) ** 2 + (1 - t) ** 2
        away = y_t[:, None] - t * self.means  # (batch, k, d)
        weight = torch.softmax(-away.square().sum(-1) / (2 * total), dim=1)
        return (weight[..., None] * (self.means + (t * self.scale**2 - (1 - t)) / total * away)).sum(1)

    def draws(self, n: int):
        generator = new_generator(1)
        chosen = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)
        return self.means[chosen] + self.scale * noise

    def log_prob(self, y):
        squares = (y[:, None] - self.means).square().sum(-1) / self.scale**2
        volume = self.means.shape[1] * math.log(self.scale * math.sqrt(2 * math.pi)) + math.log(len(self.means))
        return (-0.5 * squares).logsumexp(1) - volume


# Closed form -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_density_of_a_known_flow_is_known_to_a_thousandth_of_a_nat(d):
    mixture = Mixture(d)
    y = mixture.draws(200)
    found, error = log_density(mixture.velocity, y)
    assert float((found - mixture.log_prob(y)).abs().max()) < 1e-3
    assert not error.any()
    fixed, _ = log_density(mixture.velocity, y, solver="rk4", steps=200)
    assert float((fixed - mixture.log_prob(y)).abs().max()) < 1e-3
    far = y + 3 * torch.randn(200, d, dtype=torch.float64, generator=new_generator(2))  # down to hundreds of nats
    torch.testing.assert_close(log_density(mixture.velocity, far)[0], mixture.log_prob(far), rtol=1e-3, atol=1e-3)


def test_a_fixed_solver_is_as_good_as_its_steps():
    mixture = Mixture(2)
    y, wrong = mixture.draws(100), []
    for steps in (10, 20, 40):
        found, _ = log_density(mixture.velocity, y, solver="midpoint", steps=steps)
        wrong.append(float((found - mixture.log_prob(y)).abs().mean()))
    assert wrong[0] > 2 * wrong[1] > 4 * wrong[2]
    assert wrong[0] > 0.005  # few steps are not enough


def test_the_noise_may_have_another_scale():
    """v = 0 leaves the noise as it is."""
    y = torch.randn(20, 3, generator=new_generator(0))
    found, _ = log_density(lambda y, t: 0 * y, y, prior_scale=2.5)
    expected = torch.distributions.Normal(0, 2.5).log_prob(y).sum(1)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)


def test_the_interval_of_hutchinsons_estimate_holds_the_truth():
    """In 32 dimensions, with 16 probes: Student's 95 % interval holds at least 90 times of 100."""
    mixture = Mixture(32, scale=0.5)
    y = mixture.draws(1)
    truth = float(mixture.log_prob(y))
    found, error = log_density(mixture.velocity, y.expand(100, -1), probes=16, tolerance=1e-4)  # a row, other probes
    assert (error > 0).all()
    assert ((found - truth).abs() < student.ppf(0.975, 15) * error).sum() >= 90
    assert float((found - truth).square().mean().sqrt()) > 0.5 * float(error.mean())  # and it is not idly wide
    others, _ = log_density(mixture.velocity, y.expand(100, -1), probes=16, tolerance=1e-4, seed=1)
    assert not torch.equal(found, others)
    exact, error = log_density(mixture.velocity, y, divergence="exact")
    assert abs(float(exact) - truth) < 1e-3
    assert float(error) == 0
    whole, error = log_density(mixture.velocity, y, probes=32)  # as many vectors as values
    assert abs(float(whole) - truth) < 1e-3
    assert float(error) == 0


def test_the_divergence_is_the_trace_of_the_jacobian():
    matrix = torch.randn(4, 4, dtype=torch.float64, generator=new_generator(0))
    y = torch.randn(7, 2, 2, dtype=torch.float64, generator=new_generator(1))

    def field(y, t):
        return (y.flatten(1) @ matrix.T).sin().reshape(y.shape)

    velocity, found = velocity_and_divergence(field, y, torch.tensor(0.5))
    torch.testing.assert_close(velocity, field(y, 0.5))
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda r: field(r[None], 0)[0], r) for r in y])
    torch.testing.assert_close(found, torch.einsum("bijij->b", jacobians))
    probes = torch.ones(3, *y.shape, dtype=torch.float64)
    _, each = velocity_and_divergence(field, y, torch.tensor(0.5), probes)
    torch.testing.assert_close(each, torch.einsum("bijkl->b", jacobians)[:, None].expand(-1, 3))


def test_a_field_too_rough_for_adaptive_steps_gets_fixed_ones():
    def field(y, t):
        return torch.where(torch.rand(()) > 0.5, 1e9, -1e9) * torch.ones_like(y)  # another one at every look

    with torch.random.fork_rng():
        torch.manual_seed(0)
        end = integrate_adaptively(field, torch.zeros(2, 1), 0.0, 1.0)
    assert torch.isfinite(end).all()
    with pytest.raises(SettingError, match="tolerance"):
        integrate_adaptively(field, torch.zeros(2, 1), 0.0, 1.0, tolerance=0.0)


@pytest.mark.parametrize("setting", [{"divergence": "none"}, {"probes": 1}, {"solver": "nope"}, {"tolerance": -1}])
def test_wrong_settings_are_refused_by_name(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        log_density(lambda y, t: y, torch.zeros(2, 9), **setting)


# Trained -----------------------------------------------------------------------------------------------------------


class Weighed:
    """A trained family, and points weighed by its density: drawn from blurred draws and a wide normal."""

    def __init__(self, name: str, problem: str, *, points: int = 20_000, blur: float = 0.05, wide: float = 1.5) -> None:
        x, y = em.problems.get(problem).sample(4000, seed=0)
        x_space, y_space = VectorSpace.fit(x), VectorSpace.fit(y)
        self.family = get_family(name).build(y_space, x_space, width=32, depth=2)
        settings = TrainingSettings(steps=800, learning_rate=4e-3, seed=0)
        list(train(self.family, y_space.encode(y), x_space.encode(x), settings=settings))
        self.family.eval()
        self.x, generator = x_space.encode(x[:1]), new_generator(1)
        centres = self.draws(2000, seed=1).double()
        near = centres[torch.randint(0, 2000, (points,), generator=generator)]
        noise = torch.randn(points, 2, dtype=torch.float64, generator=generator)
        far = torch.rand(points, 1, generator=generator) < 0.3
        y = torch.where(far, wide * noise, near + blur * noise).float()
        blurred = [normal(part[:, None] - centres, blur).logsumexp(1) for part in y.double().split(500)]
        drawn_at = torch.logaddexp(
            torch.cat(blurred) + math.log(0.7 / len(centres)), normal(y.double(), wide) + math.log(0.3)
        )
        self.log_prob = self.density(y)
        self.weights = (self.log_prob - drawn_at).exp()

    def draws(self, n: int, seed: int):
        with torch.inference_mode():
            return self.family.sample(self.x.expand(n, -1), generator=new_generator(seed))

    def density(self, y):
        with torch.inference_mode():
            return self.family.log_prob(y, self.x.expand(len(y), -1), tolerance=1e-3)


def normal(away, scale):
    return -0.5 * (away / scale).square().sum(-1) - away.shape[-1] * math.log(scale * math.sqrt(2 * math.pi))


@pytest.fixture(
    scope="module", params=[(family, problem) for family in FLOWS for problem in ("two_moons", "rings")], ids="-".join
)
def weighed(request):
    return Weighed(*request.param)


def test_a_trained_density_integrates_to_one(weighed):
    assert float(weighed.weights.std()) / math.sqrt(len(weighed.weights)) < 0.01
    assert float(weighed.weights.mean()) == pytest.approx(1, abs=0.02)


def test_it_is_the_density_of_its_draws(weighed):
    """The mean of log p over draws is the integral of p log p, and draws that are moved are less likely."""
    draws = weighed.draws(1000, seed=0)
    found = weighed.density(draws)
    expected = float((weighed.weights * weighed.log_prob).mean() / weighed.weights.mean())
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - expected) < 4 * error + 0.05  # draws take 32 evaluations, the density all it needs
    assert float(weighed.density(draws + 0.3).mean()) < expected - 0.2


def test_far_from_every_answer_it_is_low_and_finite(weighed):
    log_prob = weighed.density(torch.tensor([[50.0, 0.0], [0.0, -1e4], [1e8, 1e8]]))
    assert torch.isfinite(log_prob).all()
    assert (log_prob < -20).all()


def test_the_estimator_tells_the_error_of_an_estimate():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 1)), rng.normal(size=(100, 20))
    settings = {"width": 16, "depth": 1, "steps": 20, "random_state": 0, "precision": "float32"}
    found, error = (
        em.OneToManyRegressor("flow_matching", **settings).fit(x, y).log_prob(x[:5], y[:5], return_error=True)
    )
    assert found.shape == error.shape == (5,)
    assert (error > 0).all()
    found, error = em.OneToManyRegressor("gaussian", **settings).fit(x, y).log_prob(x[:5], y[:5], return_error=True)
    assert np.isfinite(found).all()
    assert not error.any()


@pytest.mark.parametrize("name", FLOWS)
def test_the_estimator_gives_densities_in_the_units_of_y(name):
    x, y = em.problems.get("two_moons").sample(300, seed=0)
    settings = {"width": 16, "depth": 1, "steps": 30, "random_state": 0, "precision": "float32"}
    small = em.OneToManyRegressor(name, **settings).fit(x, y)
    large = em.OneToManyRegressor(name, **settings).fit(x, 1000 * y)
    np.testing.assert_allclose(
        large.log_prob(x[:20], 1000 * y[:20]), small.log_prob(x[:20], y[:20]) - 2 * np.log(1000), atol=1e-3
    )
