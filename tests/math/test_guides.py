"""Classifier guidance and autoguidance: exact tilts of a normal, nothing at the neutral weight, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import everymode as em
from everymode.control import Control
from everymode.errors import DataError, SettingError, UnsupportedError
from everymode.families import get_family
from everymode.guidance import Autoguidance, Classifier, ClassifierFree, away_from
from everymode.paths import get_path
from everymode.randomness import new_generator
from everymode.solvers import get_method, karras_grid, time_grid

FLOWS = ("flow_matching", "diffusion")
SETTINGS = {"width": 32, "depth": 2, "random_state": 0, "precision": "float32"}


@pytest.mark.parametrize(("path", "method"), [("linear", "rk4"), ("cosine", "dpm_solver_2m"), ("linear", "ddpm")])
def test_a_linear_classifier_moves_a_normal_as_bayes_rule_says(path, method):
    """N(0, C) times exp(w b'y) is N(w C b, C)."""
    path, method, generator = get_path(path), get_method(method, prefer="sampler"), new_generator(0)
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    slope = torch.tensor([1.5, -0.5], dtype=torch.float64)

    def data(y_t, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        return y_t @ torch.linalg.solve(alpha**2 * covariance + sigma**2 * torch.eye(2), alpha * covariance)

    start = path.prior_scale * torch.randn(6000, 2, dtype=torch.float64, generator=generator)
    times = karras_grid(path, 60) if hasattr(method, "states") else time_grid(60)
    with torch.no_grad():
        draws = Control(told=(lambda y: y @ slope, 1.2)).draw(data, start, times, path, method, generator)
    assert float((draws.mean(0) - 1.2 * covariance @ slope).abs().max()) < 0.06
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.1, atol=0.03)


def test_autoguidance_goes_on_from_the_weaker_answer():
    guided = away_from(lambda y, t: y + t, lambda y, t: 3 * y, 2.0)
    y, t = torch.tensor([[1.0], [2.0]]), torch.tensor(0.5)
    torch.testing.assert_close(guided(y, t), 2 * 3 * y - (y + t))


# Trained -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FLOWS)
def pair(request):
    """The fork, known well and known badly."""
    problem = em.problems.get("fork")
    x, y = problem.sample(2000, seed=0)
    family = get_family(request.param, {"drop": 0.1})
    strong, weak = (
        em.OneToManyRegressor(family, **SETTINGS, steps=steps, early_stopping=False).fit(x, y) for steps in (600, 60)
    )
    return problem, x[:8], strong, weak


def leftward(y, row):
    return torch.nn.functional.logsigmoid(-3.0 * y[:, 0])  # nearly certain of the answer on the left


def test_at_the_neutral_weight_draws_are_the_plain_ones(pair):
    _, x, strong, weak = pair
    plain = strong.sample(x, 20)
    for guide in (ClassifierFree(1.0), Classifier(leftward, 0.0), Autoguidance(weak, 1.0)):
        np.testing.assert_allclose(strong.sample(x, 20, guide=guide), plain, atol=0.02)


def test_a_classifier_sees_the_units_and_the_rows_of_the_user(pair):
    problem, x, strong, _ = pair
    rows, sides = [], torch.tensor([1.0, -1.0]).repeat(4)

    def side(y, row):
        rows.append(row)
        return torch.nn.functional.logsigmoid(4 * y[:, 0] * sides[row])  # certain of either answer

    draws = strong.sample(x, 50, guide=Classifier(side))
    assert torch.equal(rows[0], torch.arange(8).repeat_interleave(50))
    assert (np.sign(draws[..., 0]) == sides.numpy()[:, None]).mean() > 0.95
    assert problem.valid(x, draws).mean() > 0.9


def test_autoguidance_leaves_less_between_the_answers(pair):
    """A model trained for 600 steps, away from itself after 60."""
    problem, x, strong, weak = pair
    draws = {weight: strong.sample(x, 200, guide=Autoguidance(weak, weight)) for weight in (0.0, 1.0, 1.5)}
    valid = {weight: problem.valid(x, drawn).mean() for weight, drawn in draws.items()}
    assert valid[0.0] < valid[1.0] - 0.01
    assert valid[1.5] > valid[1.0] - 0.02
    np.testing.assert_allclose(draws[0.0].mean(), weak.sample(x, 200).mean(), atol=0.3)


def test_the_cost_is_told_in_coverage(pair):
    problem, x, strong, weak = pair
    y = problem.sample_given(x, 1, seed=1)[:, 0]
    table = em.guidance_cost(strong, x, Classifier(leftward), weights=(0.2, 3.0), Y=y, problem=problem, n=100)
    assert list(table["weight"]) == [0.0, 0.2, 3.0]
    none, _, strongest = (table.iloc[index] for index in range(3))
    assert none["coverage"] > 0.85
    assert none["spread"] == pytest.approx(1, abs=0.1)
    assert none["mode_recall"] == 1
    assert strongest["mode_recall"] == 0.5  # the right one is lost
    assert strongest["coverage"] < 0.6
    assert strongest["recall"] < 0.6
    assert strongest["energy_score"] > none["energy_score"]
    free = em.guidance_cost(strong, x, weights=(3.0,), n=50)
    assert list(free.columns) == ["weight", "recall", "coverage", "spread"]
    assert list(free["weight"]) == [1.0, 3.0]
    assert len(em.guidance_cost(strong, x, Autoguidance(weak), weights=(1.0, 2.0), n=20)) == 2


# Bad input ---------------------------------------------------------------------------------------------------------


def test_what_is_no_guide_is_refused(pair):
    _, x, strong, weak = pair
    with pytest.raises(SettingError, match=r"guide=2\.0: give ClassifierFree\(\.\.\.\), Classifier"):
        strong.sample(x, guide=2.0)
    with pytest.raises(SettingError, match="guide holds two of one kind"):
        strong.sample(x, guide=[ClassifierFree(1.0), ClassifierFree(2.0)])
    with pytest.raises(SettingError, match=r"log_prob gave \(8, 2\): it must give a tensor \(8,\), one number a row"):
        strong.sample(x, guide=Classifier(lambda y, row: y))
    with pytest.raises(SettingError, match=r"log_prob gave \(8,\): .* computed from y by torch"):
        strong.sample(x, guide=Classifier(lambda y, row: y.detach()[:, 0]))
    with pytest.raises(SettingError, match="weight"):
        Autoguidance(weak, -1.0)
    with pytest.raises(SettingError, match=r"guide='left': give"):
        em.guidance_cost(strong, x, "left")
    with pytest.raises(DataError, match="X has 8 rows, but Y has 3"):
        em.guidance_cost(strong, x, n=2, Y=np.zeros((3, 2)))


def test_a_weaker_model_must_be_of_the_same_spaces_and_path(pair):
    _, x, strong, _ = pair
    rng = np.random.default_rng(0)
    known = x.repeat(10, axis=0) + rng.normal(size=(80, 1))

    def fitted(family, y, given=known):
        return em.OneToManyRegressor(family, width=8, depth=1, steps=5, random_state=0).fit(given, y)

    for other, said in (
        (fitted(strong.family.name, rng.normal(size=(80, 3))), "another space of y"),
        (fitted("mdn", rng.normal(size=(80, 2))), "must be a fitted one of flow_matching, diffusion"),
        (em.OneToManyRegressor(), "must be a fitted one"),
    ):
        with pytest.raises(SettingError, match=said):
            strong.sample(x, guide=Autoguidance(other))
    y = rng.normal(size=(80, 2))
    one, two = fitted("flow_matching", y), fitted("diffusion", y)
    with pytest.raises(SettingError, match="another path"):
        one.sample(known, guide=Autoguidance(two))
    with pytest.raises(SettingError, match="another space of x"):
        one.sample(known, guide=Autoguidance(fitted("flow_matching", y, 2 * known)))


def test_a_family_that_cannot_be_guided_names_those_that_can():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1)), rng.normal(size=(60, 2))
    model = em.OneToManyRegressor("mdn", width=8, depth=1, steps=5, random_state=0).fit(x, y)
    with pytest.raises(UnsupportedError, match=r"'mdn' has no velocity .*: flow_matching, diffusion"):
        model.sample(x, guide=Classifier(leftward))
    flow = em.OneToManyRegressor("diffusion", width=8, depth=1, steps=5, random_state=0).fit(x, y)
    with pytest.raises(SettingError, match=r"train with drop=0\.1"):
        flow.sample(x, guide=ClassifierFree(2.0))
