"""The scikit-learn face: its checks, its manners, and what it answers."""

from __future__ import annotations

import doctest
import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import everymode as em
import everymode.estimator
from everymode.errors import DataError, SettingError, UnsupportedError
from everymode.families import Family, get_family
from everymode.networks import ResidualMLP
from everymode.spaces import DictSpace, ImageSpace, SequenceSpace, TableSpace, VectorSpace

TINY = {"steps": 20, "width": 16, "depth": 1, "batch_size": 16, "device": "cpu"}
ROWS = 60


def tiny(family=None, **settings) -> em.OneToManyRegressor:
    return em.OneToManyRegressor(family or em.FlowMatching(steps=4), **{**TINY, "random_state": 0, **settings})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@parametrize_with_checks(
    [
        em.OneToManyRegressor(
            em.FlowMatching(steps=4), width=16, depth=1, steps=300, batch_size=32, random_state=0, device="cpu"
        )
    ]
)
def test_scikit_learn(estimator, check, monkeypatch):
    before = np.random.get_state()  # noqa: NPY002 - scikit-learn's own checks draw from it
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            check(estimator)
    finally:
        np.random.set_state(before)  # noqa: NPY002


# Settings ------------------------------------------------------------------------------------------------------------


def test_a_clone_has_the_settings_and_no_fit():
    model = tiny(em.FlowMatching(path="cosine", steps=7), learning_rate=0.003).fit(normal(ROWS, 2), normal(ROWS))
    copy = clone(model)
    assert copy.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert copy.family is not model.family
    assert copy.family.get_params() == model.family.get_params()
    assert copy.learning_rate == 0.003
    with pytest.raises(NotFittedError):
        copy.predict(normal(3, 2))


def test_a_fit_leaves_the_settings_as_they_were():
    model = tiny("flow_matching", width=None, steps=15)
    before = dict(model.get_params())
    model.fit(normal(ROWS, 2), normal(ROWS))
    assert model.get_params() == before
    assert list(model.family_.parameters())
    family = em.FlowMatching(steps=3)
    tiny(family).fit(normal(ROWS, 2), normal(ROWS))
    assert not list(family.parameters())


def test_settings_of_the_family_by_name():
    model = tiny("flow_matching").set_params(family__path="cosine", family__steps=3)
    assert isinstance(model.family, em.FlowMatching)
    assert (model.family.path, model.family.steps) == ("cosine", 3)
    assert model.get_params()["family__path"] == "cosine"
    model.set_params(family="mse", steps=9)
    assert (model.family, model.steps) == ("mse", 9)
    with pytest.raises(SettingError, match="path='nope'"):
        tiny().set_params(family__path="nope")
    shared = em.FlowMatching()
    tiny(shared).set_params(family__steps=2)
    assert shared.steps == em.FlowMatching().steps  # the object of the user is not changed behind the user's back


def test_grid_search_over_the_path_and_the_width():
    x, y = em.problems.get("fork").sample(90, seed=0)
    grid = {"family__path": ["linear", "cosine"], "family__steps": [2], "width": [8]}
    search = GridSearchCV(tiny("flow_matching"), grid, cv=2, error_score="raise").fit(x, y)
    assert len(search.cv_results_["params"]) == 2
    assert search.best_params_ == search.cv_results_["params"][search.best_index_]
    best = search.best_estimator_
    assert best.family_.path == search.best_params_["family__path"]
    assert (best.family_.steps, best.width_) == (2, 8)
    assert search.predict(x[:4]).shape == (4, 2)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]


def test_in_a_pipeline():
    x, y = 1e6 * normal(ROWS, 2) + 5e6, normal(ROWS)
    pipeline = make_pipeline(StandardScaler(), tiny()).fit(x, y)
    assert pipeline.predict(x[:5]).shape == (5,)
    own = tiny().fit(StandardScaler().fit_transform(x), y)
    assert np.array_equal(pipeline[-1].sample(pipeline[0].transform(x), 3), own.sample(pipeline[0].transform(x), 3))
    assert cross_val_score(pipeline, x, y, cv=2).shape == (2,)


def test_unfitted():
    model, x = tiny(), normal(3, 2)
    for ask in (model.sample, model.predict, lambda x: model.score(x, x), lambda x: model.n_parameters_):
        with pytest.raises(NotFittedError, match="not fitted"):
            ask(x)
    with pytest.raises(NotFittedError):
        model.save("nowhere.safetensors")


# Shapes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [em.FlowMatching(steps=2), em.MSE()], ids=["flow_matching", "mse"])
@pytest.mark.parametrize(
    ("event", "space"),
    [((), VectorSpace), ((1,), VectorSpace), ((3,), VectorSpace), ((5, 2), SequenceSpace), ((1, 4, 4), ImageSpace)],
)
def test_answers_have_the_shape_of_y(event, space, family):
    x, y = normal(ROWS, 2), 100 + 3 * normal(ROWS, *event, seed=1)
    model = tiny(family).fit(x, y)
    assert type(model.y_space_) is space
    assert model.sample(x[:7], 6).shape == (7, 6, *event)
    assert model.sample(x[:1]).shape == (1, 1, *event)
    assert model.predict(x[:7]).shape == (7, *event)
    assert model.sample(x[:7], 6).dtype == np.float64
    assert 90 < model.sample(x, 4).mean() < 110  # in the units of y
    assert isinstance(model.score(x, y), float)


@pytest.mark.parametrize("shape", [(2,), (4, 2), (3, 8, 8)])
def test_shapes_of_x(shape):
    x, y = normal(ROWS, *shape), normal(ROWS, seed=1)
    model = tiny().fit(x, y)
    assert model.x_space_.shape == shape
    assert model.sample(x[:5], 2).shape == (5, 2)


def test_exchangeable_points_answer_alike_in_any_order(tmp_path):
    x, y = normal(ROWS, 4, 2), normal(ROWS, seed=1)
    model = tiny(exchangeable=True).fit(x, y)
    drawn = model.sample(x[:5], 3)
    np.testing.assert_allclose(model.sample(x[:5, [2, 0, 3, 1]], 3), drawn, rtol=1e-4, atol=1e-5)
    assert np.ptp(drawn[:, 0]) > 1e-3  # and the points matter
    assert np.array_equal(em.load(model.save(tmp_path / "m.safetensors")).sample(x[:5], 3), drawn)


@pytest.mark.parametrize("x", [normal(ROWS, 2), {"past": normal(ROWS, 4, 2)}, pd.DataFrame({"a": normal(ROWS)})])
def test_what_is_no_set_of_points(x):
    with pytest.raises(DataError, match=r"exchangeable=True is for X of shape \(rows, points, d\)"):
        tiny(exchangeable=True).fit(x, normal(ROWS))


def test_tensors_are_arrays():
    x, y = normal(ROWS, 2), normal(ROWS, seed=1)
    of_arrays = tiny().fit(x, y)
    of_tensors = tiny().fit(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y))
    assert np.array_equal(of_tensors.sample(torch.from_numpy(x), 3), of_arrays.sample(x, 3))
    assert of_tensors.score(torch.from_numpy(x), torch.from_numpy(y)) == of_arrays.score(x, y)
    assert isinstance(of_tensors.predict(torch.from_numpy(x)), np.ndarray)


def test_a_dict_of_arrays(tmp_path):
    x = {
        "state": normal(ROWS, 3),
        "camera": torch.from_numpy(normal(ROWS, 1, 8, 8, seed=1)),
        "past": normal(ROWS, 4, 2),
    }
    y = 5 * x["state"][:, 0]
    model = tiny("mse", steps=300, learning_rate=0.01).fit(x, y)
    assert isinstance(model.x_space_, DictSpace)
    few = {key: value[:6] for key, value in x.items()}
    assert model.sample(few, 2).shape == (6, 2)
    assert model.score(x, y) > 0.5  # it reads `state`
    read = em.load(model.save(tmp_path / "m.safetensors"))
    assert np.array_equal(read.sample(few, 2), model.sample(few, 2))


# Frames --------------------------------------------------------------------------------------------------------------


def frames():
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"size": rng.normal(10, 3, ROWS), "age": rng.integers(1, 9, ROWS)})
    return x, pd.DataFrame({"left": rng.normal(size=ROWS), "right": rng.normal(size=ROWS)})


def test_pandas_frames_are_their_numbers():
    x, y = frames()
    model = tiny().fit(x, y)
    assert model.feature_names_in_.tolist() == ["size", "age"]
    assert model.n_features_in_ == 2
    assert model.y_space_.names == ("left", "right")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = model.sample(x.head(3), 4)
    plain = tiny().fit(x.to_numpy(dtype=float), y.to_numpy())
    assert np.array_equal(plain.sample(x.to_numpy(dtype=float)[:3], 4), drawn)
    assert tiny().fit(x, y["left"]).sample(x, 2).shape == (ROWS, 2)  # a series is 1-D
    assert tiny().fit(x, y[["left"]]).sample(x, 2).shape == (ROWS, 2, 1)


@pytest.mark.parametrize("categories", [False, True])
def test_names_are_checked(categories):
    x, y = frames()
    if categories:
        x = x.assign(kind=["a", "b"] * (ROWS // 2))
    model = tiny().fit(x, y)
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*[Uu]nseen.*weight.*missing.*size"):
        model.predict(x.rename(columns={"size": "weight"}))
    with pytest.raises(ValueError, match=r"(?s)feature names.*same order"):
        model.sample(x[list(x.columns)[::-1]])
    with pytest.raises(ValueError, match=r"feature names|features"):
        model.sample(x[["size"]])
    with pytest.raises(ValueError, match=r"feature names|features"):
        model.sample(x.assign(more=1.0))


def test_polars_frames():
    polars = pytest.importorskip("polars")
    x, y = frames()
    kind = ["a", "b"] * (ROWS // 2)
    model = tiny().fit(polars.from_pandas(x), polars.from_pandas(y))
    same = tiny().fit(x, y)
    assert model.feature_names_in_.tolist() == ["size", "age"]
    assert np.array_equal(model.sample(polars.from_pandas(x), 2), same.sample(x, 2))
    assert model.score(polars.from_pandas(x), polars.from_pandas(y)) == same.score(x, y)
    mixed = polars.from_pandas(x).with_columns(polars.Series("kind", kind))
    with_kind = tiny().fit(mixed, polars.Series("y", y["left"].to_numpy()))
    assert with_kind.sample(mixed, 3).shape == (ROWS, 3)
    assert np.array_equal(
        with_kind.sample(mixed, 2), tiny().fit(x.assign(kind=kind), y["left"]).sample(x.assign(kind=kind), 2)
    )


@pytest.mark.parametrize("kind", ["text", "category", "bool"])
def test_categorical_columns_matter(kind, tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 200)
    column = pd.Series(np.array(["low", "high"])[codes]) if kind != "bool" else pd.Series(codes == 1)
    x = pd.DataFrame(
        {"kind": column.astype("category") if kind == "category" else column, "size": rng.normal(size=200)}
    )
    y = 10.0 * codes + 0.1 * rng.normal(size=200)
    model = tiny(steps=400, learning_rate=0.01).fit(x, y)
    assert isinstance(model.x_space_, TableSpace)
    drawn = model.sample(x, 20).mean(axis=1)
    assert drawn[codes == 1].mean() - drawn[codes == 0].mean() > 7
    assert model.score(x, y) > 0.5
    read = em.load(model.save(tmp_path / "m.safetensors"))
    assert np.array_equal(read.predict(x), model.predict(x))


def test_an_unseen_category():
    x, y = frames()
    model = tiny().fit(x.assign(kind=["a", "b"] * (ROWS // 2)), y)
    with pytest.raises(DataError, match=r"column 'kind' holds a category never seen in training: 'c'.* Known: a, b\."):
        model.sample(x.assign(kind="c"))
    with pytest.raises(DataError, match="give a frame with columns size, age, kind"):
        model.sample(normal(3, 3))


# Repeatability -------------------------------------------------------------------------------------------------------


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.family_.parameters()])


def test_random_state():
    x, y = normal(ROWS, 2), normal(ROWS, seed=1)
    first, second, other = (tiny(random_state=seed).fit(x, y) for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(second))
    assert np.array_equal(first.sample(x, 4), second.sample(x, 4))
    assert np.array_equal(first.predict(x), second.predict(x))
    assert not torch.equal(weights(first), weights(other))
    assert np.array_equal(first.sample(x, 4), first.sample(x, 4))
    assert np.array_equal(first.sample(x, 4, random_state=9), second.sample(x, 4, random_state=9))
    assert not np.array_equal(first.sample(x, 4, random_state=9), first.sample(x, 4))
    assert torch.equal(weights(first), weights(first.fit(x, y)))  # a second fit forgets the first


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_random_generators(kind):
    x, y = normal(ROWS, 2), normal(ROWS, seed=1)
    first, second = (tiny(random_state=kind(5)).fit(x, y) for _ in range(2))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(first.fit(x, y)))  # the generator has moved on


def test_without_a_random_state_runs_differ_and_global_state_rests():
    """The guard in conftest.py watches NumPy's and torch's global generators."""
    x, y = normal(ROWS, 2), normal(ROWS, seed=1)
    first, second = (tiny(random_state=None).fit(x, y) for _ in range(2))
    assert not torch.equal(weights(first), weights(second))


def test_a_row_is_answered_alike_whatever_is_beside_it():
    x, y = em.problems.get("fork").sample(200, seed=0)
    model = tiny(steps=100).fit(x, y)
    together = model.predict(x[:30])
    assert np.array_equal(model.predict(x[7:8])[0], together[7])
    assert np.array_equal(model.predict(x[:30][::-1]), together[::-1])


# What ends a run -----------------------------------------------------------------------------------------------------


def test_max_seconds_bounds_the_time():
    x, y = normal(500, 2), normal(500, seed=1)
    model = tiny(steps=10**7, max_seconds=1.0, early_stopping=False)
    started = time.perf_counter()
    model.fit(x, y)
    assert time.perf_counter() - started < 3.0
    assert model.stopped_ == "time limit"
    assert 1.0 <= model.fit_seconds_ < 2.0
    assert 10 < model.n_steps_ < 10**7
    assert np.isfinite(model.sample(x[:5], 2)).all()


def test_weight_decay():
    """A strong one leaves smaller weights; None is the default of the training."""
    x, y = normal(60, 8), normal(60, seed=1)
    usual = {"steps": 200, "learning_rate": 0.01, "early_stopping": False}

    def size(weight_decay):
        family = tiny("mse", weight_decay=weight_decay, **usual).fit(x, y).family_
        return sum(float(p.detach().square().sum()) for p in family.parameters())

    assert size(None) == size(1e-4)
    assert size(1.0) < 0.5 * size(None)


def test_early_stopping():
    """Forty rows of noise can be learned by heart; the held-out rows notice, and the best weights are kept."""
    x, y = normal(60, 8), normal(60, seed=1)
    usual = {"steps": 4000, "width": 64, "learning_rate": 0.01, "patience": 2}
    stopped = tiny("mse", **usual).fit(x, y)
    assert stopped.stopped_ == "early stopping"
    assert stopped.n_steps_ < 4000
    held = {row["step"]: row["held_out_loss"] for row in stopped.history_ if row["held_out_loss"] is not None}
    assert min(held, key=held.get) == stopped.n_steps_ - 2 * 200  # patience looks, one every 200 steps
    fresh_x, fresh_y = normal(400, 8, seed=5), normal(400, seed=6)
    whole = tiny("mse", **{**usual, "steps": 1500}, early_stopping=False).fit(x, y)
    assert (whole.stopped_, whole.n_steps_) == ("completed", 1500)
    assert all(row["held_out_loss"] is None for row in whole.history_)

    def error(model):
        return np.mean((model.predict(fresh_x) - fresh_y) ** 2)

    assert error(stopped) < error(whole)


def test_few_rows_are_all_trained_on():
    for rows, held in ((49, False), (50, True)):
        model = tiny(steps=20).fit(normal(rows, 2), normal(rows, seed=1))
        assert any(row["held_out_loss"] is not None for row in model.history_) == held


def test_progress_and_interruption():
    x, y = normal(200, 2), normal(200, seed=1)
    reports = []
    model = tiny(steps=300).fit(x, y, progress=reports.append, interrupted=lambda: len(reports) >= 5)
    assert model.stopped_ == "interrupted"
    assert model.n_steps_ == reports[-1].step < 300
    assert [r.step for r in reports] == sorted({r.step for r in reports})
    assert np.isfinite(model.sample(x[:3], 2)).all()


# What it answers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fork():
    problem = em.problems.get("fork")
    x, y = problem.sample(2000, seed=0)
    usual = {"width": 32, "depth": 1, "steps": 1200, "batch_size": 128, "random_state": 0, "device": "cpu"}
    models = {name: em.OneToManyRegressor(name, **usual).fit(x, y) for name in ("flow_matching", "mse")}
    return problem, models


def test_predict_is_an_answer_and_never_the_average(fork):
    problem, models = fork
    x = problem.sample_x(150, seed=9)
    answers = models["flow_matching"].predict(x)
    assert problem.valid(x, answers[:, None]).mean() >= 0.97
    assert np.abs(answers[:, 0]).min() > 1.5  # nobody is sent straight on
    averages = models["mse"].predict(x)
    assert not problem.valid(x, averages[:, None]).any()
    assert np.abs(averages[:, 0]).max() < 1.0  # the obstacle
    assert np.array_equal(models["mse"].sample(x, 3)[:, 0], models["mse"].sample(x, 3)[:, 2])


def test_draws_are_valid_and_find_both_answers(fork):
    problem, models = fork
    x = problem.sample_x(100, seed=9)
    drawn = models["flow_matching"].sample(x, 100)
    assert problem.valid(x, drawn).mean() > 0.9
    left = (drawn[..., 0] < 0).mean(axis=1)
    assert ((left > 0.2) & (left < 0.8)).mean() > 0.95


@pytest.mark.parametrize(("family", "steps"), [("gaussian", 800), ("mean_flow", 400)])  # by likelihood; by energy
def test_the_score_tells_informative_x_from_uninformative(family, steps):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1500, 1))
    y = np.stack([3 * x[:, 0] + 0.1 * rng.normal(size=1500), rng.normal(size=1500)], axis=1)
    train_rows, test_rows = slice(0, 1000), slice(1000, 1500)
    scores = []
    for column in (0, 1):
        model = tiny(family, steps=steps, width=32, batch_size=128, learning_rate=0.005)
        model.fit(x[train_rows], y[train_rows, column])
        scores.append(model.score(x[test_rows], y[test_rows, column]))
    assert scores[0] > 0.8
    assert abs(scores[1]) < 0.06


def test_the_score_of_a_normal_model_is_r2_and_a_lost_mode_lowers_it(fork):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2))
    y = np.stack([x @ [1.0, 2.0], x[:, 0]], axis=1) + rng.normal(size=(3000, 2)) * [1.5, 0.5]
    model = tiny("gaussian", steps=800, width=32, batch_size=256, learning_rate=0.005).fit(x[:2000], y[:2000])
    means = model.sample(x[2000:], 256).mean(axis=1)
    unexplained = np.mean((y[2000:] - means) ** 2, axis=0) / y[2000:].var(axis=0)
    assert model.score(x[2000:], y[2000:]) == pytest.approx(1 - np.sqrt(unexplained.prod()), abs=0.03)

    problem, models = fork
    x, y = problem.sample(200, seed=5)
    lost = tiny("gaussian", steps=400).fit(x, np.abs(y))  # to the right is all that it knows
    assert models["flow_matching"].score(x, y) > lost.score(x, y) + 0.1


def test_weights_of_the_rows_enter_the_score(fork):
    problem, models = fork
    x, y = problem.sample(60, seed=4)
    far = y + 50.0 * (np.arange(60) < 10)[:, None]
    model = models["flow_matching"]
    heavy, light = (model.score(x, far, sample_weight=np.where(np.arange(60) < 10, w, 1.0)) for w in (10.0, 0.0))
    assert light > heavy
    assert model.score(x, far, sample_weight=np.ones(60)) == pytest.approx(model.score(x, far))


# Densities -----------------------------------------------------------------------------------------------------------


def test_densities_are_in_the_units_of_y():
    """Over a line and a plane in the units of y, far from standardised ones, they integrate to one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 1)), 500 + 40 * rng.normal(size=200)
    model = tiny("normalizing_flow").fit(x, y)
    line = np.arange(0, 1000, 0.5)
    found = model.log_prob(np.repeat(x[:1], len(line), axis=0), line)
    assert found.shape == line.shape
    assert found.dtype == np.float64
    assert np.exp(found).sum() * 0.5 == pytest.approx(1, abs=0.01)
    model = tiny("normalizing_flow").fit(x, np.stack([y, 1e-3 * rng.normal(size=200)], axis=1))
    plane = np.stack(np.meshgrid(np.arange(0, 1000, 4.0), np.arange(-0.01, 0.01, 1e-4)), axis=-1).reshape(-1, 2)
    found = model.log_prob(np.repeat(x[:1], len(plane), axis=0), plane)
    assert np.exp(found).sum() * 4 * 1e-4 == pytest.approx(1, abs=0.01)


def test_a_row_has_its_density_whatever_is_beside_it(monkeypatch):
    x, y = em.problems.get("fork").sample(100, seed=0)
    model = tiny("normalizing_flow").fit(x, y)
    whole = model.log_prob(x, y)
    assert whole.shape == (100,)
    assert whole.std() > 0
    np.testing.assert_allclose(model.log_prob(x[::-1], y[::-1]), whole[::-1], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(everymode.estimator, "_NETWORK_ROWS", 7)  # batches that do not divide the rows
    np.testing.assert_allclose(model.log_prob(x, y), whole, rtol=1e-5, atol=1e-5)
    frame = pd.DataFrame(y)
    np.testing.assert_allclose(model.log_prob(x, frame), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.log_prob(torch.from_numpy(x), torch.from_numpy(y)), whole, rtol=1e-5, atol=1e-5)


def test_a_saved_model_has_the_same_densities(tmp_path):
    x, y = normal(ROWS, 2), normal(ROWS, seed=1)
    model = tiny(em.NormalizingFlow(bins=4, passes=2)).fit(x, y)
    read = em.load(model.save(tmp_path / "model.safetensors"), device="cpu")
    assert np.array_equal(read.log_prob(x, y), model.log_prob(x, y))


def test_bad_questions_for_a_density():
    x, y = normal(ROWS, 2), normal(ROWS, 2, seed=1)
    with pytest.raises(NotFittedError):
        tiny("normalizing_flow").log_prob(x, y)
    with pytest.raises(UnsupportedError, match=r"'mse' has no density.*normalizing_flow"):
        tiny("mse").fit(x, y).log_prob(x, y)
    model = tiny("normalizing_flow").fit(x, y)
    with pytest.raises(DataError, match="X has 60 rows, but Y has shape"):
        model.log_prob(x, y[:5])
    for wrong in (y[:, 0], y[:, :1], y[:, None]):
        with pytest.raises(DataError, match=r"each row must have shape \(2,\)"):
            model.log_prob(x, wrong)
    gap = y.copy()
    gap[7, 1] = np.nan
    with pytest.raises(DataError, match=r"Y holds NaN.*first at 7; column\(s\) column 1"):
        model.log_prob(x, gap)
    with pytest.raises(DataError, match="text"):
        model.log_prob(x, y.astype(str) + "a")
    table = pd.DataFrame(y, columns=["left", "right"])
    named = tiny("normalizing_flow").fit(x, table)
    assert named.log_prob(x, table).shape == (ROWS,)
    with pytest.raises(DataError, match=r"right, left.*fitted on left, right"):
        named.log_prob(x, table[["right", "left"]])
    flat = tiny("normalizing_flow").fit(x, y[:, 0])
    assert np.array_equal(flat.log_prob(x, y[:, 0]), flat.log_prob(x, y[:, :1]))


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [em.FlowMatching(path="cosine", steps=3, solver="heun", time_sampling="logit_normal"), em.MSE()],
    ids=["flow_matching", "mse"],
)
@pytest.mark.parametrize("event", [(), (2,), (4, 2), (1, 4, 4)])
def test_a_saved_model_draws_the_same(tmp_path, family, event):
    x, y = normal(ROWS, 2), 5 + normal(ROWS, *event, seed=1)
    model = tiny(family, depth=None).fit(x, y)
    path = model.save(tmp_path / "model.safetensors")
    read = em.load(path, device="cpu")
    assert np.array_equal(read.sample(x, 3), model.sample(x, 3))
    assert np.array_equal(read.predict(x), model.predict(x))
    assert read.score(x, y) == model.score(x, y)
    assert json.dumps(read.family.settings()) == json.dumps(family.settings())
    for name in ("n_features_in_", "history_", "n_steps_", "stopped_", "fit_seconds_", "precision_", "n_parameters_"):
        assert getattr(read, name) == getattr(model, name), name
    again = read.save(tmp_path / "again.safetensors")
    assert np.array_equal(em.load(again).sample(x, 2), model.sample(x, 2))
    refitted = clone(read).fit(x, y)
    assert torch.equal(weights(refitted), weights(model))  # the settings travel too


def test_names_and_checks_travel_with_the_model(tmp_path):
    x, y = frames()
    read = em.load(tiny().fit(x, y).save(tmp_path / "model.safetensors"))
    assert read.feature_names_in_.tolist() == ["size", "age"]
    with pytest.raises(ValueError, match="feature names"):
        read.predict(x.rename(columns={"size": "weight"}))


def test_a_network_of_ones_own(tmp_path):
    class Own(torch.nn.Module):
        def __init__(self, event, width):
            super().__init__()
            self.layer = torch.nn.Linear(event[0] + 1 + width, event[0])

        def forward(self, y_t, t, x_embedding):
            return self.layer(torch.cat([y_t, t[:, None], x_embedding], dim=1))

    x, y = normal(ROWS, 2), normal(ROWS, seed=1)
    model = tiny(network=Own).fit(x, y)
    assert isinstance(model.family_.network, Own)
    path = model.save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="give its factory with network="):
        em.load(path)
    assert np.array_equal(em.load(path, network=Own).sample(x, 2), model.sample(x, 2))


def test_a_network_by_its_name_comes_back_from_the_file(tmp_path):
    x, y = normal(ROWS, 2), normal(ROWS, 4, 2, seed=1)
    model = tiny(network="mlp").fit(x, y)
    assert isinstance(model.family_.network, ResidualMLP)
    assert not isinstance(tiny().fit(x, y).family_.network, ResidualMLP)  # a sequence's usual one
    read = em.load(model.save(tmp_path / "named.safetensors"))
    assert read.network == "mlp"
    assert np.array_equal(read.sample(x, 2), model.sample(x, 2))
    with pytest.raises(ValueError, match=r"Unknown network 'mpl'. Did you mean 'mlp'"):
        tiny(network="mpl").fit(x, y)


def test_what_is_documented_is_true():
    """The example in the docstring of the class."""
    found = doctest.DocTestFinder(recurse=False).find(everymode.estimator.OneToManyRegressor)
    assert sum(len(test.examples) for test in found) >= 4
    results = [doctest.DocTestRunner().run(test) for test in found]
    assert sum(result.failed for result in results) == 0


def test_the_families_of_the_registry_are_taken_by_name():
    for name in em.families.names():
        assert isinstance(get_family(name), Family)
        if "vector" in get_family(name).abilities.spaces:
            model = tiny(name).fit(normal(ROWS, 2), normal(ROWS, seed=1))
            assert model.family_.name == name
            assert model.predict(normal(3, 2)).shape == (3,)
