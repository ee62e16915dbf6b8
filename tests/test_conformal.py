"""Conformal regions hold what they promise whatever the model, in as many parts as there are answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2

import everymode as em
from everymode.errors import DataError, SettingError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Told(em.OneToManyRegressor):
    """A model whose draws are those of `law(x (rows, 1), rng, n) -> (rows, n, d)`; only its spaces are fitted."""

    def of(self, law, x, y):
        self.law = law
        return self.fit(x, y)

    def common_draws(self, X, n_draws, random_state=None):
        raw = np.asarray(X, dtype=float)
        draws = self.law(raw, np.random.default_rng(random_state), n_draws)
        yield torch.stack([self.y_space_.encode(row) for row in draws])


def forked(width):
    """Two answers, 2 + x and -2 - x, with noise of `width`."""

    def law(x, rng, n):
        sides = rng.choice([-1.0, 1.0], n)
        return (sides * (2 + x) + width * rng.normal(size=n))[..., None]

    return law


def round_in_two(x, rng, n):
    return np.broadcast_to(rng.normal(size=(n, 2)), (len(x), n, 2)) + x[:, :, None]


def sampled(law, rows, seed):
    """Rows of x (rows, 1) and y (rows, d), each from noise of its own."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(rows, 1))
    return x, np.concatenate([law(row[None], rng, 1)[:, 0] for row in x])


def told(law, truth=None):
    x, y = sampled(truth or law, 200, 1000)
    return Told("gaussian", steps=1, width=8, depth=1, random_state=0).of(law, x, y)


def within(value, intervals):
    return bool(((intervals[:, 0] <= value) & (value <= intervals[:, 1])).any())


# The promise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.2, 0.02, 1.0])
def test_coverage_is_the_promised_one_however_wrong_the_model(width):
    """n = 10 and level .9 promise 10 / 11; the 9th of the scores would hold 9 / 11, and the model's own far from it."""
    truth = forked(0.2)
    model, rows, splits, judged = told(forked(width), truth), 10, 60, 20
    held = []
    for seed in range(splits):
        x, y = sampled(truth, rows + judged, seed)
        regions = em.Conformal(model, x[:rows], y[:rows], n_draws=100, random_state=seed)
        held.append(regions.contains(x[rows:], y[rows:]).mean())
    promised = 10 / 11
    error = np.sqrt((promised * (1 - promised) / (rows + 2) + promised * (1 - promised) / judged) / splits)
    assert np.mean(held) == pytest.approx(promised, abs=3 * error)
    assert 3 * error < (10 - 9) / 11 / 2


def test_several_values_are_held_as_promised():
    model, rows, splits, judged = told(round_in_two), 19, 60, 20
    held = []
    for seed in range(splits):
        x, y = sampled(round_in_two, rows + judged, seed)
        regions = em.Conformal(model, x[:rows], y[:rows], n_draws=200, random_state=seed)
        held.append(regions.contains(x[rows:], y[rows:]).mean())
    error = np.sqrt((0.09 / (rows + 2) + 0.09 / judged) / splits)
    assert np.mean(held) == pytest.approx(0.9, abs=3 * error)


def test_the_threshold_tells_whether_the_model_is_right():
    truth = forked(0.2)
    x, y = sampled(truth, 300, 5)
    right, sure, unsure = (
        em.Conformal(told(forked(width), truth), x, y, n_draws=300).threshold_ for width in (0.2, 0.02, 1.0)
    )
    assert right == pytest.approx(0.9, abs=0.06)
    assert sure > 1
    assert unsure < 0.7


def test_equal_scores_hold_at_least_what_was_asked():
    """Whole numbers at one x: many scores are equal, and the last of them are all inside."""
    rng = np.random.default_rng(0)
    shares = [0.5, 0.3, 0.15, 0.05]

    def law(x, rng, n):
        return np.broadcast_to(rng.choice(4, n, p=shares)[None, :, None].astype(float), (len(x), n, 1))

    x, y = np.zeros((200, 1)), rng.choice(4, 200, p=shares)
    model = Told("gaussian", steps=1, width=8, depth=1, random_state=0).of(law, rng.normal(size=(200, 1)), y)
    regions = em.Conformal(model, x, y, level=0.7, n_draws=500)
    assert len(np.unique(regions.scores_)) == 4
    assert regions.contains(x[:4], np.arange(4)).tolist() == [True, True, False, False]
    (intervals,) = regions.predict_interval(x[:1])
    assert len(intervals) == 2
    assert np.diff(intervals).sum() < 0.2


# The regions ---------------------------------------------------------------------------------------------------------


def test_two_answers_are_two_intervals_shorter_than_one_between_quantiles():
    law = forked(0.2)
    model = told(law)
    x, y = sampled(law, 200, 0)
    regions = em.Conformal(model, x, y)
    asked = np.array([[-0.5], [0.0], [0.5]])
    for row, intervals in zip(asked[:, 0], regions.predict_interval(asked), strict=True):
        assert intervals.mean(axis=1) == pytest.approx([-2 - row, 2 + row], abs=0.15)
    between = np.quantile(law(asked, np.random.default_rng(0), 5000)[..., 0], [0.05, 0.95], axis=1)
    assert (regions.size(asked) < 0.4 * (between[1] - between[0])).all()
    exact = 4 * 0.2 * 1.645  # of the 90 % highest-density region
    assert regions.size(asked) == pytest.approx(np.full(3, exact), rel=0.25)


@pytest.mark.parametrize("width", [0.2, 0.02, 1.0])
def test_intervals_hold_what_is_contained_and_sum_to_the_size(width):
    """Also where the model is far too sure, and regions end beyond its draws."""
    truth = forked(0.2)
    x, y = sampled(truth, 60, 0)
    regions = em.Conformal(told(forked(width), truth), x, y, n_draws=200)
    row = np.array([[0.3]])
    values = np.linspace(-6, 6, 400)
    (intervals,) = regions.predict_interval(row)
    inside = regions.contains(np.repeat(row, 400, axis=0), values[:, None])
    assert inside.tolist() == [within(value, intervals) for value in values]
    assert 0 < inside.sum() < 400
    assert regions.size(row) == pytest.approx([np.diff(intervals).sum()])


def test_a_volume_is_that_of_the_true_region():
    model = told(round_in_two)
    x, y = sampled(round_in_two, 400, 0)
    regions = em.Conformal(model, x, y, n_draws=300)
    assert regions.size(np.zeros((1, 1))) == pytest.approx([np.pi * chi2.ppf(0.9, 2)], rel=0.2)
    places = np.linspace(-4.5, 4.5, 35)
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    counted = regions.contains(np.zeros((len(grid), 1)), grid).sum() * (places[1] - places[0]) ** 2
    assert regions.size(np.zeros((1, 1))) == pytest.approx([counted], rel=0.1)


def test_one_answer_has_the_interval_of_split_conformal_regression():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(300, 1))
    y = x[:, 0] + rng.normal(size=300)
    model = em.OneToManyRegressor("mse", steps=100, width=16, random_state=0).fit(x[:150], y[:150])
    intervals = np.concatenate(em.Conformal(model, x[150:], y[150:]).predict_interval(x[:20]))
    reach = np.sort(np.abs(y[150:] - model.predict(x[150:])))[int(np.ceil(151 * 0.9)) - 1]
    answers = model.predict(x[:20])
    assert intervals == pytest.approx(np.stack([answers - reach, answers + reach], axis=1), abs=0.01)


def test_a_fitted_model_of_a_table_is_repeatable_and_each_row_by_itself():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"length": rng.normal(size=300), "kind": rng.choice(["a", "b"], 300)})
    y = pd.Series(np.where(frame["kind"] == "a", 3.0, -3.0) * rng.choice([-1, 1], 300) + 0.3 * rng.normal(size=300))
    model = em.OneToManyRegressor("mdn", steps=150, width=32, random_state=0).fit(frame[:150], y[:150])
    regions, again = (em.Conformal(model, frame[150:], y[150:], n_draws=300) for _ in range(2))
    assert regions.scores_.tolist() == again.scores_.tolist()
    together = regions.predict_interval(frame[:5])
    for row in range(5):
        assert regions.predict_interval(frame[row : row + 1])[0] == pytest.approx(together[row], abs=1e-5)
    assert len(together[0]) == 2
    assert regions.contains(frame[150:], y[150:]).sum() == np.ceil(151 * 0.9)


# What cannot be done -------------------------------------------------------------------------------------------------


def test_too_few_rows_say_how_many_are_needed():
    model = told(forked(0.2))
    x, y = sampled(forked(0.2), 9, 0)
    with pytest.raises(DataError, match=r"level=0.9 needs at least 9 rows of calibration, and there are 8.*0.889"):
        em.Conformal(model, x[:8], y[:8])
    regions = em.Conformal(model, x, y)
    assert regions.threshold_ == regions.scores_.max()
    assert em.Conformal(model, x[:8], y[:8], level=8 / 9).threshold_ > 0
    with pytest.raises(DataError, match="at least 19 rows"):
        em.Conformal(model, x, y, level=0.95)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 1}, "below 1"),
        ({"level": 0}, "above 0"),
        ({"level": 90}, "at most 1"),
        ({"n_draws": 0}, "at least 1"),
        ({"random_state": -1}, "at least 0"),
    ],
)
def test_bad_settings(settings, message):
    model = told(forked(0.2))
    with pytest.raises(SettingError, match=message):
        em.Conformal(model, *sampled(forked(0.2), 20, 0), **settings)


def test_bad_data_and_models():
    model = told(forked(0.2))
    x, y = sampled(forked(0.2), 20, 0)
    with pytest.raises(SettingError, match="give a fitted everymode"):
        em.Conformal("mdn", x, y)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="not fitted"):
        em.Conformal(em.OneToManyRegressor(), x, y)
    with pytest.raises(DataError, match="equal length"):
        em.Conformal(model, x, y[:-1])
    with pytest.raises(DataError, match="NaN"):
        em.Conformal(model, x, np.where(np.arange(20)[:, None] == 3, np.nan, y))
    with pytest.raises(DataError, match="equal length"):
        em.Conformal(model, x, y).contains(x, y[:3])


def test_what_several_values_do_not_have():
    x, y = sampled(round_in_two, 40, 0)
    regions = em.Conformal(told(round_in_two), x, y, n_draws=50)
    with pytest.raises(UnsupportedError, match=r"contains\(X, Y\)"):
        regions.predict_interval(x)
    many = np.random.default_rng(0).normal(size=(40, 17))
    model = em.OneToManyRegressor("gaussian", steps=1, width=8, depth=1, random_state=0).fit(x, many)
    with pytest.raises(UnsupportedError, match="17 values"):
        em.Conformal(model, x, many, n_draws=50).size(x)
