"""MeanFlow: its identity holds for a flow whose average velocity is known, and its loss is least there."""

from __future__ import annotations

import types

import pytest
import torch

import everymode as em
from everymode.families import MeanFlow
from everymode.randomness import new_generator
from everymode.spaces import VectorSpace

MEAN, SCALE = 0.7, 0.4
ONE, NOTHING = VectorSpace((1,), (0.0,), (1.0,)), VectorSpace((0,), (), ())


def spread(t):
    """Standard deviation of y_t = t y + (1 - t) noise, for y of N(MEAN, SCALE^2)."""
    return ((t * SCALE) ** 2 + (1 - t) ** 2).sqrt()


def exact_average(y_t, t, s):
    """(y_s - y_t) / (s - t): the flow of a normal keeps (y_t - t MEAN) / spread; the velocity where s = t."""
    t, s = t[:, None], s[:, None]
    away = y_t - t * MEAN
    velocity = MEAN + (t * SCALE**2 - (1 - t)) / spread(t) ** 2 * away
    jump = s - t
    landed = s * MEAN + spread(s) / spread(t) * away
    return torch.where(jump < 1e-4, velocity, (landed - y_t) / jump.clamp_min(1e-4))


def exact(off=0.0, instant=0.5, **settings):
    family = MeanFlow(instant=instant, **settings).build(ONE, NOTHING, width=8, depth=1)
    family.average = types.MethodType(lambda self, y, t, s, embedding: exact_average(y, t, s) + off * y, family)
    return family


def loss(family, rows=20_000):
    y = MEAN + SCALE * torch.randn(rows, 1, generator=new_generator(0))
    return float(family.loss(y, torch.zeros(rows, 0), generator=new_generator(1)).mean())


@pytest.mark.parametrize("instant", [0.0, 0.5, 1.0])
def test_the_known_average_leaves_only_what_no_network_can_tell(instant):
    """What is left is the spread of y - noise about its mean, which at s = t is all there is: the same at any jump."""
    left = loss(exact(instant=1.0))
    assert loss(exact(instant=instant)) == pytest.approx(left, rel=0.03)
    for off in (-0.2, 0.2):
        assert loss(exact(off, instant=instant)) > left + 0.01


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
