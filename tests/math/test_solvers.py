"""Solvers: each has its order, forwards and backwards, and draws the noise that it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from everymode.errors import SettingError
from everymode.solvers import (
    SOLVERS,
    Tableau,
    euler_maruyama,
    get_solver,
    integrate,
    integrate_adaptively,
    last,
    steps_for,
    time_grid,
)

STARTS = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)


@pytest.fixture(params=SOLVERS)
def solver(request):
    return request.param


def field(y, t):
    """Nonlinear and nonautonomous: the solution through (0, a) is 1 / (1 / a + t + t^3)."""
    return -(1 + 3 * t**2) * y**2


def solution(t):
    return 1 / (1 / STARTS + t + t**3)


def slope(steps, errors):
    """The slope of log error on log step."""
    return float(np.polyfit(-np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_error_falls_with_the_order(solver, way):
    start, end = (0.0, 1.0) if way == "forwards" else (1.0, 0.0)
    counts = [32, 64, 128, 256]
    errors = []
    for n in counts:
        times = torch.linspace(start, end, n + 1, dtype=torch.float64)
        errors.append(float((last(integrate(field, solution(start), times, solver)) - solution(end)).abs().max()))
    assert slope(counts, errors) == pytest.approx(SOLVERS[solver].order, abs=0.15)


def test_adaptive_steps_are_of_fifth_order_and_heed_their_tolerance():
    """The error falls with the fifth power of the evaluations at least, and stays near the tolerance."""
    tolerances, calls, errors = [1e-5, 1e-7, 1e-9, 1e-11], [], []
    for tolerance in tolerances:
        asked = []

        def counting(y, t, asked=asked):
            asked.append(t)
            return field(y, t)

        found = integrate_adaptively(counting, STARTS, 0.0, 1.0, tolerance=tolerance)
        calls.append(len(asked))
        errors.append(float((found - solution(1.0)).abs().max()))
        assert errors[-1] < 10 * tolerance
    assert slope(calls, errors) > 4.5


def test_back_to_where_it_started():
    """There and back with rk4: what is left is twice the error of one way, 1e-8 at most at 64 steps."""
    times = torch.linspace(0, 1, 65, dtype=torch.float64)
    there = last(integrate(field, STARTS, times, "rk4"))
    assert (there - STARTS).abs().min() > 0.1
    torch.testing.assert_close(last(integrate(field, there, times.flip(0), "rk4")), STARTS, rtol=0, atol=1e-7)


def test_polynomials_in_time_are_exact_up_to_the_order(solver):
    """One step of any length; one degree further it is wrong, so the order is not understated."""
    order, start, end = SOLVERS[solver].order, 0.3, 1.7
    times = torch.tensor([start, end], dtype=torch.float64)
    y = torch.zeros(1, 1, dtype=torch.float64)
    for degree in range(1, order + 2):
        found = float(last(integrate(lambda y, t, d=degree: d * t ** (d - 1) * torch.ones_like(y), y, times, solver)))
        wrong = abs(found - (end**degree - start**degree))
        if degree <= order:
            assert wrong < 1e-13
        else:
            assert wrong > 1e-3


def test_one_step_on_a_linear_field_is_the_taylor_series(solver):
    """With as many stages as its order, a method's answer to y' = z y is sum z^k / k!, the exponential cut short."""
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    found = last(integrate(lambda y, t: z * y, torch.ones_like(z), torch.tensor([0.0, 1.0]), solver))
    expected = sum(z**k / math.factorial(k) for k in range(SOLVERS[solver].order + 1))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_tableaus_are_consistent(solver):
    tableau = SOLVERS[solver]
    assert sum(tableau.weights) == pytest.approx(1)
    for stage, (node, row) in enumerate(zip(tableau.nodes, tableau.matrix, strict=True)):
        assert len(row) == stage  # explicit
        assert sum(row) == pytest.approx(node)


def test_a_tableau_of_your_own_is_a_solver():
    """Ralston's third-order method, which is not built in."""
    ralston = Tableau("ralston", 3, (0, 0.5, 0.75), ((), (0.5,), (0.0, 0.75)), (2 / 9, 1 / 3, 4 / 9))
    counts = [32, 64, 128]
    errors = [
        float((last(integrate(field, STARTS, time_grid(n), ralston)) - solution(1.0)).abs().max()) for n in counts
    ]
    assert slope(counts, errors) == pytest.approx(3, abs=0.15)
    assert get_solver(ralston) is ralston


def test_states_times_and_the_price(solver):
    """Every time with its state, the first included; `stages` evaluations a step; the start is left alone."""
    calls = []

    def counting(y, t):
        assert t.shape == ()
        assert t.dtype == y.dtype
        calls.append(float(t))
        return y

    y = torch.ones(2, 3)
    times = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)
    steps = list(integrate(counting, y, times, solver))
    assert [t for t, _ in steps] == times.tolist()
    assert steps[0][1] is y
    assert torch.equal(y, torch.ones(2, 3))
    assert all(state.shape == (2, 3) for _, state in steps)
    assert len(calls) == 3 * SOLVERS[solver].stages
    assert steps_for(len(calls), solver) == 3
    assert min(calls) == 0
    assert max(calls) <= 1


def test_the_grid_spans_noise_to_data():
    grid = time_grid(7)
    assert grid.dtype == torch.float64
    assert grid.shape == (8,)
    assert (grid[0], grid[-1]) == (0, 1)
    torch.testing.assert_close(grid.diff(), torch.full((7,), 1 / 7, dtype=torch.float64))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 0.5, 0.4, 1.0], "strictly"),
        ([0.0, 0.5, 0.5, 1.0], "strictly"),
        ([0.0, math.nan, 1.0], "strictly"),
        ([0.0], "at least two"),
        ([], "at least two"),
        ([[0.0, 1.0]], "at least two"),
    ],
)
def test_bad_times_are_refused(times, message):
    y, times = torch.ones(1, 1), torch.tensor(times)
    with pytest.raises(SettingError, match=message):
        last(integrate(lambda y, t: y, y, times, "euler"))
    with pytest.raises(SettingError, match=message):
        last(euler_maruyama(lambda y, t: y, torch.ones_like, y, times, torch.Generator()))


def test_bad_settings_are_named():
    for steps in (0, -1, 2.5, "many", True):
        with pytest.raises(SettingError, match="steps="):
            time_grid(steps)
    with pytest.raises(SettingError, match="'midpoint'"):
        get_solver("midpont")
    with pytest.raises(SettingError, match="nfe=7 is no multiple of 2"):
        steps_for(7, "heun")
    with pytest.raises(SettingError, match="nfe=0"):
        steps_for(0, "euler")
    with pytest.raises(SettingError, match="at least one"):
        last(iter(()))


# Euler-Maruyama ----------------------------------------------------------------------------------------------------


def drift(y, t):
    return torch.sin(3 * y) - y * (1 + t)


def diffusion(t):
    return 0.5 + t


def test_euler_maruyama_has_strong_order_one_for_additive_noise():
    """The root-mean-square error against the same Brownian path, refined by a Brownian bridge.

    Where the noise does not depend on the state, Euler-Maruyama is Milstein's method, of strong order 1 and not
    one half (Kloeden and Platen, 1992, chapter 10.3). A log error's standard error is that of the mean square
    over twice the mean square.
    """
    paths, fine, counts = 2000, 512, [4, 8, 16, 32]
    errors, log_errors_se = [], []
    start = torch.linspace(-1, 1, paths, dtype=torch.float64)[:, None]
    for n in counts:
        generator = torch.Generator().manual_seed(n)
        found = last(euler_maruyama(drift, diffusion, start, time_grid(n), generator))
        replayed = torch.Generator().manual_seed(n)
        y, per, h = start, fine // n, 1 / fine
        bridge = torch.Generator().manual_seed(1000 + n)
        for step in range(n):
            whole = math.sqrt(1 / n) * torch.randn(paths, 1, generator=replayed, dtype=torch.float64)
            parts = math.sqrt(h) * torch.randn(per, paths, 1, generator=bridge, dtype=torch.float64)
            parts = parts + (whole - parts.sum(dim=0)) / per
            for k, part in enumerate(parts):
                t = (step * per + k) * h
                y = y + h * drift(y, t) + diffusion(t) * part
        squares = (found - y).square().flatten()
        errors.append(float(squares.mean().sqrt()))
        log_errors_se.append(float(squares.std() / math.sqrt(paths) / squares.mean() / 2))
    x = -np.log(counts)
    slope_se = np.sqrt(np.sum(((x - x.mean()) * log_errors_se) ** 2)) / np.sum((x - x.mean()) ** 2)
    assert slope_se < 0.02
    # the finest step is 1/16 of the smallest tested, so its own error tilts the slope by less than .05
    assert slope(counts, errors) == pytest.approx(1, abs=0.1 + 4 * slope_se)


@pytest.mark.parametrize("h", [0.5, 0.1])
def test_euler_maruyama_has_the_stationary_variance_of_its_recursion(h):
    """dy = -y dt + g dW: the recursion's variance is g^2 / (2 - h), which tends to the process's g^2 / 2."""
    draws, g = 100_000, 1.3
    times = h * torch.arange(round(8 / h) + 1, dtype=torch.float64)
    start = torch.zeros(draws, 1, dtype=torch.float64)
    states = euler_maruyama(lambda y, t: -y, lambda t: g, start, times, torch.Generator().manual_seed(0))
    y = last(states)
    error = math.sqrt(2 / draws) * g**2 / (2 - h)  # standard error of a Gaussian's sample variance
    assert abs(float(y.var()) - g**2 / (2 - h)) < 4 * error
    assert abs(float(y.mean())) < 4 * float(y.std()) / math.sqrt(draws)
    if h == 0.5:
        assert abs(float(y.var()) - g**2 / 2) > 20 * error  # the test can tell the two apart


@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_noise_adds_up_in_either_direction(way):
    """Without drift the variance is the sum of |h| g(t)^2 over uneven steps, g taken where the step starts."""
    times = torch.tensor([0.0, 0.1, 0.35, 0.4, 1.0], dtype=torch.float64)
    times = times if way == "forwards" else times.flip(0)
    start = torch.zeros(50_000, 1, dtype=torch.float64)
    y = last(euler_maruyama(lambda y, t: 0 * y, diffusion, start, times, torch.Generator().manual_seed(1)))
    expected = float((times.diff().abs() * diffusion(times[:-1]).square()).sum())
    assert abs(float(y.var()) - expected) < 4 * expected * math.sqrt(2 / len(y))


def test_without_noise_it_is_euler():
    found = last(euler_maruyama(field, torch.zeros_like, STARTS, time_grid(10), torch.Generator()))
    torch.testing.assert_close(found, last(integrate(field, STARTS, time_grid(10), "euler")), rtol=0, atol=0)


def test_the_generator_decides_the_noise():
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return last(euler_maruyama(drift, diffusion, STARTS, time_grid(5), generator))

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))
