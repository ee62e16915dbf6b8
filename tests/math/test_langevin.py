"""Langevin dynamics: its stationary law is the one in closed form, and its rows know nothing of one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from everymode.errors import SettingError
from everymode.langevin import annealed_langevin, geometric_levels, langevin
from everymode.problems import GaussianMixture
from everymode.randomness import new_generator, normal

CHAINS = 20_000
ONES = torch.zeros(1, dtype=torch.float64)


def minus(y, level=None):
    """The score of N(0, 1)."""
    return -y


def end(states):
    *_, y = states
    return y


def starts(shape=(CHAINS, 1), seed=9):
    return normal(shape, new_generator(seed), like=ONES)


def interval(variance, n):
    """Five standard errors of a variance of n draws of a Gaussian."""
    return 5 * variance * math.sqrt(2 / n)


# Plain ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.05, 0.5, 1.2])
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_the_stationary_variance_is_its_closed_form(h, temperature):
    """y <- (1 - h) y + sqrt(2 h T) noise has variance 2 T / (2 - h), which is T only as h goes to 0."""
    expected = 2 * temperature / (2 - h)
    steps = math.ceil(5 / h)
    y = end(
        langevin(
            minus,
            starts() * math.sqrt(expected),
            steps=steps,
            step_size=h,
            temperature=temperature,
            generator=new_generator(0),
        )
    )
    assert float(y.var()) == pytest.approx(expected, abs=interval(expected, CHAINS))
    assert float(y.mean()) == pytest.approx(0, abs=5 * math.sqrt(expected / CHAINS))


def test_from_anywhere_it_forgets_its_start_at_the_known_rate():
    """After n steps the mean is (1 - h)^n of where it was."""
    h, steps, far = 0.1, 12, 40.0
    y = end(langevin(minus, torch.full((CHAINS, 1), far), steps=steps, step_size=h, generator=new_generator(1)))
    assert float(y.mean()) == pytest.approx(far * (1 - h) ** steps, abs=5 / math.sqrt(CHAINS))


def test_without_temperature_it_climbs():
    sizes = [0.5, 0.25, 0.1]
    states = list(langevin(minus, starts((4, 3)), steps=3, step_size=sizes, temperature=0.0, generator=None))
    torch.testing.assert_close(states[-1], states[0] * 0.5 * 0.75 * 0.9)


def test_states_start_with_the_start_and_evaluate_once_a_step():
    seen = []

    def score(y, level):
        seen.append(level)
        return -y

    y = starts((5, 2, 3))
    states = list(langevin(score, y, steps=7, step_size=0.1, generator=new_generator(0), level=0.3))
    assert len(states) == 8
    assert states[0] is y
    assert torch.equal(y, starts((5, 2, 3)))
    assert all(state.shape == y.shape for state in states)
    assert [float(level) for level in seen] == pytest.approx([0.3] * 7)
    list(langevin(score, y, steps=1, step_size=0.1, generator=new_generator(0)))
    assert seen[-1] is None


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_row_does_not_depend_on_the_others(adjusted):
    def log_density(y, level):
        return -y.square().flatten(1).sum(dim=1) / 2

    def walk(y):
        height = log_density if adjusted else None
        return end(langevin(minus, y, steps=5, step_size=0.3, generator=new_generator(2), log_density=height))

    y = starts((6, 2))
    changed = y.clone()
    changed[3] += 1
    before, after = walk(y), walk(changed)
    others = torch.arange(6) != 3
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[3], after[3])
    assert torch.equal(before, walk(y))


def test_project_keeps_states_in_bounds_at_every_step():
    states = list(
        langevin(
            minus,
            torch.zeros(500, 1),
            steps=30,
            step_size=0.5,
            generator=new_generator(0),
            project=lambda y: y.clamp(-0.7, 0.7),
        )
    )
    assert max(float(y.abs().max()) for y in states) == pytest.approx(0.7)


# Metropolis-adjusted -------------------------------------------------------------------------------------------------


def gaussian_mixture(separation=4.0):
    half = separation / 2
    return GaussianMixture([0.3, 0.7], [[-half], [half]], [[[1.0]], [[0.25]]])


def exact(mixture):
    """The score and log density of a mixture, blurred by a level that is at least a little."""

    def level_of(level):
        return 1e-3 if level is None else float(level)

    def score(y, level):
        sigma = level_of(level)
        return torch.from_numpy((mixture.expected_data(y.numpy(), 1.0, sigma) - y.numpy()) / sigma**2)

    def log_density(y, level):
        return torch.from_numpy(mixture.log_density_at(y.numpy(), 1.0, level_of(level)))

    return score, log_density


def cumulative(mixture):
    deviations = np.sqrt(mixture.covariances[:, 0, 0])
    return lambda y: (mixture.weights * norm.cdf((np.asarray(y)[..., None] - mixture.means[:, 0]) / deviations)).sum(-1)


@pytest.mark.parametrize("h", [0.6, 1.5])
def test_the_adjusted_chain_leaves_its_density_alone_whatever_the_step(h):
    """Started in N(0, 1) it stays there; the plain chain of this step has variance 2 / (2 - h)."""

    def log_density(y, level):
        return -y.square().sum(dim=1) / 2

    y = end(langevin(minus, starts(), steps=12, step_size=h, generator=new_generator(3), log_density=log_density))
    assert kstest(y[:, 0].numpy(), norm.cdf).pvalue > 1e-3
    plain = end(langevin(minus, starts(), steps=12, step_size=h, generator=new_generator(3)))
    assert kstest(plain[:, 0].numpy(), norm.cdf).pvalue < 1e-6


def test_the_adjusted_chain_leaves_a_mixture_alone():
    """Two modes of unequal width, where the proposal forth is not as probable as the one back."""
    mixture = gaussian_mixture()
    score, log_density = exact(mixture)
    y = torch.from_numpy(mixture.sample(CHAINS, 0))
    steps = {"steps": 25, "step_size": 0.35}
    adjusted = end(langevin(score, y, generator=new_generator(4), log_density=log_density, **steps))
    assert not torch.equal(adjusted, y)
    assert kstest(adjusted[:, 0].numpy(), cumulative(mixture)).pvalue > 1e-3
    plain = end(langevin(score, y, generator=new_generator(4), **steps))
    assert kstest(plain[:, 0].numpy(), cumulative(mixture)).pvalue < 1e-6


def test_the_adjustment_holds_at_another_temperature():
    def log_density(y, level):
        return -y.square().sum(dim=1) / 2

    y = end(
        langevin(
            minus,
            0.5 * starts(),
            steps=12,
            step_size=1.2,
            temperature=0.25,
            generator=new_generator(5),
            log_density=log_density,
        )
    )
    assert kstest(y[:, 0].numpy(), norm(scale=0.5).cdf).pvalue > 1e-3


# Annealed ------------------------------------------------------------------------------------------------------------


def test_annealing_reaches_both_modes_from_one_of_them_and_the_plain_chain_does_not():
    mixture = gaussian_mixture(12.0)
    score, _ = exact(mixture)
    start = torch.full((4000, 1), -6.0, dtype=torch.float64)
    levels = geometric_levels(12.0, 0.1, 14)
    states = list(annealed_langevin(score, start, levels=levels, steps=10, step_size=0.3, generator=new_generator(6)))
    assert len(states) == 141
    assert states[0] is start
    annealed = states[-1]
    assert float((annealed > 0).double().mean()) == pytest.approx(0.7, abs=0.05)
    assert kstest(annealed[:, 0].numpy(), cumulative(mixture)).statistic < 0.06
    plain = end(langevin(score, start, steps=140, step_size=0.1, generator=new_generator(6)))
    assert int((plain > 0).sum()) == 0


def test_one_level_is_plain_langevin_on_the_blurred_density():
    """At level L on N(0, 1) the target has variance v = 1 + L^2, the chain v / (1 - h / (2 v)); h = .5 L^2."""
    level = 2.0

    def score(y, sigma):
        return -y / (1 + sigma.square())

    v, h = 1 + level**2, 0.5 * level**2
    expected = v / (1 - h / (2 * v))
    y = end(
        annealed_langevin(
            score,
            starts() * math.sqrt(expected),
            levels=[level],
            steps=20,
            step_size=0.5,
            generator=new_generator(7),
        )
    )
    assert float(y.var()) == pytest.approx(expected, abs=interval(expected, CHAINS))


def test_levels_fall_by_one_factor():
    levels = geometric_levels(10.0, 0.1, 5)
    assert levels == pytest.approx([10, 10**0.5, 1, 10**-0.5, 0.1])


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"step_size": 0.0}, "step_size=0"),
        ({"step_size": [0.1, 0.1]}, "step_size has 2 numbers for 3 steps"),
        ({"step_size": "much"}, "step_size='much'"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"level": -0.1}, "level=-0.1"),
        ({"log_density": minus, "temperature": 0.0}, "leave one out"),
        ({"log_density": minus, "project": minus}, "leave one out"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingError, match=message):
        list(langevin(minus, torch.zeros(2, 1), **{"steps": 3, "step_size": 0.1, "generator": None, **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": []}, "levels is empty"),
        ({"levels": [1.0, 1.0]}, "fall strictly"),
        ({"levels": [1.0, 0.0]}, "level=0"),
        ({"step_size": 2.5}, "step_size=2.5"),
    ],
)
def test_wrong_annealing_is_named(settings, message):
    given = {"levels": [1.0, 0.5], "steps": 2, "step_size": 0.1, "generator": None, **settings}
    with pytest.raises(SettingError, match=message):
        list(annealed_langevin(minus, torch.zeros(2, 1), **given))
    with pytest.raises(SettingError, match="low"):
        geometric_levels(1.0, 0.0, 3)
    with pytest.raises(SettingError, match="high"):
        geometric_levels(1.0, 2.0, 3)
