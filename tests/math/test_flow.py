"""Flow matching against closed forms: its field, its gradient, its draws, and where it fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import everymode as em
from everymode.families.times import draw_times
from everymode.paths import PATHS, get_path
from everymode.problems import GaussianMixture
from everymode.randomness import new_generator, normal
from everymode.solvers import last, time_grid
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

PLAIN, NOTHING = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0)), VectorSpace((0,), (), ())


def standardised(weights, means, covariances):
    """The mixture after the affine map that gives it mean 0 and covariance 1."""
    raw = GaussianMixture(weights, means, covariances)
    whiten = np.linalg.inv(np.linalg.cholesky(raw.covariance()))
    return GaussianMixture(weights, (raw.means - raw.mean()) @ whiten.T, whiten @ raw.covariances @ whiten.T)


MIXTURE = standardised(
    [0.2, 0.5, 0.3],
    [[-1.3, 0.2], [0.4, 1.0], [0.5, -1.2]],
    [[[0.10, 0.03], [0.03, 0.10]], [[0.15, -0.05], [-0.05, 0.10]], [[0.06, 0.0], [0.0, 0.20]]],
)
# float64 leaves 1e-15 of the means: the spaces need no shift and no scale
assert np.abs(MIXTURE.mean()).max() < 1e-12
assert np.abs(MIXTURE.covariance() - np.eye(2)).max() < 1e-12


def fit(family, y, x, y_space, x_space, *, seed=0, width=64, depth=2, **settings):
    built = family.build(y_space, x_space, seed=seed, width=width, depth=depth)
    for _ in train(built, y, x, settings=TrainingSettings(**{"learning_rate": 3e-3, "seed": seed, **settings})):
        pass
    return built.eval()


def fit_mixture(path, *, rows=50_000, **settings):
    y = torch.from_numpy(MIXTURE.sample(rows, seed=0)).float()
    return fit(em.FlowMatching(path=path, time_sampling="uniform"), y, torch.zeros(rows, 0), PLAIN, NOTHING, **settings)


_FITTED = {}


def fitted(path):
    """A flow on the mixture along `path`, trained once."""
    if path not in _FITTED:
        _FITTED[path] = fit_mixture(path, steps=1000)
    return _FITTED[path]


# The field ---------------------------------------------------------------------------------------------------------


def coefficients(path, t):
    time = torch.tensor(t, dtype=torch.float64)
    return [float(f(time)) for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)]


def marginal_velocity(path, y_t, t):
    """E[velocity | y_t] in closed form, for y_t (rows, 2) at one time."""
    alpha, sigma, _, _ = coefficients(path, t)
    data, time = MIXTURE.expected_data(y_t, alpha, sigma), torch.tensor(t, dtype=torch.float64)
    return path.convert(torch.from_numpy(data), torch.from_numpy(y_t), time, given="data", wanted="velocity").numpy()


def errors_of_field(field, path, rows=1000):
    """Mean squares over p_t and 25 times of the field's error, of the velocity, and of its part that is not linear
    in y_t; each time in the units of its own loss."""
    totals = np.zeros(3)
    for k, t in enumerate(np.linspace(0.02, 0.98, 25)):
        alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
        noise = np.random.default_rng(k).standard_normal((rows, 2))
        y_t = alpha * MIXTURE.sample(rows, seed=1000 + k) + sigma * noise
        exact = marginal_velocity(path, y_t, t)
        linear = (alpha * d_alpha + sigma * d_sigma) / (alpha**2 + sigma**2) * y_t
        unit = (alpha * d_sigma - d_alpha * sigma) ** 2 / (alpha**2 + sigma**2)
        parts = (field(y_t, t) - exact, exact, exact - linear)
        totals += [np.square(part).mean() / unit for part in parts]
    return totals / 25


@pytest.mark.parametrize("name", PATHS)
def test_the_field_is_the_closed_form_marginal_velocity(name):
    """Weighted by p_t and by the loss's own units, the error is at most a quarter of what the best linear field misses.

    The linear field is what preconditioning gives for nothing; it scores 1, and a learnt field that is off by
    0.3 of y_t, in those units, is refused too.
    """
    path = em.paths.get_path(name)
    model = fitted(name)

    def learnt(y_t, t):
        with torch.inference_mode():
            x = torch.zeros(len(y_t), 0)
            return model.velocity(torch.from_numpy(y_t).float(), torch.tensor(t), x).double().numpy()

    error, whole, beyond_linear = errors_of_field(learnt, path)
    assert np.sqrt(error / beyond_linear) < 0.25
    assert np.sqrt(error / whole) < 0.25

    def off(y_t, t):
        alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
        unit = abs(alpha * d_sigma - d_alpha * sigma) / (alpha**2 + sigma**2)
        return learnt(y_t, t) + 0.3 * unit * y_t

    error, _, _ = errors_of_field(off, path)
    assert np.sqrt(error / beyond_linear) > 0.3


# The gradient ------------------------------------------------------------------------------------------------------


def gradient(model, y_t, t, target, scale):
    """The gradient of the mean squared error of the field, in the units of the loss, as one row."""
    model.zero_grad()
    embedding = model.encode(torch.zeros(len(y_t), 0))
    ((model.field(y_t, t, embedding) - target) / scale).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


@pytest.mark.parametrize("precondition", [True, False])
@pytest.mark.parametrize("name", PATHS)
def test_the_conditional_loss_has_the_gradient_of_the_marginal_loss(name, precondition):
    """Lipman et al. (2023), theorem 2. At the same (y_t, t) the two gradients differ by noise of mean 0: over
    independent batches no coordinate's mean is beyond 5.5 of its standard errors. Student's t with 63 degrees of
    freedom is beyond once in 1e6, and there are about 1e3 coordinates. A target that is off by a fifth of y_t is
    found out."""
    batches, rows = 64, 1024
    model = em.FlowMatching(path=name, precondition=precondition, time_sampling="uniform").build(
        PLAIN, NOTHING, width=8, depth=1, seed=3
    )
    path, x = em.paths.get_path(name), torch.zeros(rows, 0)
    differences, perturbed = [], []
    for batch in range(batches):
        y = torch.from_numpy(MIXTURE.sample(rows, seed=batch)).float()
        losses = model.loss(y, x, generator=new_generator(batch))
        replay = new_generator(batch)
        noise = normal(tuple(y.shape), replay, like=y)
        t = draw_times("uniform", path, rows, replay, like=y)
        y_t, conditional = path.interpolate(y, noise, t)
        alpha, sigma, d_alpha, d_sigma = path.coefficients(t.double(), y.double())
        scale = (alpha * d_sigma - d_alpha * sigma).abs() / (alpha**2 + sigma**2).sqrt()
        scale = scale.float() if precondition else torch.ones(())
        # what is differentiated below is the loss that trains
        error = (model.field(y_t, t, model.encode(x)) - conditional) / scale
        torch.testing.assert_close(error.square().mean(1), losses, rtol=2e-3, atol=2e-3)
        data = [
            MIXTURE.expected_data(row, float(a), float(s))
            for row, a, s in zip(y_t.double().numpy(), alpha, sigma, strict=True)
        ]
        marginal = path.convert(
            torch.from_numpy(np.stack(data)), y_t.double(), t.double(), given="data", wanted="velocity"
        ).float()
        expected = gradient(model, y_t, t, marginal, scale)
        differences.append(gradient(model, y_t, t, conditional, scale) - expected)
        perturbed.append(gradient(model, y_t, t, conditional + 0.2 * scale * y_t, scale) - expected)

    def largest(rows):
        rows = torch.stack(rows)
        moving = rows.std(dim=0) > 0
        return float((rows.mean(dim=0) / rows.std(dim=0))[moving].abs().max()) * batches**0.5

    assert largest(differences) < 5.5
    assert largest(perturbed) > 10


# Reproducibility ---------------------------------------------------------------------------------------------------


def test_the_seed_decides_every_bit():
    def run(seed):
        model = fit_mixture("linear", rows=1000, steps=60, seed=seed)
        with torch.inference_mode():
            draws = model.sample(torch.zeros(3, 0), 50, generator=new_generator(seed))
        return model.state_dict(), draws

    weights, draws = run(5)
    again, draws_again = run(5)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert torch.equal(draws, draws_again)
    other, other_draws = run(6)
    assert not any(torch.equal(weights[name], other[name]) for name in weights)
    assert not torch.equal(draws, other_draws)


def test_initial_weights_and_batches_have_seeds_of_their_own():
    one, same, other = (em.FlowMatching().build(PLAIN, NOTHING, seed=s, width=8, depth=1) for s in (1, 1, 2))
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if c.abs().sum() > 0 and a.abs().sum() > 0:
            assert not torch.equal(a, c)


# Draws -------------------------------------------------------------------------------------------------------------


def test_draws_have_the_moments_and_weights_of_the_mixture():
    """2500 draws in 50 steps of rk4: within four standard errors of the truth for means, covariances and weights.

    A draw is given to the component that is most probable for it, and the truth is counted in the same way from a
    hundred times as many real draws. The sample size is such that the few hundredths by which the field is off
    after seconds of training stay below a standard error.
    """
    n, model = 2500, fitted("linear")
    model.set_params(solver="rk4", steps=50)
    try:
        with torch.inference_mode():
            draws = model.sample(torch.zeros(1, 0), n, generator=new_generator(0)).double().numpy()
    finally:
        model.set_params(solver="midpoint", steps=16)
    assert draws.shape == (n, 2)
    real = MIXTURE.sample(100 * n, seed=77)

    def shares(y):
        single = [
            np.log(w) + GaussianMixture([1.0], m[None], c[None]).log_density(y)
            for w, m, c in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.covariances, strict=True)
        ]
        return np.bincount(np.argmax(single, axis=0), minlength=3) / len(y)

    truth = shares(real)
    assert np.all(np.abs(shares(draws) - truth) < 4 * np.sqrt(truth * (1 - truth) / n))
    assert np.all(np.abs(draws.mean(axis=0)) < 4 / np.sqrt(n))
    products = real[:, :, None] * real[:, None]
    error = products.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs((draws[:, :, None] * draws[:, None]).mean(axis=0) - np.eye(2)) < 4 * error)


def test_a_trajectory_ends_in_the_draw_and_passes_through_the_marginals():
    """At every time the second moment of the states is alpha^2 + sigma^2 times 1, within four standard errors."""
    n, model = 2500, fitted("cosine")
    x, times = torch.zeros(n, 0), time_grid(model.steps)
    with torch.inference_mode():
        states = list(model.trajectory(x, times, generator=new_generator(1)))
        draws = model.sample(x, generator=new_generator(1))
    assert torch.equal(states[-1][1], draws)
    for t, y_t in states:
        squares = y_t.double().square()
        error = squares.std(dim=0) / n**0.5
        assert ((squares.mean(dim=0) - 1).abs() < 4 * error).all(), t


def test_one_euler_step_is_the_average_again():
    """At t = 0 the state says nothing of y, so the field is E[y | x] - noise, and one step lands on E[y | x]."""
    problem = em.problems.get("branches")
    x, y = problem.sample(4000, seed=0)
    x_space, y_space = VectorSpace.fit(x), VectorSpace.fit(y)
    family = em.FlowMatching(solver="euler", steps=1, time_sampling="uniform")
    model = fit(family, y_space.encode(y), x_space.encode(x), y_space, x_space, steps=1000)
    assert model.nfe == 1
    fresh, n = problem.sample_x(300, seed=5), 20

    def draw(steps):
        model.set_params(steps=steps)
        with torch.inference_mode():
            drawn = model.sample(x_space.encode(fresh), n, generator=new_generator(2))
        return y_space.decode(drawn).reshape(len(fresh), n, 1)

    real = problem.sample_given(fresh, n, seed=6)
    within = np.sqrt(real.var(axis=1).mean())  # of the answers to one x: .4
    one, many = draw(1), draw(50)
    away = one - problem.mean(fresh)[:, None]
    assert np.sqrt((away**2).mean()) < 0.25 * within
    assert np.sqrt(one.var(axis=1).mean()) < 0.25 * within
    # where the average is far from all answers one step gives none; with many steps the answers are back
    around = problem.mean(fresh)[:, None] + np.linspace(-0.12, 0.12, 7)[:, None]
    between = ~problem.valid(fresh, around).any(axis=1)
    assert between.sum() > 50
    assert em.metrics.valid_share(problem, fresh[between], one[between]).value < 0.02
    assert em.metrics.valid_share(problem, fresh[between], many[between]).value > 0.8
    assert np.sqrt(many.var(axis=1).mean()) == pytest.approx(within, rel=0.1)


def test_one_step_of_the_exact_field_is_exactly_the_average():
    """The same without a network: the limit of the closed-form field at t = 0 is E[y] - noise."""
    noise = np.random.default_rng(0).standard_normal((50, 2))
    path = em.paths.get_path("linear")
    field = lambda y, t: torch.from_numpy(marginal_velocity(path, y.numpy(), float(t)))  # noqa: E731
    landed = last(em.solvers.integrate(field, torch.from_numpy(noise), time_grid(1), "euler"))
    np.testing.assert_allclose(landed, np.zeros((50, 2)), atol=1e-12)


@pytest.mark.parametrize(("how", "mean", "deviation", "even"), [("edm", 1.2, 1.2, 0), ("sharp", 1.5, 0.8, 0.2)])
@pytest.mark.parametrize("path", ["linear", "cosine", "vp"])
def test_edm_and_sharp_times_have_normal_log_ratios(path, how, mean, deviation, even):
    """All of them, or all but a fifth, which are uniform."""
    chosen = get_path(path)
    t = draw_times(how, chosen, 20_000, new_generator(0), like=torch.zeros(1, dtype=torch.float64))
    ratio = chosen.alpha(t).log() - chosen.sigma(t).log()
    for at in torch.linspace(-2.0, 5.0, 15, dtype=torch.float64):
        expected = (1 - even) * torch.special.ndtr((at - mean) / deviation) + even * chosen.time_at(at[None])[0]
        assert float((ratio < at).double().mean()) == pytest.approx(float(expected), abs=0.002)


@pytest.mark.parametrize(
    ("event", "same"), [((16,), "sharp"), ((4, 4), "sharp"), ((17,), "logit_normal"), ((1, 8, 8), "logit_normal")]
)
def test_the_times_suit_the_number_of_values(event, same):
    like, path = torch.zeros(8, *event), get_path("linear")
    drawn = [draw_times(how, path, 8, new_generator(0), like=like) for how in ("auto", same, "uniform")]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
