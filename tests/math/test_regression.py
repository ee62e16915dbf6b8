"""Regression by squared error learns E[y | x]: right about the mean, and wrong where the mean is no answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import chi2

import everymode as em
from everymode.metrics import valid_share
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

ROWS, BINS = 4000, 20


@dataclass(frozen=True)
class Fit:
    problem: em.problems.Problem
    x: np.ndarray
    predict: object


def regress(problem, rows, steps):
    """A regression on `rows` pairs: x, and a function from x to its answers, in the units of y."""
    x, y = problem.sample(rows, seed=0)
    x_space, y_space = VectorSpace.fit(x), VectorSpace.fit(y)
    family = em.MSE().build(y_space, x_space, width=64, depth=2)
    settings = TrainingSettings(steps=steps, learning_rate=3e-3, seed=0)
    for _ in train(family, y_space.encode(y), x_space.encode(x), settings=settings):
        pass
    family.eval()

    def predict(x):
        with torch.inference_mode():
            return y_space.decode(family.sample(x_space.encode(x)))

    return Fit(problem, x, predict)


@pytest.fixture(scope="module", params=["branches", "sine_fold"])
def fit(request):
    return regress(em.problems.get(request.param), ROWS, steps=1000)


def variance(problem, x):
    """Var[y | x] of a one-dimensional problem, by the trapezoidal rule over y: (rows,).

    The grid is far finer than the Gaussians of branches are wide, and ends where the density of sine_fold does.
    """
    y = np.linspace(0, 1, 301) if problem.name == "sine_fold" else np.linspace(-1.8, 2.2, 201)
    weight = np.exp(problem.log_density(x, np.broadcast_to(y[:, None], (len(x), len(y), 1))))
    weight[:, [0, -1]] /= 2
    weight /= weight.sum(axis=1, keepdims=True)
    mean = weight @ y
    np.testing.assert_allclose(mean, problem.mean(x)[:, 0], atol=1e-3)
    return weight @ y**2 - mean**2


def standard_scores(problem, x, answers):
    """In bins of x that hold equally many rows: how far answers lie from E[y | x], in the standard errors of what
    those rows can tell of it, the square root of Var[y | x] over their number. Shape (bins,)."""
    bins = np.argsort(np.argsort(x[:, 0])) * BINS // len(x)
    away, spread = (answers - problem.mean(x))[:, 0], variance(problem, x)
    return np.array([away[bins == b].sum() / np.sqrt(spread[bins == b].sum()) for b in range(BINS)])


def test_regression_is_the_conditional_mean(fit):
    """The sum of squared standard scores is at most chi-square, which exceeds its .999 quantile once in 1000."""
    scores = standard_scores(fit.problem, fit.x, fit.predict(fit.x))
    assert np.abs(scores).max() < 4, scores.round(1)
    assert (scores**2).sum() < chi2.ppf(0.999, BINS), scores.round(1)


def test_the_scores_tell_the_mean_from_other_answers(fit):
    """The most probable answer, the answer without x, and a mean off by a tenth of a deviation all fail it."""
    modes = np.stack([modes.locations[0] for modes in fit.problem.modes(fit.x)])
    mean = fit.problem.mean(fit.x)
    nudged = mean + 0.3 * np.sqrt(variance(fit.problem, fit.x))[:, None]
    for answers in (modes, np.broadcast_to(mean.mean(axis=0), mean.shape), nudged):
        assert (standard_scores(fit.problem, fit.x, answers) ** 2).sum() > 2 * chi2.ppf(0.999, BINS)


@pytest.mark.parametrize("steps", [3, 1000], ids=["hardly trained", "trained"])
def test_squared_error_is_variance_plus_squared_bias(fit, steps):
    """On fresh pairs (y - f)^2 has the mean Var[y | x] + (f - E[y | x])^2; the bias is all of it in the beginning."""
    problem = fit.problem
    predict = fit.predict if steps == 1000 else regress(problem, ROWS, steps).predict
    x, y = problem.sample(10_000, seed=99)
    answers, mean, spread = predict(x), problem.mean(x), variance(problem, x)
    bias = ((answers - mean) ** 2)[:, 0]
    rest = ((answers - y) ** 2)[:, 0] - spread - bias
    assert abs(rest.mean()) < 4 * rest.std() / np.sqrt(len(x))
    share = bias.mean() / (bias.mean() + spread.mean())
    assert share > 0.3 if steps == 3 else share < 0.02


def test_the_mean_is_no_answer_on_the_fork():
    """Half of the answers are at -3, half at 3, and regression answers 0: one error, and never a valid answer."""
    problem = em.problems.get("fork")
    fit = regress(problem, 2000, steps=300)
    x = problem.sample_x(500, seed=1)
    answers = fit.predict(x)
    # 2000 rows know the mean to 3 / sqrt(2000) = .07 overall, and a smooth curve through them to a few times that
    assert np.abs(answers).max() < 0.5
    assert valid_share(problem, x, answers[:, None]).value == 0
