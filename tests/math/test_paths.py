"""Paths: their derivatives, their four quantities, and the mixture that they carry from noise to data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from everymode.errors import SettingError
from everymode.paths import (
    PATHS,
    CosinePath,
    CustomPath,
    LinearPath,
    VEPath,
    VPPath,
    get_path,
    path_settings,
)
from everymode.problems import GaussianMixture

QUANTITIES = ("velocity", "data", "noise", "score")


def custom_path() -> CustomPath:
    """Not variance-preserving, not linear, and with automatic derivatives."""
    return CustomPath(lambda t: t**2 * (3 - 2 * t), lambda t: (1 - t) * (1 + t) ** 0.5)


MAKERS = {
    **PATHS,
    "custom": custom_path,
    "custom_vp": lambda: CustomPath(torch.sqrt, lambda t: 1 - t, lambda t: 0.5 * t.clamp_min(1e-6).rsqrt()),
    "vp_other": lambda: VPPath(beta_min=0.5, beta_max=9.0),
    "ve_other": lambda: VEPath(sigma_min=0.02, sigma_max=5.0),
}


@pytest.fixture(params=MAKERS)
def path(request):
    return MAKERS[request.param]()


@pytest.fixture
def inner_times():
    return torch.linspace(0.05, 0.95, 37, dtype=torch.float64)


def triple(path, t, shape=(3, 4), seed=0):
    """Data, noise, and all four quantities of the states between them, one row a time."""
    generator = torch.Generator().manual_seed(seed)
    data, noise = (torch.randn(len(t), *shape, generator=generator, dtype=t.dtype) for _ in range(2))
    y_t, velocity = path.interpolate(data, noise, t)
    score = -noise / path.sigma(t).reshape(-1, *(1 for _ in shape))
    return y_t, {"velocity": velocity, "data": data, "noise": noise, "score": score}


def test_derivatives_are_those_of_autograd_and_of_differences(path, inner_times):
    t, h = inner_times.clone().requires_grad_(), 1e-5
    for value, derivative in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        stated = derivative(inner_times)
        output = value(t)
        exact = torch.zeros_like(t)
        if output.requires_grad:  # a constant has no graph
            (exact,) = torch.autograd.grad(output.sum(), t)
        torch.testing.assert_close(stated, exact, rtol=1e-10, atol=1e-12)
        # error h^2 f''' / 6, and f''' is below 2e4 here (the slope of ve's sigma)
        differences = (value(inner_times + h) - value(inner_times - h)) / (2 * h)
        torch.testing.assert_close(stated, differences, rtol=1e-6, atol=1e-6)


def test_every_quantity_gives_every_other(path, inner_times):
    """All twelve maps, and so all inverses; rounding is amplified by 1 / alpha (100 at most) and sigma / alpha."""
    y_t, values = triple(path, inner_times)
    for given, wanted in itertools.permutations(QUANTITIES, 2):
        found = path.convert(values[given], y_t, inner_times, given=given, wanted=wanted)
        torch.testing.assert_close(found, values[wanted], rtol=1e-9, atol=1e-9, msg=f"{given} to {wanted}")
    assert path.convert(values["data"], y_t, inner_times, given="data", wanted="data") is values["data"]


def test_a_scalar_time_is_a_time_for_every_row(path):
    t = torch.full((5,), 0.3, dtype=torch.float64)
    y_t, values = triple(path, t)
    for given, wanted in itertools.permutations(QUANTITIES, 2):
        rows = path.convert(values[given], y_t, t, given=given, wanted=wanted)
        scalar = path.convert(values[given], y_t, t[0], given=given, wanted=wanted)
        torch.testing.assert_close(scalar, rows, rtol=1e-12, atol=0)


def test_the_velocity_is_the_derivative_of_the_state(path, inner_times):
    generator = torch.Generator().manual_seed(1)
    data, noise = (torch.randn(37, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    y_t, slope = torch.func.jvp(
        lambda t: path.interpolate(data, noise, t)[0], (inner_times,), (torch.ones(37, dtype=torch.float64),)
    )
    alpha, sigma = path.alpha(inner_times)[:, None], path.sigma(inner_times)[:, None]
    torch.testing.assert_close(y_t, alpha * data + sigma * noise)
    torch.testing.assert_close(path.interpolate(data, noise, inner_times)[1], slope, rtol=1e-10, atol=1e-12)


def test_noise_at_zero_and_data_at_one(path):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    (alpha_0, alpha_1), (sigma_0, sigma_1) = path.alpha(ends).tolist(), path.sigma(ends).tolist()
    assert alpha_1 == pytest.approx(1, abs=1e-12)
    assert path.prior_scale == sigma_0
    if isinstance(path, VEPath):
        assert alpha_0 == 1
        assert (sigma_0, sigma_1) == pytest.approx((path.sigma_max, path.sigma_min))
    elif isinstance(path, VPPath):
        assert alpha_0 == pytest.approx(math.exp(-(path.beta_max + path.beta_min) / 4))  # not 0, by design
        assert sigma_1 == 0
    else:
        assert (alpha_0, sigma_0, sigma_1) == pytest.approx((0, 1, 0), abs=1e-12)


def test_the_signal_only_grows(path):
    t = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    assert ((path.alpha(t) / path.sigma(t)).diff() > 0).all()


@pytest.mark.parametrize("path", [CosinePath(), VPPath(), VPPath(beta_min=1.0, beta_max=12.0)], ids=repr)
def test_variance_is_preserved(path):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(path.alpha(t).square() + path.sigma(t).square(), torch.ones_like(t))
    torch.testing.assert_close(
        (path.alpha(t) * path.d_alpha(t) + path.sigma(t) * path.d_sigma(t))[:-1],
        torch.zeros(100, dtype=torch.float64),
        rtol=0,
        atol=1e-9,
    )


def test_vp_solves_its_own_equation():
    """Song et al. (2021): d log alpha / ds = -beta(s) / 2 with beta linear from beta_min to beta_max, s = 1 - t."""
    path, t = VPPath(beta_min=0.2, beta_max=15.0), torch.linspace(0, 1, 21, dtype=torch.float64)
    beta = 0.2 + (15.0 - 0.2) * (1 - t)
    torch.testing.assert_close(path.d_alpha(t) / path.alpha(t), beta / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_conversions_stay_finite_at_both_ends(path, dtype):
    t = torch.tensor([0.0, 1.0], dtype=dtype)
    generator = torch.Generator().manual_seed(2)
    value, y_t = (torch.randn(2, 3, generator=generator, dtype=dtype) for _ in range(2))
    for given, wanted in itertools.permutations(QUANTITIES, 2):
        found = path.convert(value, y_t, t, given=given, wanted=wanted)
        assert torch.isfinite(found).all(), f"{given} to {wanted}"
        assert found.dtype == dtype


# A mixture of Gaussians, carried from noise to data ---------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture():
    return GaussianMixture(
        [0.3, 0.7], [[-1.0, 0.5], [0.8, -0.4]], [[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]]
    )


def marginal(path, mixture, y_t, t, wanted):
    """The closed form of `wanted` at y_t (rows, 2) and one time."""
    time = torch.tensor(t, dtype=torch.float64)
    data = mixture.expected_data(y_t, float(path.alpha(time)), float(path.sigma(time)))
    return path.convert(torch.from_numpy(data), torch.from_numpy(y_t), time, given="data", wanted=wanted).numpy()


def log_density(path, mixture, y_t, t):
    time = torch.tensor(t, dtype=torch.float64)
    return mixture.log_density_at(y_t, float(path.alpha(time)), float(path.sigma(time)))


def states(path, mixture, t, rows=40):
    """Draws of y_t, so that all is compared where it matters."""
    time = torch.tensor(t, dtype=torch.float64)
    noise = np.random.default_rng(1).standard_normal((rows, 2))
    return float(path.alpha(time)) * mixture.sample(rows, 0) + float(path.sigma(time)) * noise


@pytest.mark.parametrize("t", [0.1, 0.35, 0.6, 0.9])
def test_the_score_is_the_gradient_of_the_log_density(path, mixture, t):
    y_t = states(path, mixture, t)
    scale = np.std(y_t)
    h = 1e-4 * scale
    slopes = [
        (log_density(path, mixture, y_t + e, t) - log_density(path, mixture, y_t - e, t)) / (2 * h)
        for e in h * np.eye(2)
    ]
    score = marginal(path, mixture, y_t, t, "score")
    np.testing.assert_allclose(score, np.stack(slopes, axis=-1), rtol=1e-5, atol=1e-5 / scale)


@pytest.mark.parametrize("t", [0.1, 0.35, 0.6, 0.9])
def test_the_marginal_velocity_obeys_the_continuity_equation(path, mixture, t):
    """d log p_t / dt = -div u - u . grad log p_t: the field E[velocity | y_t] carries p_0 to p_1."""
    y_t = states(path, mixture, t)
    h, scale = 1e-4, np.std(y_t)
    in_time = (log_density(path, mixture, y_t, t + h) - log_density(path, mixture, y_t, t - h)) / (2 * h)
    velocity, score = (marginal(path, mixture, y_t, t, wanted) for wanted in ("velocity", "score"))
    steps = h * scale * np.eye(2)
    divergence = sum(
        (marginal(path, mixture, y_t + e, t, "velocity")[:, i] - marginal(path, mixture, y_t - e, t, "velocity")[:, i])
        / (2 * h * scale)
        for i, e in enumerate(steps)
    )
    expected = -divergence - (velocity * score).sum(axis=1)
    np.testing.assert_allclose(in_time, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# What is refused ---------------------------------------------------------------------------------------------------


def one(t):
    return torch.ones_like(t)


BAD = {
    "time reversed": (lambda t: 1 - t, lambda t: t, "reverse"),
    "no data at 1": (lambda t: 0.5 * t, lambda t: 1 - t, "alpha must be 1"),
    "noise left at 1": (lambda t: t, lambda t: 1 - 0.5 * t, "sigma 0"),
    "not a number": (lambda t: t * math.nan, lambda t: 1 - t, "alpha must be 1"),
    "wrong shape": (lambda t: t[:1], lambda t: 1 - t, "shape"),
    "a number, not a tensor of times": (lambda t: torch.ones(()), lambda t: 1 - t, "shape"),
    "no noise": (one, torch.zeros_like, "keep its sign"),
    "a pause": (one, lambda t: torch.where(t < 0.5, 0.5 * one(t), 1 - t), "keep its sign"),
    "infinite slope": (lambda t: t, lambda t: (1 - t) ** 0.5, "finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_paths_are_refused(name):
    alpha, sigma, message = BAD[name]
    with pytest.raises(SettingError, match=message):
        CustomPath(alpha, sigma)


def test_a_path_whose_signal_falls_for_a_while_is_refused():
    """The determinant changes its sign, so it is 0 somewhere between: velocity gives no data there."""
    with pytest.raises(SettingError, match="keep its sign"):
        CustomPath(lambda t: t + 0.4 * torch.sin(4 * math.pi * t), lambda t: 1 - t)


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: VPPath(beta_min=0.0), "beta_min"),
        (lambda: VPPath(beta_min=2.0, beta_max=1.0), "beta_max"),
        (lambda: VEPath(sigma_min=0.0), "sigma_min"),
        (lambda: VEPath(sigma_max=1.0), "sigma_max"),
        (lambda: VEPath(sigma_min=math.nan), "sigma_min"),
    ],
)
def test_settings_out_of_range_are_named(make, setting):
    with pytest.raises(SettingError, match=setting):
        make()


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(SettingError, match="'cosine'"):
        get_path("cosin")
    with pytest.raises(SettingError, match="path=3"):
        get_path(3)
    ones = torch.ones(2, 1)
    for given, wanted in (("speed", "data"), ("data", "speed")):
        with pytest.raises(SettingError, match="speed"):
            LinearPath().convert(ones, ones, torch.ones(2), given=given, wanted=wanted)


@pytest.mark.parametrize(
    "path", [LinearPath(), CosinePath(), VPPath(0.3, 14.0), VEPath(0.02, 9.0)], ids=lambda p: p.name
)
def test_settings_make_the_path_again(path):
    described = path_settings(path)
    again = PATHS[described.pop("name")](**described)
    t = torch.linspace(0, 1, 11)
    assert type(again) is type(path)
    assert torch.equal(again.alpha(t), path.alpha(t))
    assert torch.equal(again.sigma(t), path.sigma(t))
    assert get_path(path) is path
    with pytest.raises(SettingError, match="register"):
        path_settings(custom_path())


def test_times_are_found_by_their_ratio_of_data_to_noise(path, inner_times):
    ratio = path.alpha(inner_times).log() - path.sigma(inner_times).log()
    torch.testing.assert_close(path.time_at(ratio), inner_times, rtol=0, atol=2e-5)
    ends = path.time_at(torch.tensor([-60.0, 60.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-6)
