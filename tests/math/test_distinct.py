"""Distinct answers: each mode once before any twice, and no stray draw among them."""

from __future__ import annotations

import numpy as np
import pytest

import everymode as em
from everymode.errors import SettingError, UnsupportedError
from everymode.families import get_family, names
from everymode.modes import spread_out

SEVERAL = [name for name in names() if get_family(name).abilities.several]
SMALL = {"width": 16, "depth": 1, "steps": 10, "batch_size": 16, "random_state": 0, "precision": "float32"}


def found(problem, x, answers):
    """How many modes each row finds, and the share of valid answers."""
    labels = problem.assign(x, answers)
    return np.array([len(set(row[row >= 0])) for row in labels]), float((labels >= 0).mean())


def test_of_true_draws_all_modes_are_found():
    for name, n, total in (("fork", 2, 2), ("grid", 25, 25)):
        problem = em.problems.get(name)
        x = problem.sample_x(20, seed=0)
        draws = problem.sample_given(x, max(128, 32 * n), seed=1)
        modes, valid = found(problem, x, spread_out(draws, n))
        plain, plain_valid = found(problem, x, draws[:, :n])
        assert modes.mean() > 0.92 * total
        assert plain.mean() < 0.8 * total
        assert valid >= plain_valid - 0.005


def test_stray_draws_are_no_answers():
    """Two tight heaps and 3 % of draws far from both and from one another."""
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(-3, 0.1, (62, 2)), rng.normal(3, 0.1, (62, 2))])
    stray = 50 * rng.normal(size=(4, 2))
    answers = spread_out(np.concatenate([stray, heaps])[None], 2)[0]
    assert sorted(np.sign(answers[:, 0])) == [-1, 1]
    np.testing.assert_allclose(np.abs(answers), 3, atol=0.1)


def test_the_answer_that_stands_for_most_comes_first_and_copies_do_no_harm():
    points = np.repeat([[0.0], [1.0], [5.0]], [20, 70, 38], axis=0)[None]
    np.testing.assert_array_equal(spread_out(points, 3)[0, :, 0], [1, 5, 0])
    assert spread_out(points, 5).shape == (1, 5, 1)  # more answers than there are places
    np.testing.assert_array_equal(spread_out(points[:, :4], 4), points[:, :4])


@pytest.mark.parametrize(("name", "n"), [("fork", 2), ("grid", 25)])
def test_a_trained_model_gives_every_answer(name, n):
    problem = em.problems.get(name)
    x, y = problem.sample(4000, seed=0)
    model = em.OneToManyRegressor("mdn", steps=600, width=32, random_state=0, precision="float32").fit(x, y)
    plain_modes, plain_valid = found(problem, x[:40], model.sample(x[:40], n))
    modes, valid = found(problem, x[:40], model.sample(x[:40], n, distinct=True))
    if name == "fork":
        assert (modes == 2).all()
        assert 0.25 < (plain_modes == 1).mean() < 0.75
    assert modes.mean() > 0.85 * n
    assert modes.mean() > plain_modes.mean() + 0.2 * n
    assert valid >= plain_valid


@pytest.mark.parametrize("family", SEVERAL)
def test_every_family_that_draws_several(family):
    rng = np.random.default_rng(0)
    model = em.OneToManyRegressor(family, **SMALL).fit(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)))
    answers = model.sample(np.zeros((2, 2)), 3, distinct=True)
    assert answers.shape == (2, 3, 2)
    assert all(len(np.unique(row, axis=0)) == 3 for row in answers)
    np.testing.assert_array_equal(answers, model.sample(np.zeros((2, 2)), 3, distinct=True))
    many = model.sample(np.zeros((2, 2)), 128)
    assert all((np.abs(many[row] - answer).sum(axis=1) < 1e-5).any() for row in range(2) for answer in answers[row])


def test_it_goes_with_known_values_and_flat_targets():
    rng = np.random.default_rng(0)
    model = em.OneToManyRegressor("diffusion", **SMALL).fit(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)))
    answers = model.sample(np.zeros((2, 2)), 3, known=[0.1, np.nan], resamplings=1, distinct=True)
    assert (answers[..., 0] == 0.1).all()
    assert (np.diff(np.sort(answers[..., 1], axis=1)) > 0).all()
    flat = em.OneToManyRegressor("gaussian", **SMALL).fit(rng.normal(size=(60, 2)), rng.normal(size=60))
    assert flat.sample(np.zeros((2, 2)), 3, distinct=True).shape == (2, 3)


def test_a_family_with_one_answer_names_those_with_several():
    rng = np.random.default_rng(0)
    model = em.OneToManyRegressor("mse", **SMALL).fit(rng.normal(size=(60, 2)), rng.normal(size=60))
    with pytest.raises(UnsupportedError, match=r"'mse' has one answer for each x, .*: gaussian, .*flow_matching"):
        model.sample(np.zeros((2, 2)), 2, distinct=True)
    assert model.sample(np.zeros((2, 2)), distinct=True).shape == (2, 1)
    with pytest.raises(SettingError, match="n=1025 is out of range"):
        model.sample(np.zeros((2, 2)), 1025, distinct=True)
    with pytest.raises(SettingError, match="distinct"):
        model.sample(np.zeros((2, 2)), 2, distinct="yes")
