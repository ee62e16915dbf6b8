"""The adversarial game against closed forms: what its sides lose at the optimum, and its penalty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.special import logit

import everymode as em
from everymode.families.adversarial import Critic, critic_loss, energy_score, generator_loss, squared_slope
from everymode.networks import Sizes
from everymode.problems import GaussianMixture
from everymode.randomness import new_generator, seeded
from everymode.spaces import ImageSpace, SequenceSpace, VectorSpace
from everymode.training import TrainingSettings, train

NOTHING = torch.zeros(1, 1)


class Scores(nn.Module):
    """A critic that is any function of y."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, y, x):
        return self.function(y)

    def both(self, events, x):
        return self.function(events)


def lost_by_critic(function, y, drawn, objective, penalty=0.0):
    return critic_loss(Scores(function), y, drawn, NOTHING, objective=objective, penalty=penalty)


def lost_by_generator(function, y, drawn, objective):
    return generator_loss(Scores(function), y, drawn, NOTHING, objective=objective)


# Objectives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "by_critic"), [("relativistic", math.log(2)), ("classic", 2 * math.log(2))])
def test_a_critic_that_cannot_tell_leaves_both_sides_with_log_2(objective, by_critic):
    y, drawn = torch.randn(2, 50, 3, generator=new_generator(0))
    sides = (
        lost_by_critic(lambda e: 0 * e.sum(1), y, drawn, objective),
        lost_by_generator(lambda e: 0 * e.sum(1), y, drawn, objective),
    )
    for losses, expected in zip(sides, (by_critic, math.log(2)), strict=True):
        torch.testing.assert_close(losses, torch.full((50,), expected))


def test_the_classic_critic_at_its_best_loses_what_the_jensen_shannon_divergence_leaves():
    """2 log 2 - 2 JSD(p, q), by quadrature for two normals, at D = log p - log q; any other D loses more."""
    line = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    p, q = (torch.distributions.Normal(mean, scale) for mean, scale in ((0.0, 1.0), (1.0, 1.5)))
    log_p, log_q = p.log_prob(line)[:, 0], q.log_prob(line)[:, 0]
    step, middle = float(line[1] - line[0]), torch.logaddexp(log_p, log_q) - math.log(2)
    divergence = 0.5 * step * float((log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)).sum())

    def expected_loss(best):
        def score(events):
            return best(p.log_prob(events) - q.log_prob(events))[:, 0]

        # a term of the answer and one of the draw: each is had by holding the other at one point
        point = torch.zeros_like(line)
        of_answers = lost_by_critic(score, line, point, "classic")
        of_draws = lost_by_critic(score, point, line, "classic")
        held = lost_by_critic(score, point, point, "classic")[0]
        return step * float((log_p.exp() * of_answers + log_q.exp() * of_draws).sum()) - float(held)

    least = expected_loss(lambda d: d)
    assert least == pytest.approx(2 * math.log(2) - 2 * divergence, abs=1e-7)  # softplus is cut at 20
    assert 0.05 < divergence < math.log(2)
    for other in (lambda d: 1.1 * d, lambda d: 0.9 * d, lambda d: d + 0.1):
        assert expected_loss(other) > least + 1e-5


def test_the_relativistic_critic_at_its_best_on_two_points_is_the_log_odds_ratio():
    """With P(y = 1) = a and P(d = 1) = b the best D(1) - D(0) is logit a - logit b, and the loss is
    log 2 less (a (1 - b) + b (1 - a)) (log 2 - H(r)), where r = a (1 - b) / (a (1 - b) + b (1 - a))."""
    a, b = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    answers, draws = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).double().T
    weights = torch.where(answers > 0, a, 1 - a) * torch.where(draws > 0, b, 1 - b)

    def expected_loss(gap):
        losses = lost_by_critic(lambda e: gap * e[:, 0], answers[:, None], draws[:, None], "relativistic")
        return (weights * losses).sum()

    gap = (logit(a) - logit(b)).requires_grad_()
    (slope,) = torch.autograd.grad(expected_loss(gap), gap)
    assert abs(float(slope)) < 1e-12
    apart = a * (1 - b) + b * (1 - a)
    r = a * (1 - b) / apart
    entropy = -(r * r.log() + (1 - r) * (1 - r).log())
    least = math.log(2) - float(apart * (math.log(2) - entropy))
    assert float(expected_loss(gap.detach())) == pytest.approx(least, abs=1e-12)
    assert least < math.log(2)
    assert float(expected_loss(gap.detach() + 0.1)) > least
    assert float(expected_loss(gap.detach() - 0.1)) > least


def test_the_sides_pull_apart_and_the_relativistic_game_is_symmetric():
    """Swapping answers and draws swaps what the two sides lose."""
    y, drawn = torch.randn(2, 40, 2, generator=new_generator(1))
    score = lambda e: e.sin().sum(1)  # noqa: E731
    torch.testing.assert_close(
        lost_by_critic(score, y, drawn, "relativistic"), lost_by_generator(score, drawn, y, "relativistic")
    )
    lifted = lost_by_generator(lambda e: score(e) + 5.0, y, drawn, "relativistic")
    torch.testing.assert_close(lifted, lost_by_generator(score, y, drawn, "relativistic"))
    assert (lost_by_generator(lambda e: score(e) + 5.0, y, drawn, "classic") < 0.2).all()


# The penalty -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (6, 2), (2, 4, 4)])
def test_the_penalty_of_a_linear_critic_is_its_squared_weight(shape):
    generator = new_generator(2)
    weight = torch.randn(shape, generator=generator)
    y, drawn = torch.randn(2, 5, *shape, generator=generator)
    score = lambda e: (weight * e).flatten(1).sum(1)  # noqa: E731
    events = y.clone().requires_grad_()
    torch.testing.assert_close(squared_slope(score(events), events), weight.square().sum().expand(5))
    plain, penalised = (lost_by_critic(score, y, drawn, "relativistic", gamma) for gamma in (0.0, 0.6))
    torch.testing.assert_close(penalised - plain, (0.6 * weight.square().sum()).expand(5))  # both halves


def moved_critic(y_space):
    """A critic with its layers moved away from zero, in float64."""
    with seeded(0):
        critic = Critic(y_space, VectorSpace((2,), (0.0, 0.0), (1.0, 1.0)), Sizes(16, 2)).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=new_generator(3), dtype=torch.float64)
    return critic


SPACES = [VectorSpace((2,), (0.0, 0.0), (1.0, 1.0)), SequenceSpace((6, 2), (0.0, 0.0), (1.0, 1.0))]
SPACES.append(ImageSpace((1, 6, 6), (0.0,), (1.0,)))


@pytest.mark.parametrize("y_space", SPACES, ids=lambda space: space.kind)
def test_slopes_of_a_critic_and_their_own_gradients_agree_with_finite_differences(y_space):
    critic, generator = moved_critic(y_space), new_generator(4)
    y, x = (torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in (y_space.shape, (2,)))

    def slopes():
        events = y.clone().requires_grad_()
        return squared_slope(critic(events, x), events)

    step, expected = 1e-6, torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for k in range(y[0].numel()):
            shift = torch.zeros(y[0].numel(), dtype=torch.float64)
            shift[k] = step
            shift = shift.reshape(y_space.shape)
            expected += ((critic(y + shift, x) - critic(y - shift, x)) / (2 * step)).square()
    torch.testing.assert_close(slopes().detach(), expected, rtol=1e-5, atol=1e-9)

    weight = critic.direction.weight
    (gradient,) = torch.autograd.grad(slopes().sum(), weight)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 3] += sign * step
        ends.append(float(slopes().sum().detach()))
        with torch.no_grad():
            weight[0, 3] -= sign * step
    assert float(gradient[0, 3]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-8)


def test_a_critic_stays_as_it_is_where_a_run_is_compiled():
    critic = moved_critic(SPACES[0])
    critic.compile()
    assert critic._compiled_call_impl is None


# What draws are judged by ------------------------------------------------------------------------------------------


def test_the_energy_score_is_lowest_where_draws_are_distributed_as_y_is():
    """In closed form for y and draws ~ N(., 1): E|N(m, 2)| - E|N(0, 2)| / 2."""
    generator, rows = new_generator(5), 400_000
    y, first, second = torch.randn(3, rows, 1, generator=generator, dtype=torch.float64)
    for shift in (0.0, 0.5):
        normal = torch.distributions.Normal(0.0, 1.0)
        ratio = torch.tensor(shift / math.sqrt(2))
        apart = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * float(2 * normal.cdf(ratio) - 1)
        expected = apart - 1 / math.sqrt(math.pi)
        score = energy_score(y, first + shift, second + shift)
        assert score.shape == (rows,)
        assert float(score.mean()) == pytest.approx(expected, abs=4 * float(score.std()) / math.sqrt(rows))


# Training ----------------------------------------------------------------------------------------------------------


def test_a_gan_finds_both_normals_of_a_mixture():
    """The share of draws near each of two normals 4 standard deviations of the noise apart is its probability."""
    mixture = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    y = torch.from_numpy(mixture.sample(4000, seed=0)).float()
    spaces = VectorSpace((1,), (0.0,), (1.0,)), VectorSpace((0,), (), ())
    family = em.GAN().build(*spaces, width=32, depth=1)
    settings = TrainingSettings(steps=600, batch_size=128, learning_rate=2e-3, precision="float32")
    for _ in train(family, y, torch.zeros(len(y), 0), settings=settings):
        pass
    with torch.inference_mode():
        draws = family.eval().sample(torch.zeros(4000, 0), generator=new_generator(0)).numpy()[:, 0]
    near = np.abs(draws[:, None] - np.array([-1.0, 1.0])) < 0.8
    print(f"shares {near.mean(axis=0)}")
    assert near.any(axis=1).mean() > 0.9
    assert abs(near[:, 0].mean() - 0.3) < 0.1
