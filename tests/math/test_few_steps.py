"""Families of few steps: what each is fitted by holds for a flow that is known, and a teacher takes the place of y."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch

import everymode as em
from everymode.errors import DataError, SettingError
from everymode.families import Consistency, FlowMatching, GMFlow, MeanFlow, Reflow, Shortcut, get_family
from everymode.families.continuous import carried, velocity_on
from everymode.families.drifting import drift
from everymode.paths import get_path
from everymode.randomness import new_generator
from everymode.solvers import SAMPLERS
from everymode.spaces import VectorSpace

MEAN, SCALE, PATH = 0.7, 0.4, Shortcut.path
ONE, NOTHING = VectorSpace((1,), (0.0,), (1.0,)), VectorSpace((0,), (), ())


def spread(t):
    """Standard deviation of y_t, for y of N(MEAN, SCALE^2)."""
    return ((PATH.alpha(t) * SCALE) ** 2 + PATH.sigma(t) ** 2).sqrt()


def exact_average(y_t, t, s):
    """Of the flow of N(MEAN, SCALE^2), along which (y_t - alpha MEAN) / spread stays as it is."""
    t, s = t[:, None], s[:, None]
    away = y_t - PATH.alpha(t) * MEAN
    growth = (PATH.alpha(t) * PATH.d_alpha(t) * SCALE**2 + PATH.sigma(t) * PATH.d_sigma(t)) / spread(t) ** 2
    landed = PATH.alpha(s) * MEAN + spread(s) / spread(t) * away
    jump = s - t
    return torch.where(jump < 1e-3, PATH.d_alpha(t) * MEAN + growth * away, (landed - y_t) / jump.clamp_min(1e-3))


def exact(kind, off=0.0, **settings):
    family = kind(**settings).build(ONE, NOTHING, width=8, depth=1)
    family.average = types.MethodType(lambda self, y, t, s, embedding: exact_average(y, t, s) + off * y, family)
    return family


def targets(rows, seed=0):
    return MEAN + SCALE * torch.randn(rows, 1, generator=new_generator(seed))


@pytest.mark.parametrize("kind", [MeanFlow, Shortcut, Consistency])
def test_training_rests_at_the_known_average(kind):
    """The gradient with respect to a term too much is 0 where there is none, and points back to it elsewhere."""
    y, nothing = targets(20_000), torch.zeros(20_000, 0)

    def slope(at):
        off = torch.tensor(at, requires_grad=True)
        loss = exact(kind, off).loss(y, nothing, generator=new_generator(1)).mean()
        return float(torch.autograd.grad(loss, off)[0])

    assert slope(0.2) > 0.04
    assert slope(-0.2) < -0.04
    assert abs(slope(0.0)) < 0.15 * slope(0.2)


def test_the_known_average_keeps_the_identity():
    """v = u - (s - t) du/dt, the derivative along v."""
    generator = new_generator(3)
    y_t, t = torch.randn(200, 1, generator=generator), torch.rand(200, generator=generator)
    s = t + (1 - t) * torch.rand(200, generator=generator)
    apart = s - t > 0.01
    velocity = exact_average(y_t, t, t)
    found, change = exact(MeanFlow)._along(y_t, t, s, None, velocity)
    torch.testing.assert_close((found - change)[apart], velocity[apart], rtol=1e-3, atol=1e-3)


def test_two_jumps_of_the_known_average_are_one():
    family = exact(Shortcut)
    y_t, t = torch.randn(50, 1, generator=new_generator(0)), torch.zeros(50)
    s = t + 0.5
    torch.testing.assert_close(family._two_jumps(y_t, t, s, None), exact_average(y_t, t, s), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [MeanFlow, Shortcut, Consistency])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_known_average_draws_the_law_in_any_number_of_jumps(kind, steps):
    family = exact(kind, steps=steps)
    drawn = family.sample(torch.zeros(1, 0), 20_000, generator=new_generator(2))
    assert family.nfe == steps
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(SCALE, abs=0.01)


def mixture_flow(**settings):
    """A GMFlow that tells two components at -1 and 1.5 whatever it sees, as is right for such data."""
    family = GMFlow(components=2, least_scale=1e-6, **settings).build(ONE, NOTHING, width=8, depth=1)
    family.logits.copy_(torch.tensor([0.3, 0.7]).log())
    family.means.copy_(torch.tensor([[-1.0], [1.5]]))
    family.log_scales.copy_(torch.tensor([[0.2], [0.5]]).log())
    family.network.leave.weight.data.zero_()
    return family.requires_grad_(False)


def cdf(y):
    normal = torch.distributions.Normal(torch.tensor([-1.0, 1.5]), torch.tensor([0.2, 0.5]))
    return (torch.tensor([0.3, 0.7]) * normal.cdf(y[:, None])).sum(dim=1)


@pytest.mark.parametrize("settings", [{"steps": n} for n in (1, 2, 5)] + [{"steps": 60, "solver": "heun"}])
def test_a_mixture_that_is_right_draws_the_law_in_any_number_of_steps(settings):
    n = 20_000
    drawn = mixture_flow(**settings).sample(torch.zeros(1, 0), n, generator=new_generator(0))[:, 0].sort().values
    worst = (cdf(drawn) - torch.arange(1, n + 1) / n).abs().max()
    assert float(worst) < 1.63 / math.sqrt(n)  # Kolmogorov and Smirnov, 1 %


def test_a_component_points_anywhere_and_bayes_rule_holds_for_it():
    """One normal in two dimensions, three times as long along (1, 1) as across, against the product of two normals."""
    two = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))
    family = GMFlow(components=1, least_scale=1e-6).build(two, NOTHING, width=8, depth=1).requires_grad_(False)
    family.log_scales.copy_(torch.tensor([[[0.9, 0.3]]]).log().reshape(family.log_scales.shape))
    family.network.leave.weight.zero_()
    toward = torch.tensor([0.5, 0.5]).sqrt()
    axis = torch.tensor([1.0, 0.0]) - toward  # the reflection that takes the first axis there
    family.network.leave.bias.copy_(torch.cat([torch.zeros(6), axis / axis.norm() - torch.tensor([1.0, 0.0])]))
    law = 0.9**2 * torch.outer(toward, toward) + 0.3**2 * (torch.eye(2) - torch.outer(toward, toward))
    drawn = family.sample(torch.zeros(1, 0), 40_000, generator=new_generator(0))
    torch.testing.assert_close(drawn.T.cov(), law, rtol=0.03, atol=0.01)
    t, state = 0.4, torch.tensor([[0.3, -0.8]])
    found = family.mixture(state, torch.tensor([t]), torch.zeros(1, 8))
    inverse = torch.linalg.inv(t**2 * law + (1 - t) ** 2 * torch.eye(2))
    torch.testing.assert_close(found["means"][0, :, 0], t * law @ inverse @ state[0], rtol=1e-4, atol=1e-5)
    noise = (state[0] - t * found["means"][0, :, 0]) / (1 - t)
    torch.testing.assert_close(found["noises"][0, :, 0], noise, rtol=1e-4, atol=1e-5)


def test_the_mixture_given_a_noisy_state_is_bayes_rule():
    """p(y | y_t) of the two components against the product of their density and that of the noise, on a lattice."""
    family, t, state = mixture_flow(), 0.4, 0.3
    found = family.mixture(torch.tensor([[state]]), torch.tensor([t]), torch.zeros(1, 8))
    y = torch.linspace(-4, 5, 20_001)

    def mixed(weights, means, scales):
        return (weights * torch.distributions.Normal(means, scales).log_prob(y[:, None]).exp()).sum(dim=1)

    told = mixed(found["log_weights"][0].exp(), found["means"][0, 0], found["scales"][0, 0])
    prior = mixed(torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.5]), torch.tensor([0.2, 0.5]))
    product = prior * torch.distributions.Normal(t * y, 1 - t).log_prob(torch.tensor(state)).exp()
    torch.testing.assert_close(told, product / torch.trapezoid(product, y), rtol=1e-3, atol=1e-4)


def test_the_density_of_a_mixture_flow_is_that_of_the_mixture():
    y = torch.linspace(-2, 3, 21)[:, None]
    found = mixture_flow().log_prob(y, torch.zeros(21, 0)).float()
    normal = torch.distributions.Normal(torch.tensor([-1.0, 1.5]), torch.tensor([0.2, 0.5]))
    exact = (normal.log_prob(y) + torch.tensor([0.3, 0.7]).log()).logsumexp(dim=1)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)


@pytest.fixture
def restless():
    """A GMFlow whose mixture depends on the noise that the network is asked with, given one x."""
    family = GMFlow(components=3, steps=1).build(ONE, ONE, width=8, depth=1, seed=1).requires_grad_(False)
    family.network.leave.weight.mul_(15)
    return family


def test_draws_of_one_x_ask_the_network_once_and_are_what_each_would_be(restless):
    asked = []
    restless.network.register_forward_hook(lambda module, inputs, output: asked.append(len(output)))
    x = restless.encode(torch.ones(1, 1))
    together = restless.draw(x.expand(500, -1), generator=new_generator(0))
    torch.testing.assert_close(restless.draw(x.repeat(500, 1), generator=new_generator(0)), together)
    assert asked == [8, 500]


def test_the_density_is_that_of_draws_in_one_step_whatever_the_network_tells(restless):
    n, lattice = 20_000, torch.linspace(-20, 20, 8001)
    log_prob, error = restless.log_prob_and_error(lattice[:, None], torch.ones(8001, 1))
    assert not error.any()
    density = log_prob.double().exp()
    assert float(torch.trapezoid(density, lattice.double())) == pytest.approx(1, abs=1e-3)
    drawn = restless.sample(torch.ones(1, 1), n, generator=new_generator(0))[:, 0].sort().values
    below = torch.cumulative_trapezoid(density, lattice.double())[torch.searchsorted(lattice, drawn).clamp(1, 8000) - 1]
    assert float((below - torch.arange(1, n + 1) / n).abs().max()) < 1.63 / math.sqrt(n) + 1e-3


@pytest.mark.parametrize(("share", "sign"), [(0.8, -1), (0.2, 1)])
def test_draws_leave_the_mode_that_has_too_many(share, sign):
    generator = new_generator(0)

    def modes(share):
        side = torch.where(torch.rand(800, generator=generator) < share, 0.3, -0.3)
        return (side[:, None] + 0.1 * torch.randn(800, 1, generator=generator))[None]

    assert sign * float(drift(modes(share), modes(0.5)).mean()) > 0.3


@pytest.mark.parametrize("path", ["linear", "cosine", "vp", "ve"])
def test_the_velocity_of_one_path_is_told_on_another(path):
    """A flow trained on any path, by its closed form for a normal: on the cosine path its velocity is the known one."""
    family = FlowMatching(path=path).build(ONE, NOTHING, width=8, depth=1)
    own = get_path(path)

    def field(self, y_t, t, embedding):
        a, s, da, ds = own.coefficients(t, y_t)
        return da * MEAN + (a * da * SCALE**2 + s * ds) / (a**2 * SCALE**2 + s**2) * (y_t - a * MEAN)

    family.field = types.MethodType(field, family)
    t = torch.linspace(0.15, 0.95, 9)  # the steep paths reach neither end
    y_t = torch.randn(9, 1, generator=new_generator(1))
    torch.testing.assert_close(velocity_on(PATH, family, y_t, t, None), exact_average(y_t, t, t), rtol=2e-2, atol=2e-2)
    if path in ("linear", "cosine"):
        noise = torch.randn(9, 1, generator=new_generator(2))
        torch.testing.assert_close(carried(family, noise, None), MEAN + SCALE * noise, rtol=0, atol=0.02)


@pytest.fixture(scope="module")
def taught():
    """Conditions of the fork, and a small flow that knows it."""
    x, y = em.problems.get("fork").sample(1000, seed=0)
    return x, em.OneToManyRegressor(steps=400, width=32, batch_size=256, random_state=0).fit(x, y)


def test_reflow_learns_the_pairs_of_its_teacher(taught):
    """One step then goes where the teacher's flow takes the same noise, and not to the mean."""
    x, teacher = taught
    student = em.distill(teacher, x[:200], "reflow", rows=1000, steps=600, width=32)
    asked = torch.zeros(400, 1)
    noise = torch.randn(400, 2, generator=new_generator(0))
    flow = student.family_
    assert isinstance(flow, Reflow)
    assert [part.name for part in flow.parts()] == ["flow", "round_1"]  # without a teacher
    with torch.no_grad():
        there = carried(teacher.family_, noise, teacher.family_.encode(asked))
        here = noise + flow.field(noise, torch.zeros(400), flow.encode(asked))
    assert float((there - here).square().sum(dim=1).sqrt().median()) < 0.15
    assert float(there.std()) > 0.5


@pytest.mark.parametrize("into", ["mean_flow", "shortcut", "consistency", "mdn"])
def test_a_student_finds_both_ways_of_its_teacher_in_one_step(into, taught):
    x, teacher = taught
    problem = em.problems.get("fork")
    student = em.distill(teacher, x, into, rows=2000, steps=250)
    assert student.nfe == get_family(into).nfe
    assert student.width_ == 32
    assert student.family_.teacher is None
    asked = problem.sample(20, seed=3)[0]
    drawn = student.sample(asked, 100)
    sides = (drawn[..., 0] > 0).mean(axis=1)
    assert np.all((sides > 0.2) & (sides < 0.8))
    assert problem.valid(asked, drawn).mean() > 0.6


@pytest.mark.parametrize("solver", [name for name, sampler in SAMPLERS.items() if sampler.noisy])
def test_reflow_refuses_solvers_that_ask_for_a_score(solver):
    with pytest.raises(SettingError, match=f"solver='{solver}'"):
        em.Reflow(solver=solver)


def test_a_teacher_of_other_columns_is_refused():
    x, y = em.problems.get("fork").sample(200, seed=0)
    teacher = em.OneToManyRegressor(steps=5, random_state=0).fit(x, y)
    with pytest.raises(DataError, match="own"):
        em.OneToManyRegressor("mean_flow", steps=5).fit(x, y[:, :1], teacher=teacher)
    with pytest.raises(ValueError, match="2 features"):
        em.distill(teacher, np.hstack([x, x]), "mean_flow", steps=5)


def test_settings_are_checked():
    with pytest.raises(SettingError, match="steps"):
        MeanFlow(steps=0)
    with pytest.raises(SettingError, match="instant"):
        MeanFlow(instant=1.5)
