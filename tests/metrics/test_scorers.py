import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import everymode as em
from everymode.metrics import crps_values, energy_scores, scorer, scorer_names, variogram_scores

DRAWN = {"neg_crps": crps_values, "neg_energy_score": energy_scores, "neg_variogram_score": variogram_scores}
STRICT: dict[str, Any] = {"error_score": "raise"}
FOUND_BY: dict[str, Any] = {"refit": "log_likelihood"}
ALL = pytest.mark.parametrize("name", scorer_names())


class NormalRound(BaseEstimator):
    """The truth of `_pairs` for spread 1; in its own units, with nothing of this library in it."""

    def __init__(self, spread=1.0, flat=False):
        self.spread = spread
        self.flat = flat

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def _mean(self, X):
        x = np.asarray(X, float)[:, :1]
        return np.concatenate([x] if self.flat else [x, -x], axis=1)

    def sample(self, X, n=1, *, random_state=None):
        mean = self._mean(X)
        noise = np.random.default_rng(random_state).normal(size=(len(mean), n, mean.shape[1]))
        draws = mean[:, None] + self.spread * noise
        return draws[..., 0] if self.flat else draws

    def log_prob(self, X, y):
        y = np.asarray(y, float).reshape(len(X), -1)
        return norm.logpdf(y, self._mean(X), self.spread).sum(axis=1)


def _pairs(rows=300, flat=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 1))
    y = np.concatenate([x, -x], axis=1) + rng.normal(size=(rows, 2))
    return x, y[:, 0] if flat else y


def test_names_are_listed_and_others_refused():
    assert scorer_names() == ["log_likelihood", "neg_crps", "neg_energy_score", "neg_variogram_score"]
    with pytest.raises(em.SettingError, match="Did you mean 'neg_crps'"):
        scorer("crps")
    with pytest.raises(em.SettingError, match="n_draws=0 is out of range"):
        scorer("neg_crps", n_draws=0)
    with pytest.raises(em.SettingError, match="random_state=-1 is out of range"):
        scorer("neg_crps", random_state=-1)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_the_number_is_less_the_mean_score_of_the_draws(name):
    x, y = _pairs()
    model, scale = NormalRound(1.5), [2.0, 0.5]
    draws = model.sample(x, 10, random_state=3)
    assert scorer(name, n_draws=10, random_state=3)(model, x, y) == pytest.approx(-DRAWN[name](y, draws).mean())
    scaled = scorer(name, n_draws=10, scale=scale, random_state=3)(model, x, y)
    assert scaled == pytest.approx(-DRAWN[name](y, draws, scale).mean())


def test_the_likelihood_is_the_mean_log_density():
    x, y = _pairs()
    assert scorer("log_likelihood")(NormalRound(2.0), x, y) == pytest.approx(NormalRound(2.0).log_prob(x, y).mean())


@ALL
def test_a_search_finds_the_truth_by_every_score(name):
    """They are proper: of normals too narrow, right and too wide the right one scores best, in every fold."""
    x, y = _pairs(1500)
    search = GridSearchCV(
        NormalRound(), {"spread": [0.5, 1.0, 2.0]}, scoring=scorer(name, random_state=0), cv=3, **STRICT
    ).fit(x, y)
    assert search.best_params_ == {"spread": 1.0}
    folds = np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)])
    np.testing.assert_array_equal(folds.argmax(axis=1), 1)
    assert scorer(name, random_state=0)(search, x, y) == scorer(name, random_state=0)(NormalRound(1.0), x, y)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_the_number_of_draws_does_not_shift_the_score(name):
    """Fair: over many seeds, 2 draws a row and 50 have one mean."""
    x, y = _pairs(60)
    few, many = (
        np.array([scorer(name, n_draws=n, random_state=seed)(NormalRound(), x, y) for seed in range(200)])
        for n in (2, 50)
    )
    error = np.sqrt((few.var() + many.var()) / 200)
    assert abs(few.mean() - many.mean()) < 4 * error
    assert error < 0.02  # the scores of the draws themselves would be .2 apart, and more


@pytest.mark.parametrize("name", ["log_likelihood", "neg_crps", "neg_energy_score"])
def test_targets_of_one_number_a_row(name):
    x, y = _pairs(flat=True)
    asked = scorer(name, n_draws=20, random_state=0)
    value = asked(NormalRound(flat=True), x, y)
    assert np.isfinite(value)
    for same in (y[:, None], y.tolist(), torch.tensor(y), pd.Series(y), pd.DataFrame({"y": y}), pl.Series("y", y)):
        assert asked(NormalRound(flat=True), x, same) == pytest.approx(value, rel=1e-12)


@ALL
def test_targets_of_several_numbers_a_row(name):
    x, y = _pairs()
    asked = scorer(name, n_draws=20, random_state=0)
    value = asked(NormalRound(), x, y)
    for same in (torch.tensor(y), pd.DataFrame(y, columns=["a", "b"]), pl.DataFrame(y, schema=["a", "b"])):
        assert asked(NormalRound(), x, same) == pytest.approx(value, rel=1e-12)
    if name != "log_likelihood":
        assert asked(NormalRound(), x, y.reshape(-1, 2, 1)) == value


def test_our_models_are_scored_as_their_draws_and_densities_are():
    x, y = em.problems.get("fork").sample(200, seed=0)
    model = em.OneToManyRegressor("gaussian", steps=20, random_state=0).fit(x, y)
    expected = -energy_scores(y, model.sample(x, 16)).mean()
    assert scorer("neg_energy_score", n_draws=16)(model, x, y) == pytest.approx(expected)  # the model's own seed
    assert scorer("neg_energy_score", n_draws=16, random_state=5)(model, x, y) != pytest.approx(expected)
    assert scorer("log_likelihood")(model, x, y) == pytest.approx(model.log_prob(x, y).mean())


def test_our_models_in_cross_validation_a_pipeline_and_a_search():
    x, y = em.problems.get("fork").sample(100, seed=0)
    model = em.OneToManyRegressor("gaussian", steps=3, random_state=0)
    scoring = {name: scorer(name) for name in scorer_names()}
    of_arrays = cross_validate(model, x, y, cv=2, scoring=scoring, **STRICT)
    frames = pd.DataFrame(x, columns=["a"]), pd.DataFrame(y, columns=["b", "c"])
    of_frames = cross_validate(model, *frames, cv=2, scoring=scoring, **STRICT)
    for name in scoring:
        assert np.isfinite(of_arrays[f"test_{name}"]).all()
        np.testing.assert_allclose(of_frames[f"test_{name}"], of_arrays[f"test_{name}"])
    alone = cross_val_score(model, x, y, cv=2, scoring=scoring["neg_crps"], **STRICT)
    np.testing.assert_array_equal(alone, of_arrays["test_neg_crps"])
    line = make_pipeline(StandardScaler(), model).fit(x, y)
    inside = scorer("neg_crps")(line[-1], line[0].transform(x), y)
    assert scorer("neg_crps")(line, x, y) == inside != scorer("neg_crps")(line[-1], x, y)
    grid = {"onetomanyregressor__family": ["gaussian", "mdn"]}
    search = GridSearchCV(line, grid, scoring=scoring, cv=2, **STRICT, **FOUND_BY).fit(x, y)
    assert all(np.isfinite(search.cv_results_[f"mean_test_{name}"]).all() for name in scoring)
    assert scorer("neg_crps")(search, x, y) == scorer("neg_crps")(search.best_estimator_, x, y)


def test_without_a_density_there_is_no_likelihood():
    x, y = em.problems.get("fork").sample(100, seed=0)
    model = em.OneToManyRegressor("mse", steps=5, random_state=0).fit(x, y)
    with pytest.raises(em.UnsupportedError, match=r"family 'mse' has no density; these have one: .*flow_matching"):
        scorer("log_likelihood")(model, x, y)
    with pytest.raises(em.UnsupportedError, match="no density"):
        cross_val_score(model, x, y, cv=2, scoring=scorer("log_likelihood"), **STRICT)
    assert scorer("neg_energy_score", n_draws=3)(model, x, y) == pytest.approx(
        -np.linalg.norm(model.sample(x, 1)[:, 0] - y, axis=1).mean()
    )


def test_what_cannot_draw_is_refused():
    x, y = _pairs(flat=True)
    plain = LinearRegression().fit(x, y)
    with pytest.raises(em.UnsupportedError, match="LinearRegression has no sample: score a model of p"):
        scorer("neg_crps")(plain, x, y)
    with pytest.raises(em.UnsupportedError, match="LinearRegression has no log_prob: choose a scorer that needs draws"):
        scorer("log_likelihood")(make_pipeline(plain), x, y)


def test_bad_answers_are_refused():
    x, y = _pairs()
    crps, variogram = scorer("neg_crps"), scorer("neg_variogram_score")
    with pytest.raises(em.DataError, match=r"X has 300 rows, but Y has shape \(150, 2\)"):
        crps(NormalRound(), x, y[:150])
    with pytest.raises(em.DataError, match=r"X has 300 rows, but Y has shape \(600,\)"):
        crps(NormalRound(), x, y.ravel())  # once it would have been taken for 300 rows of 2
    with pytest.raises(em.DataError, match=r"got \(300, 1\) and \(300, 64, 2\)"):
        crps(NormalRound(), x, y[:, 0])
    with pytest.raises(em.DataError, match="Y holds text where numbers belong"):
        crps(NormalRound(), x, [["a", "b"]] * 300)
    with pytest.raises(em.DataError, match="must be finite"):
        crps(NormalRound(), x, np.full((300, 2), np.nan))
    with pytest.raises(em.DataError, match="there is one: use crps"):
        variogram(NormalRound(flat=True), x, y[:, 0])
    with pytest.raises(em.DataError, match="scale must be 2 positive numbers"):
        scorer("neg_crps", scale=[1.0])(NormalRound(), x, y)


def test_scorers_travel_and_say_what_they_are():
    asked = scorer("neg_crps", n_draws=7, scale=np.array([1.0, 2.0]), random_state=1)
    x, y = _pairs(50)
    for twin in (copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):
        assert twin == asked
        assert twin(NormalRound(), x, y) == asked(NormalRound(), x, y)
    assert repr(asked) == "Scorer(name='neg_crps', n_draws=7, scale=(1.0, 2.0), random_state=1)"
