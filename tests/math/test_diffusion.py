"""Diffusion against the published updates, closed forms and exact answers of a Gaussian mixture."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import everymode as em
from everymode.errors import SettingError
from everymode.families.diffusion import TARGETS, WEIGHTINGS
from everymode.families.times import TIME_SAMPLING, draw_times
from everymode.networks import ResidualMLP
from everymode.paths import PATHS, CustomPath, get_path
from everymode.problems import GaussianMixture
from everymode.randomness import new_generator, normal, seeded
from everymode.solvers import (
    SAMPLERS,
    SPACINGS,
    ddim,
    ddpm,
    dpm_solver_2m,
    dpm_solver_3m,
    get_sampler,
    heun,
    integrate,
    karras_grid,
    last,
    multistep,
    unipc,
)
from everymode.spaces import VectorSpace

PLAIN, NOTHING = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0)), VectorSpace((0,), (), ())
MIXTURE = GaussianMixture(
    [0.2, 0.5, 0.3],
    [[-1.6, 0.1], [0.2, 1.0], [0.9, -1.3]],
    [[[0.010, 0.003], [0.003, 0.010]], [[0.015, -0.005], [-0.005, 0.010]], [[0.006, 0.0], [0.0, 0.020]]],
)


def conditional_mean(y_t, alpha, sigma, mixture=MIXTURE):
    """E[y | y_t] of the mixture for y_t (rows, d); alpha and sigma are numbers, or (rows, 1)."""
    variances, axes = (torch.from_numpy(part) for part in np.linalg.eigh(mixture.covariances))  # (k, d), (k, d, d)
    means, weights = torch.from_numpy(mixture.means), torch.from_numpy(mixture.weights)
    alpha, sigma = (torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (alpha, sigma))
    offsets = torch.einsum("kij,nki->nkj", axes, y_t.double()[:, None] - alpha * means)
    total = alpha**2 * variances + sigma**2
    shares = (weights.log() - 0.5 * (offsets**2 / total + total.log()).sum(-1)).softmax(-1)
    shifts = torch.einsum("kij,nkj->nki", axes, alpha * variances / total * offsets)
    return torch.einsum("nk,nki->ni", shares, means + shifts).to(y_t.dtype)


def expected_data(path, mixture=MIXTURE):
    """What a perfect model tells a sampler."""

    def data(y_t, t):
        time = torch.as_tensor(float(t), dtype=torch.float64)
        return conditional_mean(y_t, float(path.alpha(time)), float(path.sigma(time)), mixture)

    return data


def test_the_conditional_mean_is_that_of_the_problems():
    y_t = noise_like(20)
    for alpha, sigma in ((0.2, 0.9), (0.9, 0.2), (1.0, 3.0)):
        expected = MIXTURE.expected_data(y_t.numpy(), alpha, sigma)
        np.testing.assert_allclose(conditional_mean(y_t, alpha, sigma), expected, rtol=1e-10, atol=1e-10)


def some_data(y_t, t):
    """Any model will do where one update is compared with another."""
    return torch.sin(2 * y_t) + t * torch.cos(y_t.flip(-1))


def noise_like(rows, seed=0, dtype=torch.float64):
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# The published updates ---------------------------------------------------------------------------------------------

STEPS = 1000
ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS))])
"""Ho et al.'s alpha-bar of step n = 0 (data) to 1000 (noise)."""


def ddpm_path():
    """The path that passes through the 1000 steps, step n at t = 1 - n / 1000; between two, log alpha-bar is linear."""
    log_bar = torch.from_numpy(np.log(ALPHA_BAR))

    def cell(t):
        steps = (1 - t) * STEPS
        low = steps.detach().floor().clamp(0, STEPS - 1).long()
        return low, steps - low

    def bar(t):
        low, share = cell(t)
        return torch.exp(torch.lerp(log_bar[low], log_bar[low + 1], share))

    def rate(t):
        low, _ = cell(t)
        return STEPS * (log_bar[low] - log_bar[low + 1])

    def sigma(t):
        return (1 - bar(t)).clamp_min(0).sqrt()

    return CustomPath(
        lambda t: bar(t).sqrt(),
        sigma,
        lambda t: bar(t).sqrt() * rate(t) / 2,
        lambda t: -bar(t) * rate(t) / (2 * sigma(t).clamp_min(1e-3)),
    )


def at_steps(steps):
    return 1 - torch.tensor(steps, dtype=torch.float64) / STEPS


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_the_ddim_update_is_the_published_one(eta):
    """Song et al. (2021), equations 12 and 16, in alpha-bar of DDPM's integer steps; for any spacing of the steps."""
    path, steps = ddpm_path(), [1000, 990, 700, 350, 349, 90, 20, 1, 0]
    start, generator = noise_like(5), new_generator(3)
    states = [y for _, y in ddim(some_data, start, at_steps(steps), path, eta=eta, generator=new_generator(3))]
    x = start
    for state, n, m in zip(states[1:], steps[:-1], steps[1:], strict=True):
        bar, bar_next = ALPHA_BAR[n], ALPHA_BAR[m]
        guess = some_data(x, torch.tensor(1 - n / STEPS, dtype=torch.float64))
        epsilon = (x - math.sqrt(bar) * guess) / math.sqrt(1 - bar)
        std = eta * math.sqrt((1 - bar_next) / (1 - bar)) * math.sqrt(1 - bar / bar_next)
        predicted = (x - math.sqrt(1 - bar) * epsilon) / math.sqrt(bar)
        x = math.sqrt(bar_next) * predicted + math.sqrt(1 - bar_next - std**2) * epsilon
        if std:
            x = x + std * normal((5, 2), generator, like=x)
        torch.testing.assert_close(state, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(states[-1], some_data(states[-2], at_steps([1])[0]), rtol=0, atol=0)


def test_with_eta_1_it_is_ddpm():
    """Ho et al. (2020), equations 6 and 7: the posterior's mean and variance, of every tenth of the 1000 steps."""
    path, start = ddpm_path(), noise_like(5)
    for n in range(1000, 1, -10):
        bar, bar_next = ALPHA_BAR[n], ALPHA_BAR[n - 1]
        beta = 1 - bar / bar_next
        guess = some_data(start, torch.tensor(1 - n / STEPS, dtype=torch.float64))
        mean = math.sqrt(bar_next) * beta / (1 - bar) * guess
        mean = mean + math.sqrt(1 - beta) * (1 - bar_next) / (1 - bar) * start
        variance = (1 - bar_next) / (1 - bar) * beta
        fresh = normal((5, 2), new_generator(n), like=start)
        found = last(ddpm(some_data, start, at_steps([n, n - 1]), path, generator=new_generator(n)))
        torch.testing.assert_close(found, mean + math.sqrt(variance) * fresh, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_dpm_solver_2m_is_the_published_one(name):
    """Lu et al. (2022), algorithm 2, in lambda = log(alpha / sigma), over uneven times inside (0, 1)."""
    path = get_path(name)
    times = torch.tensor([0.03, 0.1, 0.3, 0.35, 0.5, 0.8, 0.9, 0.95], dtype=torch.float64)
    alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
    lam = [math.log(a / s) for a, s in zip(alpha, sigma, strict=True)]
    states = [y for _, y in dpm_solver_2m(some_data, noise_like(5), times, path)]
    x, told = states[0], []
    for i in range(1, len(times)):
        told.append(some_data(x, times[i - 1]))
        h = lam[i] - lam[i - 1]
        d = told[-1]
        if i > 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * told[-1] - 1 / (2 * r) * told[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(-h) * d
        torch.testing.assert_close(states[i], x, rtol=1e-10, atol=1e-10)


def test_heun_is_edms():
    """Karras et al. (2022), algorithm 1, with s = alpha and their sigma being our sigma / alpha; uneven times."""
    path = get_path("cosine")
    times = torch.tensor([0.1, 0.3, 0.35, 0.5, 0.8, 0.9], dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = (f(times) for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma))
    level, d_level = sigma / alpha, (d_sigma * alpha - sigma * d_alpha) / alpha**2
    x = noise_like(5)
    states = [y for _, y in heun(some_data, x, times, path)]

    def slope(x, k):
        told = some_data(x, times[k])
        return (d_level[k] / level[k] + d_alpha[k] / alpha[k]) * x - d_level[k] * alpha[k] / level[k] * told

    for k in range(len(times) - 1):
        h, d = times[k + 1] - times[k], slope(x, k)
        x = x + h * (d + slope(x + h * d, k + 1)) / 2
        torch.testing.assert_close(states[k + 1], x, rtol=1e-9, atol=1e-9)


def test_the_grid_is_edms():
    """Karras et al. (2022), equation 5, on their own path: alpha = 1 and sigma = 80 (1 - t)."""
    i, steps = np.arange(12), 12
    sigmas = (80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    path = CustomPath(torch.ones_like, lambda t: 80 * (1 - t))
    times = karras_grid(path, steps, noisiest=80, cleanest=0.002)
    np.testing.assert_allclose(80 * (1 - times[:-1]), sigmas, rtol=1e-9)
    assert times[-1] == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_only_the_signal_to_noise_ratio_counts(sampler, name):
    """At equal ratios, and with a model that tells the same data, all paths walk through the same states, but for
    their size."""
    walks = []
    for path in (get_path("cosine"), get_path(name)):
        times = karras_grid(path, 12, cleanest=0.03)[1:]

        def data(y, t, path=path):
            a, s = path.alpha(t), path.sigma(t)
            z, angle = y / (a**2 + s**2).sqrt(), torch.atan2(a, s)
            return some_data(z, angle)

        sizes = (path.alpha(times) ** 2 + path.sigma(times) ** 2).sqrt()
        sizes[-1] = 1
        walk = SAMPLERS[sampler].states(data, sizes[0] * noise_like(5), times, path, generator=new_generator(1))
        walks.append(torch.stack([y / size for (_, y), size in zip(walk, sizes, strict=True)]))
    close = 2e-3 if sampler == "heun_churn" else 1e-6  # where noise is added, the time is looked up in a table
    torch.testing.assert_close(walks[0], walks[1], rtol=close, atol=close)


# Orders, ends and prices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("sampler", "order"), [("ddim", 1), ("dpm_solver_2m", 2), ("dpm_solver_3m", 3), ("unipc", 3), ("heun", 2)]
)
def test_error_falls_with_the_order(sampler, order, name):
    """On one Gaussian the flow is known: (y_t - alpha m) / sqrt(alpha^2 v + sigma^2) is the same at all times.

    The first steps, of lower order for want of evaluations before them, are as short as their order asks.
    """
    path, mean, variance = get_path(name), 0.7, 0.3

    def at(t):
        time = torch.as_tensor(float(t), dtype=torch.float64)
        alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
        return alpha, alpha**2 * variance + sigma**2

    def data(y, t):
        alpha, total = at(t)
        return mean + alpha * variance / total * (y - alpha * mean)

    start, end, z = 0.1, 0.9, noise_like(5)
    (a0, v0), (a1, v1) = at(start), at(end)
    counts, errors = [128, 256, 512, 1024], []
    for n in counts:
        times = torch.linspace(start, end, n + 1, dtype=torch.float64)
        times = torch.cat([start + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64) / n**2, times[1:]])
        found = last(SAMPLERS[sampler].states(data, a0 * mean + v0**0.5 * z, times, path))
        errors.append(float((found - (a1 * mean + v1**0.5 * z)).abs().max()))
    slope = np.polyfit(-np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("sampler", "order"), [("ddpm", 1), ("heun_churn", 2)])
def test_the_spread_of_noisy_draws_is_right_to_the_order(sampler, order, monkeypatch):
    """For one Gaussian a draw is a weighted sum of the start and of the noises. Here each of them is a unit vector of
    its own, so that the sum's squared length is the variance of the draws, without chance."""
    path, variance, start, end = get_path("cosine"), 0.3, 0.1, 0.9
    counts, errors = [32, 64, 128, 256], []

    def spread(t):
        return path.alpha(t) ** 2 * variance + path.sigma(t) ** 2

    def data(y, t):
        return path.alpha(t) * variance / spread(t) * y

    for n in counts:
        units = iter(torch.eye(n + 1, dtype=torch.float64))
        monkeypatch.setattr("everymode.solvers.exponential.normal", lambda *_, units=units, **__: next(units)[None])
        times = torch.linspace(start, end, n + 1, dtype=torch.float64)
        begin = spread(times[0]).sqrt() * next(units)[None]
        found = last(SAMPLERS[sampler].states(data, begin, times, path))
        errors.append(abs(float(found.square().sum() - spread(times[-1]))))
    assert float(np.polyfit(-np.log(counts), np.log(errors), 1)[0]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_draw_ends_in_the_last_data_that_the_model_told(sampler, name, spacing):
    """No noise is left at t = 1, on any path; all is finite in float32; the price is what is declared.

    What UniPC and 3M land on is the polynomial through their last data, in the signal's share.
    """
    path, told = get_path(name), []

    def data(y, t):
        assert t.shape == ()
        assert y.dtype == t.dtype == torch.float32
        told.append(some_data(y, t))
        return told[-1]

    for steps in (1, 2, 3, 16):
        told.clear()
        times = SPACINGS[spacing](path, steps)
        start = path.prior_scale * noise_like(4, dtype=torch.float32)
        found = list(get_sampler(sampler).states(data, start, times, path, generator=new_generator(0)))
        assert [t for t, _ in found] == times.tolist()
        assert all(torch.isfinite(y).all() for _, y in found)
        assert found[0][1] is start
        landed, through = told[-1], min(steps, {"unipc": 2, "dpm_solver_3m": 3}.get(sampler, 1))
        if through > 1:
            shares = torch.atan2(path.alpha(times), path.sigma(times)).sin()[-1 - through : -1].numpy()
            weights = [np.prod([(1 - o) / (s - o) for o in shares if o != s]) for s in shares]
            landed = sum(float(w) * data for w, data in zip(weights, told[-through:], strict=True))
        close = {"rtol": 0, "atol": 0} if through == 1 else {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(found[-1][1], landed, **close)
        assert len(told) == SAMPLERS[sampler].evaluations(steps)
        assert em.Diffusion(path=path, sampler=sampler, spacing=spacing, steps=steps).nfe == len(told)


@pytest.mark.parametrize("name", PATHS)
def test_the_grid_is_even_in_the_seventh_root_of_sigma_over_alpha(name):
    path = get_path(name)
    times = karras_grid(path, 20)
    assert (times[0], times[-1], len(times)) == (0, 1, 21)
    inner = times[1:-1]
    roots = (path.sigma(inner) / path.alpha(inner)) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(18), rtol=1e-6, atol=1e-9)
    cleanest = 0.02 if name == "ve" else 0.01  # 've' ends at .01
    assert float(roots[-1]) ** 7 == pytest.approx(cleanest)
    assert float(roots[0] - roots.diff().mean()) ** 7 == pytest.approx(10)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("times", [[1.0, 0.5], [0.0, 0.7, 0.6], [0.0, 1.5], [-0.1, 1.0], [0.0]])
def test_times_that_do_not_lead_to_the_data_are_refused(sampler, times):
    with pytest.raises(SettingError, match="times must"):
        last(SAMPLERS[sampler].states(some_data, noise_like(2), torch.tensor(times), get_path("cosine")))
    with pytest.raises(SettingError, match="eta=2"):
        last(ddim(some_data, noise_like(2), karras_grid(get_path("cosine"), 4), get_path("cosine"), eta=2))


# Draws from the exact answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("sampler", "steps"),
    [("dpm_solver_2m", 48), ("dpm_solver_3m", 48), ("unipc", 48), ("heun", 32), ("ddim", 200), ("ddpm", 400)],
)
def test_with_the_exact_data_each_sampler_draws_the_mixture(sampler, steps, name):
    """4000 draws: nearly all within the 99.9 % region of a component, weights within four standard errors, and each
    component's spread about its mean within 6 %."""
    n, path = 4000, get_path(name)
    start = path.prior_scale * noise_like(n)
    states = SAMPLERS[sampler].states(
        expected_data(path), start, karras_grid(path, steps), path, generator=new_generator(5)
    )
    draws = last(states).numpy()
    whitened = np.stack(
        [
            np.linalg.solve(np.linalg.cholesky(c), (draws - m).T).T
            for m, c in zip(MIXTURE.means, MIXTURE.covariances, strict=True)
        ],
        axis=1,
    )
    squares = (whitened**2).sum(axis=-1)
    nearest = squares.argmin(axis=1)
    valid = squares.min(axis=1) < 13.82  # of chi^2 with two degrees of freedom
    assert valid.mean() > 0.99
    shares = np.bincount(nearest, minlength=3) / n
    truth = MIXTURE.weights
    assert np.all(np.abs(shares - truth) < 4 * np.sqrt(truth * (1 - truth) / n))
    for k in range(3):
        spread = np.sqrt(squares[valid & (nearest == k), k].mean() / 2)
        assert spread == pytest.approx(1, abs=0.06)


def standard(means, variances):
    """Weights, means and variances of equal normals at `means` (k, d), standardised; `variances` (k,)."""
    means = np.asarray(means, dtype=float)
    scale = np.sqrt(means.var(axis=0) + np.mean(variances))
    axes = np.eye(means.shape[1])
    covariances = [v * axes / scale**2 for v in variances]
    return GaussianMixture(np.full(len(means), 1 / len(means)), (means - means.mean(axis=0)) / scale, covariances)


FIELDS = {
    "three": MIXTURE,
    "two": standard([[-1.0], [1.0]], [0.04, 0.09]),
    "overlapping": standard([[-1.0], [1.0]], [0.25, 0.25]),
    "grid": standard([[i, j] for i in range(5) for j in range(5)], [0.0081] * 25),
    "in five dimensions": standard(np.random.default_rng(0).normal(size=(6, 5)), [0.09] * 6),
}


def far(states, reference):
    """Median and mean distance of where states end to the reference."""
    distances = (last(states) - reference).norm(dim=1)
    return np.array([float(distances.median()), float(distances.mean())])


@pytest.fixture(scope="module", params=FIELDS)
def field(request):
    """What a perfect model of a field tells on the cosine path, and 300 draws of unit noise."""
    mixture = FIELDS[request.param]
    noise = torch.randn(300, mixture.means.shape[1], generator=new_generator(0), dtype=torch.float64)
    return expected_data(get_path("cosine"), mixture), noise


def test_ten_evaluations_of_dpm_solver_are_worth_twenty_of_heuns(field):
    """Both as published: DPM-Solver++ (2M) evenly in lambda, and EDM's Heun in sigma on its own grid, over the sigma /
    alpha of the 'vp' path from t = 0 to t = .999, with a last step that lands on the data. Nearer to where 1,000 steps
    lead, in the median and in the mean."""
    (data, noise), path, most, least = field, get_path("cosine"), 152.0, 0.0103

    def at(sigma):
        return torch.atan2(torch.ones_like(sigma), sigma) * 2 / math.pi

    def two_m(steps):
        sigmas = torch.from_numpy(np.geomspace(most, least, steps))
        times = torch.cat([at(sigmas), torch.ones(1, dtype=torch.float64)])
        return dpm_solver_2m(data, path.alpha(times[0]) * most * noise, times, path)

    def edms(steps):
        sigmas = torch.linspace(most ** (1 / 7), least ** (1 / 7), steps, dtype=torch.float64) ** 7
        evaluations = []

        def denoised(x, sigma):
            evaluations.append(sigma)
            return data(x / (1 + sigma**2).sqrt(), at(sigma))

        x = last(integrate(lambda x, sigma: (x - denoised(x, sigma)) / sigma, most * noise, sigmas, "heun"))
        yield 1.0, denoised(x, sigmas[-1])
        assert len(evaluations) == 2 * steps - 1

    reference = last(two_m(1000))
    assert np.all(far(two_m(10), reference) <= far(edms(10), reference))


def test_ten_evaluations_of_unipc_come_near_nineteen_of_our_own_heun(field):
    """Our Heun goes by the angle and is some ten times nearer than EDM's. UniPC, with polynomials in the signal's
    share, is nearer yet in the median, and in the mean, where the few draws that change modes count, within a sixth of
    it. In lambda it is farther, and so is 3M; 3M is two to four times as far as Heun even in the share."""
    (data, noise), path = field, get_path("cosine")
    reference = last(unipc(data, noise, karras_grid(path, 400), path))

    def away(states, **grid):
        return far(states(data, noise, karras_grid(path, 10, **grid), path), reference)

    by_heun = away(heun)
    ours = away(unipc, noisiest=5, cleanest=0.02)
    assert np.all(ours <= [0.8 * by_heun[0], 7 / 6 * by_heun[1]])
    for order, correct, method in ((2, True, unipc), (3, False, dpm_solver_3m)):
        in_lambda = away(partial(multistep, order=order, correct=correct, along="lambda"))
        assert np.all(away(method) <= 0.6 * in_lambda)


@pytest.mark.parametrize("along", ["share", "lambda"])
def test_a_polynomial_of_the_data_is_followed_exactly(along):
    """Data that are a square along the way, whatever the state: exact as soon as there are three nodes."""
    path = get_path("linear")
    times = torch.linspace(0.2, 0.8, 8, dtype=torch.float64)

    def data(y, t):
        ratio = path.alpha(t.double()) / path.sigma(t.double())
        at = ratio.log() if along == "lambda" else ratio.atan().sin()
        return (1 + 2 * at - at**2) * torch.ones_like(y)

    y = noise_like(3)
    coarse = [list(multistep(data, y, times, path, order=order, along=along)) for order in (2, 3)]
    for order, states in zip((2, 3), coarse, strict=True):
        (start, at_start), (end, at_end) = states[order], states[order + 1]
        fine = torch.linspace(start, end, 4001, dtype=torch.float64)
        exact = last(multistep(data, at_start, fine, path, order=1))
        wrong = float((at_end - exact).abs().max())
        assert (wrong < 1e-3) == (order == 3)


# What a network is asked for ---------------------------------------------------------------------------------------


class Exact(nn.Module):
    """Answers with the conditional expectation of what it is asked for, times `factor`, plus `off`."""

    def __init__(self, path, asked, scaled, factor, off):
        super().__init__()
        self.path, self.asked, self.scaled, self.factor, self.off = path, asked, scaled, factor, off

    def forward(self, seen, t, embedding):
        a, s = (f(t.double()).reshape(-1, 1) for f in (self.path.alpha, self.path.sigma))
        norm = (a**2 + s**2).sqrt()
        y_t = seen.double() * (norm if self.scaled else 1)
        data = conditional_mean(y_t, a, s)
        noise = (y_t - a * data) / s
        answer = {"data": data, "noise": noise, "v": (a * noise - s * data) / norm}[self.asked]
        return (self.factor * answer + self.off).to(seen.dtype)


def exact(path, target, precondition, *, weighting="uniform", factor=1.0, off=0.0):
    """A model whose network is perfect, or off by `factor` and `off`."""
    family = em.Diffusion(
        path=path, target=target, precondition=precondition, weighting=weighting, time_sampling="uniform"
    )
    asked = "v" if precondition else target
    network = Exact(get_path(path), asked, precondition, factor, off)
    return family.build(PLAIN, NOTHING, network=lambda shape, width: network)


ASKED = [("v", True), ("v", False), ("noise", False), ("data", False)]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("target", "precondition"), ASKED)
def test_every_target_tells_the_same_data_and_the_same_velocity(target, precondition, name):
    """With the network's best answer, E[y | y_t] and the marginal velocity come out in closed form."""
    model, path = exact(name, target, precondition), get_path(name)
    x = torch.zeros(50, 0)
    for t in (0.3, 0.6, 0.9):
        time = torch.tensor(t, dtype=torch.float64)
        noise = noise_like(50, seed=1)
        y_t = path.alpha(time) * torch.from_numpy(MIXTURE.sample(50, seed=2)) + path.sigma(time) * noise
        told = expected_data(path)(y_t, time)
        torch.testing.assert_close(model.data(y_t, time, model.encode(x)), told, rtol=1e-9, atol=1e-9)
        velocity = path.convert(told, y_t, time, given="data", wanted="velocity")
        torch.testing.assert_close(model.velocity(y_t, time, x), velocity, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("target", "precondition"), ASKED)
def test_the_best_answer_is_the_conditional_expectation(target, precondition, weighting):
    """The loss as a function of an offset d of all answers is a parabola with its foot at the conditional expectation
    (within four standard errors over rows and noise) and the curvature of the weight; other answers are worse."""
    rows, d = 4000, 0.3
    y, x = torch.from_numpy(MIXTURE.sample(rows, seed=8)).float(), torch.zeros(rows, 0)

    def losses(**answers):
        model = exact("cosine", target, precondition, weighting=weighting, **answers)
        return model.loss(y, x, generator=new_generator(9)).double()

    def standard_errors_from_0(values):
        return float(values.mean() / values.std()) * rows**0.5

    up, best, down = losses(off=d), losses(), losses(off=-d)
    assert abs(standard_errors_from_0(up - down)) < 4
    family = em.Diffusion(target=target, precondition=precondition, weighting=weighting, time_sampling="uniform")
    replay = new_generator(9)
    normal((rows, 2), replay, like=y)
    weight = family.weight(draw_times("uniform", family._path, rows, replay, like=y), y)[:, 0].double()
    torch.testing.assert_close(up + down - 2 * best, 2 * d**2 * weight, rtol=1e-2, atol=1e-3 * float(weight.mean()))
    for factor in (0.7, 1.3):
        assert standard_errors_from_0(losses(factor=factor) - best) > 4


class Turned(nn.Module):
    """A network's answers, divided by -`factor`."""

    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, *inputs):
        return -self.network(*inputs) / self.factor


@pytest.mark.parametrize("time_sampling", TIME_SAMPLING)
@pytest.mark.parametrize(("name", "precondition"), [*((name, True) for name in PATHS), ("cosine", False)])
def test_v_prediction_is_flow_matching(name, precondition, time_sampling):
    """With preconditioning both ask the network for the same number but for its sign, on every path; without it, on
    the cosine path, the velocity is -pi / 2 times v, so the losses differ by (pi / 2)^2."""
    factor = 1.0 if precondition else math.pi / 2
    settings = {"path": name, "precondition": precondition, "time_sampling": time_sampling}
    with seeded(1):
        network = ResidualMLP((2,), 16, width=16, depth=1)
        nn.init.constant_(network.leave.bias, 0.5)  # an answer that is not near 0
    flow = em.FlowMatching(**settings).build(PLAIN, NOTHING, width=16, network=lambda *_: network)
    diffusion = em.Diffusion(**settings).build(PLAIN, NOTHING, width=16, network=lambda *_: Turned(network, factor))
    y, x = noise_like(64, seed=4, dtype=torch.float32), torch.zeros(64, 0)
    losses = [model.loss(y, x, generator=new_generator(2)) for model in (flow, diffusion)]
    torch.testing.assert_close(losses[0], factor**2 * losses[1], rtol=2e-4, atol=2e-4)
    for t in (0.0, 0.3, 1.0 if name in ("linear", "cosine") else 0.95):
        velocities = [model.velocity(y, torch.tensor(t), x) for model in (flow, diffusion)]
        torch.testing.assert_close(velocities[0], velocities[1], rtol=2e-4, atol=2e-4)


# Weightings --------------------------------------------------------------------------------------------------------


def weights(target, weighting, path="cosine", time_sampling="uniform", n=200_000):
    """The weight on the squared error of an unpreconditioned `target` at the times of training, and snr there."""
    like = torch.zeros(n, dtype=torch.float64)
    t = draw_times(time_sampling, get_path(path), n, new_generator(0), like=like)
    settings = {"target": target, "weighting": weighting, "time_sampling": time_sampling}
    weight = em.Diffusion(path=path, precondition=False, **settings).weight(t, like)
    path = get_path(path)
    return weight, (path.alpha(t) / path.sigma(t)).square()


@pytest.mark.parametrize("name", PATHS)
def test_min_snr_is_the_published_one(name):
    """Hang et al. (2023): min(snr, 5) for data, over snr for noise, over snr + 1 for v."""
    for target, published in (
        ("data", lambda snr: snr.clamp_max(5)),
        ("noise", lambda snr: snr.clamp_max(5) / snr),
        ("v", lambda snr: snr.clamp_max(5) / (snr + 1)),
    ):
        weight, snr = weights(target, "min_snr", name)
        inside = (snr > 1e-3) & (snr < 1e3)  # beyond, weights are held finite
        torch.testing.assert_close(weight[inside], published(snr)[inside], rtol=1e-6, atol=1e-9)


def bump(snr):
    """How far off some model is at each noise level, say."""
    return torch.exp(-0.3 * (snr.log() - 1.3).square())


@pytest.mark.parametrize("time_sampling", TIME_SAMPLING)
@pytest.mark.parametrize("name", PATHS)
def test_sigmoid_and_edm_are_integrals_over_the_noise_levels_whatever_the_path_and_the_times(name, time_sampling):
    """Kingma and Gao (2023): integral of sigmoid(2 - lambda) error of noise; Karras et al. (2022): mean over
    log sigma = -1.2 + 1.2 normal of (sigma^2 + 1) / sigma^2 error of the data at alpha = 1."""
    lam = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    step = float(lam[1] - lam[0])
    snr = lam.exp()
    kingma = (torch.sigmoid(2 - lam) * bump(snr)).sum() * step
    log_sigma = -lam / 2
    density = torch.exp(-0.5 * ((log_sigma + 1.2) / 1.2).square()) / (1.2 * math.sqrt(2 * math.pi))
    karras = (density * (1 / snr + 1) * snr * bump(snr)).sum() * step / 2
    for weighting, target, expected in (("sigmoid", "noise", kingma), ("edm", "data", karras)):
        weight, levels = weights(target, weighting, name, time_sampling)
        assert float((weight * bump(levels)).mean()) == pytest.approx(float(expected), rel=2e-3)


@pytest.mark.parametrize("weighting", WEIGHTINGS[1:])
@pytest.mark.parametrize("name", PATHS)
def test_a_weighting_is_one_objective_whatever_the_target(name, weighting):
    """noise = (y_t - alpha data) / sigma, so an error of the data is alpha / sigma times as large in the noise."""
    by_data, snr = weights("data", weighting, name)
    by_noise, _ = weights("noise", weighting, name)
    by_v, _ = weights("v", weighting, name)
    inside = (snr > 1e-3) & (snr < 1e3)
    torch.testing.assert_close(by_data[inside], (by_noise * snr)[inside], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(by_data[inside], (by_v * (1 + snr))[inside], rtol=1e-6, atol=1e-9)
    preconditioned = em.Diffusion(path=name, weighting=weighting, target="noise")
    t = torch.linspace(0.01, 0.99, 9)
    raw = em.Diffusion(path=name, weighting=weighting, precondition=False)
    like = torch.zeros(9)
    assert torch.equal(preconditioned.weight(t, like), raw.weight(t, like))


@pytest.mark.parametrize("name", PATHS)
def test_uniform_weighting_counts_the_targets_own_error(name):
    """Ho et al.'s simple loss and its like: weight 1 without preconditioning, the error's own units with it."""
    t = torch.linspace(0, 1, 11)
    path, like = get_path(name), torch.zeros(11)
    snr = (path.alpha(t) / path.sigma(t)).square()
    for target, units in (("v", torch.ones(11)), ("noise", snr / (1 + snr)), ("data", 1 / (1 + snr))):
        assert torch.equal(em.Diffusion(path=name, target=target, precondition=False).weight(t, like), torch.ones(11))
        told = em.Diffusion(path=name, target=target).weight(t, like)
        torch.testing.assert_close(told[:-1], units[:-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PATHS)
def test_weights_are_finite_and_not_negative_up_to_the_ends(name, target, weighting):
    t = torch.cat([torch.linspace(0, 1, 101), torch.tensor([1e-7, 1e-4, 1 - 1e-4, 1 - 1e-7])])
    for precondition in (True, False):
        family = em.Diffusion(path=name, target=target, weighting=weighting, precondition=precondition)
        weight = family.weight(t, torch.zeros(len(t), 2))
        assert weight.shape == (len(t), 1)
        assert torch.isfinite(weight).all()
        assert (weight >= 0).all()
        assert weight.max() > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("target", "precondition"), ASKED)
def test_draws_stay_finite_where_a_target_is_singular(target, precondition, name, sampler):
    """An untrained network in float32: draws are of the size of data, or of the noise where they cannot be."""
    family = em.Diffusion(path=name, target=target, precondition=precondition, sampler=sampler, steps=8)
    model = family.build(PLAIN, NOTHING, width=16, depth=1).eval()
    with torch.inference_mode():
        draws = model.sample(torch.zeros(1, 0), 200, generator=new_generator(0))
        velocity = model.velocity(torch.ones(3, 2), torch.zeros(3), torch.zeros(3, 0))
    assert torch.isfinite(draws).all()
    assert torch.isfinite(velocity).all()
    assert draws.abs().max() < 1000
