"""The two-step regression: its loss, its two evaluations, and what it answers where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import everymode as em
from everymode.randomness import new_generator, normal
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

SPACE = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))


class Recorder(nn.Module):
    """A network that answers 2 y_t + t and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, y_t, t, x_embedding):
        self.asked.append((y_t, t))
        return 2 * y_t + t[:, None]


def recorded(**settings):
    recorder = Recorder()
    return em.MIP(**settings).build(SPACE, SPACE, width=4, network=lambda shape, width: recorder), recorder


def test_an_answer_is_two_evaluations_the_second_of_the_scaled_first():
    family, recorder = recorded(t_star=0.8)
    draws = family.sample(torch.zeros(3, 2), generator=new_generator(0))
    (first, t_first), (second, t_second) = recorder.asked
    assert family.nfe == len(recorder.asked) == 2
    assert torch.equal(first, torch.zeros(3, 2))
    assert torch.equal(t_first, torch.zeros(3))
    torch.testing.assert_close(t_second, torch.full((3,), 0.8))
    torch.testing.assert_close(second, 0.8 * (2 * first + 0))
    torch.testing.assert_close(draws, 2 * second + 0.8)


def test_the_loss_is_the_error_of_both_steps():
    family, recorder = recorded(t_star=0.8)
    y = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    losses = family.loss(y, torch.zeros(2, 2), generator=new_generator(5))
    noisy = 0.8 * y + 0.2 * normal((2, 2), new_generator(5), like=y)
    torch.testing.assert_close(recorder.asked[1][0], noisy)
    torch.testing.assert_close(losses, (y.square() + (2 * noisy + 0.8 - y).square()).mean(dim=1))


@pytest.fixture(scope="module")
def one_answer():
    """A fit of y = (sin 2x, x^2) + noise of deviation .1, and the answers to new x."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.5, 1.5, (3000, 1))
    truth = np.concatenate([np.sin(2 * x), x**2], axis=1)
    y = truth + 0.1 * rng.standard_normal(truth.shape)
    y_space, x_space = VectorSpace.fit(y), VectorSpace.fit(x)
    family = em.MIP().build(y_space, x_space, width=32, depth=2)
    for _ in train(
        family, y_space.encode(y), x_space.encode(x), settings=TrainingSettings(steps=600, learning_rate=4e-3)
    ):
        pass
    return family.eval(), y_space, x_space


def test_with_one_answer_it_is_the_mean(one_answer):
    """Within a quarter of the noise, in the root of the mean square."""
    family, y_space, x_space = one_answer
    x = np.linspace(-1.4, 1.4, 57)[:, None]
    with torch.no_grad():
        answers = y_space.decode(family.sample(x_space.encode(x)))
    truth = np.concatenate([np.sin(2 * x), x**2], axis=1)
    assert np.sqrt(((answers - truth) ** 2).mean()) < 0.025


def test_the_second_step_shrinks_the_noise_as_much_as_bayes(one_answer):
    """For normal y given x, E[y | I, x] = m + gain (I - t* m), gain = t* v / (t*^2 v + (1 - t*)^2)."""
    family, y_space, x_space = one_answer
    x = np.linspace(-1.2, 1.2, 49)[:, None]
    mean = np.concatenate([np.sin(2 * x), x**2], axis=1)
    scale, shift = np.array(y_space.scale), np.array(y_space.shift)
    variance, t = (0.1 / scale) ** 2, 0.9
    gain = t * variance / (t**2 * variance + (1 - t) ** 2)
    with torch.no_grad():
        embedding = family.encode(x_space.encode(x))
        slopes = []
        for push in (-0.15, 0.15):
            pushed = torch.from_numpy(t * (mean - shift) / scale + push).float()
            slopes.append(family._second(pushed, embedding).numpy())
    np.testing.assert_allclose(((slopes[1] - slopes[0]) / 0.3).mean(axis=0), gain, atol=0.12)
