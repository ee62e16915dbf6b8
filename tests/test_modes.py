"""Distinct answers: as many as there are, where they are, as probable as they are, and told from chance."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment

import everymode as em
from everymode import plots
from everymode.errors import SettingError, ValleyWarning
from everymode.families import get_family, names
from everymode.modes import Answers, answers_among, basins, middle
from everymode.plots.modes import figure

SMALL = {"width": 16, "depth": 1, "steps": 10, "batch_size": 16, "random_state": 0, "precision": "float32"}


def matched(problem, x, draws):
    """Share of rows with the right number of answers; errors of probability, and of place in spreads, of those."""
    scale = draws.reshape(-1, draws.shape[2]).std(axis=0)
    right, probability, place = [], [], []
    for row, truth in zip(draws, problem.modes(x), strict=True):
        labels, _, chosen = answers_among(row / scale)
        right.append(len(chosen) == len(truth))
        if right[-1]:
            away = np.linalg.norm(row[chosen][:, None] - truth.locations, axis=2)
            mine, theirs = linear_sum_assignment(away)
            place += list(away[mine, theirs] / truth.spreads[theirs])
            shares = np.bincount(labels) / len(labels)
            probability += list(np.abs(shares[mine] - truth.probabilities[theirs]))
    return np.mean(right), np.mean(probability), np.mean(place)


@pytest.mark.parametrize("name", ["fork", "branches", "imbalanced", "inverse_kinematics", "sine_fold", "grid"])
def test_of_true_draws_every_answer_is_found(name):
    problem = em.problems.get(name)
    x = problem.sample_x(12, seed=1)
    right, probability, place = matched(problem, x, problem.sample_given(x, 4000, seed=2))
    assert right >= 11 / 12  # x at which a branch begins to be an answer are in between
    assert probability < 0.02
    assert place < 0.35


@pytest.mark.parametrize("name", ["line", "heteroscedastic", "skewed", "heavy_tailed"])
def test_one_answer_is_one(name):
    problem = em.problems.get(name)
    x = problem.sample_x(25, seed=1)
    draws = problem.sample_given(x, 1000, seed=2)
    assert [len(basins(row)[1]) for row in draws] == [1] * 25


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_a_normal_of_many_values_is_one_answer_and_two_are_two(size):
    rng = np.random.default_rng(size)
    one = rng.normal(size=(1200, size))
    assert len(basins(one)[1]) == 1
    two = one + np.where(rng.random((1200, 1)) < 0.3, 6.0, 0.0) / np.sqrt(size)
    labels, sure = basins(two)
    assert len(sure) == 2
    assert np.bincount(labels)[1] / 1200 == pytest.approx(0.3, abs=0.05)
    assert (sure > 0.5).all()


def test_answers_may_be_curves():
    """A ring, and a ring around it; two moons that reach into one another."""
    rng = np.random.default_rng(0)
    angle, outer = rng.uniform(0, 2 * np.pi, 3000), rng.random(3000) < 0.5
    radius = np.where(outer, 2.0, 1.0) + 0.05 * rng.normal(size=3000)
    labels, sure = basins(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    assert len(sure) == 2
    assert max(np.mean(labels == outer), np.mean(labels != outer)) > 0.99


def test_what_is_rarer_than_asked_is_no_answer():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (1940, 1)), rng.normal(12, 1, (60, 1))])
    assert len(basins(points)[1]) == 2
    labels, sure = basins(points, least=0.05)
    assert (labels == 0).all()
    assert sure.tolist() == [1.0]


def test_repeated_draws():
    """Vocabularies and leaves repeat what they have seen."""
    rng = np.random.default_rng(0)
    labels, sure = basins(rng.choice([0.0, 1.0], size=(500, 1), p=[0.8, 0.2]))
    assert np.bincount(labels)[0] > 350
    assert sure.tolist() == [1.0, 1.0]
    rounded = np.round(rng.normal(size=(2000, 1)), 2)
    assert len(basins(rounded)[1]) == 1
    leaves = np.repeat(rng.normal(size=(50, 1)), 40, axis=0)
    assert len(basins(leaves)[1]) == 1


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_of_few_draws_no_more_is_said_than_they_show(n):
    labels, sure = basins(np.random.default_rng(0).normal(size=(n, 2)), least=0.005)
    assert labels.shape == (n,)
    assert len(sure) == labels.max() + 1
    if n > 8:
        assert len(sure) == 1


def test_the_middle_of_a_curve_lies_on_it():
    angle = np.random.default_rng(0).uniform(0, np.pi, 500)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert np.linalg.norm(points[middle(points)] - [0, 1]) < 0.35


# Fitted models -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forked():
    problem = em.problems.get("fork")
    x, y = problem.sample(1500, seed=0)
    return problem, em.OneToManyRegressor("mdn", steps=400, width=32, depth=1, device="cpu", random_state=0).fit(x, y)


def test_modes_of_a_model(forked):
    _, model = forked
    x = np.array([[0.6], [1.0], [1.4]])
    found = model.modes(x)
    assert isinstance(found, Answers)
    assert found.counts.tolist() == [2, 2, 2]
    for row in found:
        assert row.probabilities.sum() == pytest.approx(1)
        assert (np.diff(row.probabilities) <= 0).all()
        assert sorted(row.locations[:, 0]) == pytest.approx([-3, 3], abs=0.4)
        assert row.locations.shape == row.means.shape == row.spreads.shape == (2, 2)
        np.testing.assert_allclose(row.means[0], row.draws[row.basin == 0].mean(axis=0), rtol=1e-5)
        away = row.draws[row.basin == 0].var(axis=0) + (row.means[0] - row.locations[0]) ** 2
        np.testing.assert_allclose(row.spreads[0] ** 2, away, rtol=1e-3)  # spread is about the location
        assert row.draws.shape == (2000, 2)
        assert (np.bincount(row.basin) / 2000 == row.probabilities).all()
        assert any((row.locations[0] == draw).all() for draw in row.draws)  # it is a draw
    assert found[2].spreads.mean() > 1.5 * found[0].spreads.mean()  # the faster, the wider
    again = model.modes(x[1:2])
    np.testing.assert_array_equal(again[0].locations, found[1].locations)  # whatever rows are beside it
    other = model.modes(x, random_state=5)
    assert other.counts.tolist() == [2, 2, 2]
    assert not np.array_equal(other[0].locations, found[0].locations)


def test_the_table_of_answers(forked):
    _, model = forked
    found = model.modes(pd.DataFrame({"speed": [0.6, 1.4]}).to_numpy(), 500)
    frame = found.to_frame()
    told = ["y0", "y1", "y0_mean", "y1_mean", "y0_spread", "y1_spread"]
    assert list(frame.columns) == ["row", "answer", "probability", "sureness", *told]
    assert frame["row"].tolist() == [0, 0, 1, 1]
    assert frame["y0"].tolist() == [location[0] for row in found for location in row.locations]
    assert len(found[:1]) == 1
    assert found.titles == ("x0 = 0.6", "x0 = 1.4")
    assert str(found).splitlines()[0].split()[:3] == ["row", "answer", "probability"]


def test_the_k_best(forked):
    _, model = forked
    best = model.predict([[1.0], [0.7]], n_answers=3)
    assert best.shape == (2, 3, 2)
    assert np.isfinite(best[:, :2]).all()
    assert np.isnan(best[:, 2]).all()
    np.testing.assert_array_equal(best[:, :2], model.modes([[1.0], [0.7]]).best(2))
    with pytest.raises(SettingError, match="n_answers"):
        model.predict([[1.0]], n_answers=0)


def test_the_mean_in_a_valley_is_warned_of_once(forked):
    _, model = forked
    x = np.linspace(0.6, 1.4, 20)[:, None]
    with pytest.warns(ValleyWarning, match="16 of 16 rows"):
        mean = model.mean(x)
    assert np.abs(mean[:, 0]).max() < 0.5  # the obstacle
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.mean(x)


def test_a_new_fit_may_be_warned_of_again(forked):
    problem, _ = forked
    x, y = problem.sample(300, seed=0)
    model = em.OneToManyRegressor("mdn", steps=100, width=16, depth=1, device="cpu", random_state=0)
    for _ in range(2):
        model.fit(x, y)
        with pytest.warns(ValleyWarning):
            model.mean(x[:2])


def test_the_mean_of_one_answer_is_no_matter():
    x, y = em.problems.get("line").sample(500, seed=0)
    model = em.OneToManyRegressor("mdn", steps=200, width=16, depth=1, device="cpu", random_state=0).fit(x, y[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = model.mean(x[:5])
    assert mean.shape == (5,)
    np.testing.assert_allclose(mean, em.problems.get("line").mean(x[:5])[:, 0], atol=0.3)


def test_intervals_are_two_where_there_are_two_answers(forked):
    problem, model = forked
    x = np.array([[0.6], [1.4]])
    across, along = zip(*model.predict_interval(x, 0.8), strict=True)
    assert [len(intervals) for intervals in across] == [2, 2]
    assert [len(intervals) for intervals in along] == [1, 1]
    draws = problem.sample_given(x, 4000, seed=3)
    for intervals, values in zip(across, draws[:, :, 0], strict=True):
        inside = (values[:, None] >= intervals[:, 0]) & (values[:, None] <= intervals[:, 1])
        assert inside.any(axis=1).mean() == pytest.approx(0.8, abs=0.08)
    with pytest.raises(SettingError, match="level"):
        model.predict_interval(x, 1.0)
    with pytest.raises(SettingError, match="level"):
        model.predict_interval(x, 0)


def test_of_one_number_an_interval_is_an_array():
    x, y = em.problems.get("branches").sample(300, seed=0)
    model = em.OneToManyRegressor("gmm", random_state=0).fit(x, y[:, 0])
    (intervals,) = model.predict_interval([[0.8]])
    assert intervals.shape[1] == 2
    assert (np.diff(intervals.ravel()) > 0).all()
    (row,) = model.modes([[0.8]])
    assert row.locations.shape == row.spreads.shape == (len(row),)
    assert model.predict([[0.8]], n_answers=2).shape == (1, 2)


@pytest.mark.parametrize("family", names())
def test_every_family_has_modes(family):
    x, y = em.problems.get("fork").sample(60, seed=0)
    model = em.OneToManyRegressor(family, **SMALL).fit(x, y)
    found = model.modes(x[:2], 60)
    assert len(found) == 2
    if not get_family(family).abilities.several:
        assert found.counts.tolist() == [1, 1]
        assert found[0].draws.shape == (1, 2)
    assert all(np.isfinite(row.locations).all() and row.probabilities.sum() == pytest.approx(1) for row in found)
    assert len(model.predict_interval(x[:2], n_draws=20)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValleyWarning)
        assert model.mean(x[:2], 20).shape == (2, 2)


def test_modes_of_sequences():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 1))
    side = rng.choice([-1.0, 1.0], (300, 1, 1))
    y = side * np.linspace(0, 1, 8)[None, :, None] * np.ones(2) + 0.05 * rng.normal(size=(300, 8, 2))
    model = em.OneToManyRegressor(width=32, depth=1, steps=300, device="cpu", random_state=0).fit(x, y)
    (row,) = model.modes([[0.0]], 600)
    assert row.locations.shape == (len(row), 8, 2)
    assert len(row) == 2
    assert sorted(row.locations[:, -1, 0]) == pytest.approx([-1, 1], abs=0.3)


def test_bad_input(forked):
    _, model = forked
    for settings in ({"n_draws": 0}, {"least": 0.7}, {"least": -1}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            model.modes([[1.0]], **settings)


@pytest.mark.parametrize("problem", ["fork", "branches"])
def test_the_figure(problem, tmp_path):
    x, y = em.problems.get(problem).sample(300, seed=0)
    found = em.OneToManyRegressor("gmm", random_state=0).fit(x, y).modes(x[:7], 300)
    assert plots.kinds_for(found) == ["modes"]
    drawn = figure(found)
    shown = [axes for axes in drawn.axes if axes.get_visible()]
    assert len(shown) == 6
    assert shown[0].get_title() == f"{found.titles[0]}\n{found.counts[0]} answer{'s' if found.counts[0] > 1 else ''}"
    assert plots.save(plots.draw("modes", found), tmp_path, "modes")[0].stat().st_size > 10_000
