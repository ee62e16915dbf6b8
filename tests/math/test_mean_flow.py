"""MeanFlow: its identity holds for a flow whose average velocity is known."""

from __future__ import annotations

import types

import pytest
import torch

import everymode as em
from everymode.families import MeanFlow
from everymode.randomness import new_generator
from everymode.spaces import VectorSpace

MEAN, SCALE, PATH = 0.7, 0.4, MeanFlow.path
ONE, NOTHING = VectorSpace((1,), (0.0,), (1.0,)), VectorSpace((0,), (), ())


def spread(t):
    """Standard deviation of y_t, for y of N(MEAN, SCALE^2)."""
    return ((PATH.alpha(t) * SCALE) ** 2 + PATH.sigma(t) ** 2).sqrt()


def exact_average(y_t, t, s):
    """(y_s - y_t) / (s - t): the flow of a normal keeps (y_t - alpha MEAN) / spread; the velocity where s = t."""
    t, s = t[:, None], s[:, None]
    a, c = PATH.alpha(t), PATH.sigma(t)
    away = y_t - a * MEAN
    growth = (a * PATH.d_alpha(t) * SCALE**2 + c * PATH.d_sigma(t)) / spread(t) ** 2
    velocity = PATH.d_alpha(t) * MEAN + growth * away
    jump = s - t
    landed = PATH.alpha(s) * MEAN + spread(s) / spread(t) * away
    return torch.where(jump < 1e-3, velocity, (landed - y_t) / jump.clamp_min(1e-3))


def exact(**settings):
    family = MeanFlow(**settings).build(ONE, NOTHING, width=8, depth=1)
    family.average = types.MethodType(lambda self, y, t, s, embedding: exact_average(y, t, s), family)
    return family


def test_the_known_average_keeps_the_identity():
    """v = u - (s - t) du/dt, the derivative along v."""
    generator = new_generator(3)
    y_t, t = torch.randn(200, 1, generator=generator), torch.rand(200, generator=generator)
    s = t + (1 - t) * torch.rand(200, generator=generator)
    apart = s - t > 0.01
    velocity = exact_average(y_t, t, t)
    found, change = exact()._along(y_t, t, s, None, velocity)
    torch.testing.assert_close((found - change)[apart], velocity[apart], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_known_average_draws_the_law_in_any_number_of_jumps(steps):
    family = exact(steps=steps)
    drawn = family.sample(torch.zeros(1, 0), 20_000, generator=new_generator(2))
    assert family.nfe == steps
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(SCALE, abs=0.01)


def test_settings_are_checked():
    with pytest.raises(em.errors.SettingError, match="steps"):
        MeanFlow(steps=0)
    with pytest.raises(em.errors.SettingError, match="instant"):
        MeanFlow(instant=1.5)
