"""Boosted trees as the regressor of a flow and of a score."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest, norm

import everymode as em
from everymode.errors import MissingExtraError
from everymode.families.boosting import grow
from everymode.metrics import modes_found, valid_share

pytest.importorskip("lightgbm")


def fit(x, y, **settings):
    return em.OneToManyRegressor(em.Trees(**settings), random_state=0, device="cpu").fit(x, y)


@pytest.mark.parametrize("objective", ["score", "flow"])
def test_both_answers_of_the_fork_are_found(objective):
    problem = em.problems.get("fork")
    model = fit(*problem.sample(2000, seed=0), objective=objective)
    x = problem.sample_x(100, seed=1)
    draws = model.sample(x, 50)
    assert valid_share(problem, x, draws).low > 0.9
    assert modes_found(problem, x, draws) == (2, 2)


@pytest.mark.parametrize(("objective", "off"), [("score", 0.2), ("flow", 0.3)])
def test_a_normal_whose_width_depends_on_x_is_told(objective, off):
    """y = x + (.2 or 1) noise: over many x on either side, the draws have that width and the normal's law.

    The draws of a flow are up to a quarter too wide on the narrow side.
    """
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (4000, 1))
    y = x[:, 0] + np.where(x[:, 0] < 0, 0.2, 1.0) * rng.normal(size=4000)
    model = fit(x, y, objective=objective)
    for low, high, wide in ((-0.95, -0.05, 0.2), (0.05, 0.95, 1.0)):
        new = np.linspace(low, high, 100)[:, None]
        left = (model.sample(new, 100) - new).ravel()
        assert left.std() == pytest.approx(wide, rel=off)
        assert kstest(left, norm(0, wide).cdf).statistic < 0.08


def test_score_and_flow_agree_in_law():
    """Kolmogorov's distances of y - x, over many x: of the two, and of each from the truth.

    For one x alone they differ by more, since trees are step functions of x.
    """
    rng = np.random.default_rng(0)

    def wide(n):
        return np.where(rng.random(n) < 0.3, -1.5, 1.0) + 0.2 * rng.normal(size=n)

    x = rng.uniform(-1, 1, (4000, 1))
    y = wide(4000) + x[:, 0]
    new = np.linspace(-0.95, 0.95, 200)[:, None]
    drawn = {name: (fit(x, y, objective=name).sample(new, 50) - new).ravel() for name in ("score", "flow")}
    assert ks_2samp(drawn["score"], drawn["flow"]).statistic < 0.06
    for draws in drawn.values():
        assert ks_2samp(draws, wide(100_000)).statistic < 0.08
        assert (draws < 0).mean() == pytest.approx(0.3, abs=0.05)


def test_categories_choose_the_answer():
    """The order of five letters says nothing: -2 for a and d, 2 for the rest."""
    import pandas as pd

    rng = np.random.default_rng(0)
    letters = np.array(list("abcde"))[rng.integers(5, size=1000)]
    y = np.where(np.isin(letters, ["a", "d"]), -2.0, 2.0) + 0.3 * rng.normal(size=1000)
    frame = pd.DataFrame({"letter": pd.Categorical(letters), "size": rng.normal(size=1000)})
    model = fit(frame, y)
    new = pd.DataFrame({"letter": pd.Categorical(list("abcde")), "size": np.zeros(5)})
    share = (model.sample(new, 200) < 0).mean(axis=1)
    np.testing.assert_allclose(share, [1, 0, 0, 1, 0], atol=0.03)


def test_saved_and_loaded_it_gives_equal_draws(tmp_path):
    x, y = em.problems.get("fork").sample(300, seed=0)
    model = fit(x, y)
    again = em.load(model.save(tmp_path / "trees.safetensors"), device="cpu")
    assert np.array_equal(model.sample(x[:20], 5), again.sample(x[:20], 5))
    assert again.n_parameters_ == model.n_parameters_ > 100


def test_the_forest_answers_as_scikit_learns():
    """Its arrays, walked through, are its trees."""
    from sklearn.ensemble import ExtraTreesRegressor

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 3)).astype(np.float32), rng.normal(size=(200, 2))
    folds = np.arange(200) % 2
    forest, unseen = grow(x, y, folds, trees=5, least=2, seed=7)
    new = rng.normal(size=(50, 3)).astype(np.float32)
    wanted = np.zeros((50, 2))
    for fold in range(2):
        trees = ExtraTreesRegressor(5, max_features=0.5, min_samples_leaf=2, random_state=7 + fold)
        trees.fit(x[folds != fold], y[folds != fold])
        np.testing.assert_allclose(unseen[folds == fold], trees.predict(x[folds == fold]))
        wanted += trees.predict(new) / 2
    np.testing.assert_allclose(forest.predict(torch.from_numpy(new)).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_a_bound_on_the_time_is_kept():
    x, y = em.problems.get("fork").sample(4000, seed=0)
    model = em.OneToManyRegressor("trees", random_state=0, max_seconds=0.5, device="cpu").fit(x, y)
    assert model.fit_seconds_ < 5  # a tree and a forest are not cut in the middle
    assert np.isfinite(model.sample(x[:10], 3)).all()


HARD = {
    "constant columns": lambda rng: (np.c_[rng.normal(size=(200, 1)), np.ones((200, 2))], rng.normal(size=(200, 1))),
    "duplicated rows": lambda rng: (
        np.repeat(rng.normal(size=(5, 2)), 40, 0),
        np.repeat(rng.normal(size=(5, 2)), 40, 0),
    ),
    "twenty rows": lambda rng: (rng.normal(size=(20, 3)), rng.normal(size=(20, 2))),
    "two rows": lambda rng: (rng.normal(size=(2, 3)), rng.normal(size=(2, 2))),
    "64 outputs": lambda rng: (rng.normal(size=(40, 2)), rng.normal(size=(40, 64))),
    "heavy tails": lambda rng: (rng.normal(size=(300, 1)), rng.standard_t(1, size=(300, 1))),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_data_leave_finite_draws(case):
    """Warnings are errors here, so none leaks either."""
    x, y = HARD[case](np.random.default_rng(0))
    model = fit(x, y, steps=5)
    assert np.isfinite(model.sample(x[:5], 5)).all()
    assert all(torch.isfinite(value.double()).all() for value in model.family_.state_dict().values())


def test_without_lightgbm_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'everymode\[trees\]'"):
        fit(np.zeros((30, 1)), np.arange(30.0))
