"""Tests of p(y | x): quiet on the truth, loud on what is wrong, and clear about what cannot be judged."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import everymode as em
from everymode.calibration import VERDICTS, calibrate_draws
from everymode.calibration.scores import references
from everymode.calibration.verdict import Calibration
from everymode.errors import DataError, SettingError, UnsupportedError

RIGHT = VERDICTS[0]


def judged(name: str, *, rows=1000, n=100, seed=0, wrong=lambda draws: draws, density=False, **settings) -> Calibration:
    """Judge draws of a problem, of one with other settings, or changed, on rows of the true one."""
    true = em.problems.get(name)
    model = em.problems.get(name, **settings)
    x, y = true.sample(rows, seed=2 * seed)
    draws = wrong(model.sample_given(x, n, seed=2 * seed + 1))
    logs = {}
    if density:
        logs = {"log_density": model.log_density(x, y[:, None])[:, 0], "draws_log_density": model.log_density(x, draws)}
    return calibrate_draws(y, draws, x=x, random_state=seed, **logs)


def outside(found: Calibration) -> set[str]:
    return {check.name for check in found.checks if not check.inside}


@pytest.mark.parametrize(("name", "density"), [("fork", False), ("sine_fold", True)])
def test_every_statistic_of_the_truth_is_outside_in_5_of_100_cases(name, density):
    tries, alarms, wrong = 60, {}, 0
    for seed in range(tries):
        found = judged(name, rows=150, n=40, seed=seed, density=density)
        wrong += found.verdict != RIGHT
        for check in found.checks:
            alarms[check.name] = alarms.get(check.name, 0) + (not check.inside)
            assert check.inside == (check.p_value >= 0.05) or abs(check.p_value - 0.05) < 0.005
    # binomial: 10 of 60 at 5 % has a probability below .0006; of all tests and tries together the mean is .05 +- .02
    assert max(alarms.values()) < 10, alarms
    assert 0.005 < np.mean(list(alarms.values())) / tries < 0.09
    assert wrong < 10


@pytest.mark.parametrize("density", [True, False])
@pytest.mark.parametrize("name", ["fork", "sine_fold", "line"])
def test_too_narrow_a_law_is_seen_by_regions_and_gaps(name, density):
    noise = {"fork": {"least_noise": 0.09, "most_noise": 0.21}, "sine_fold": {"noise": 0.018}, "line": {"noise": 0.18}}
    found = judged(name, density=density, **noise[name])
    assert found.verdict == "too narrow"
    assert {"density rank", "share in the 90% region", "gap rank"} <= outside(found)
    shares = {check.name: check.statistic for check in found.checks}
    assert shares["share in the 90% region"] < 0.85
    assert found.density == ("log-density" if density else "nearest neighbours")


def test_too_wide_a_law_is_the_other_way_round():
    found = judged("line", noise=0.5)
    assert found.verdict == "too wide"
    assert next(check.statistic for check in found.checks if check.name == "share in the 80% region") > 0.85
    right = judged("line")
    assert right.verdict == RIGHT
    assert found.sharpness.width["y"] > 1.5 * right.sharpness.width["y"]
    assert right.sharpness.width["y"] == pytest.approx(2 * 1.645 * 0.3, rel=0.05)
    assert right.sharpness.energy_score == pytest.approx(right.sharpness.energy_score_if_right, rel=0.1)
    assert found.sharpness.energy_score_if_right > 1.3 * found.sharpness.energy_score  # it would have to be noisier


@pytest.mark.parametrize(("name", "by"), [("line", 0.15), ("heavy_tailed", 0.15), ("fork", [0.12, 0.12])])
def test_shifted_draws_are_seen_by_their_targets_ranks(name, by):
    found = judged(name, wrong=lambda draws: draws + np.array(by))
    assert found.verdict == "shifted"
    assert any(test.startswith("PIT") for test in outside(found))


@pytest.mark.parametrize(("name", "share"), [("fork", 0.5), ("imbalanced", 0.08)])
def test_a_dropped_answer_is_missing(name, share):
    problem = em.problems.get(name)
    x, y = problem.sample(1000, seed=4)
    drawn = problem.sample_given(x, 400, seed=5)
    kept = np.argsort(problem.assign(x, drawn) == 1, axis=1, kind="stable")[:, :100]
    found = calibrate_draws(y, np.take_along_axis(drawn, kept[..., None], axis=1), x=x)
    assert found.verdict == "answers are missing"
    assert "gap rank" in outside(found)
    assert found.far == pytest.approx(share, abs=0.06)


def test_ranks_are_blind_to_what_leaves_their_scores_alone():
    """What is wrong with the second target, and with how the two hang together; by no luck, but rank by rank."""
    rng = np.random.default_rng(0)

    def pairs(*shape: int) -> np.ndarray:
        first = rng.normal(size=shape)
        return np.stack([first, first + 0.5 * rng.normal(size=shape)], axis=-1)

    y, draws = pairs(600), pairs(600, 60)
    loose = np.stack([draws[..., 0], np.roll(draws[..., 1], 1, axis=1)], axis=-1)
    right, moved, loose = (calibrate_draws(y, given) for given in (draws, draws + np.array([0, 0.5]), loose))
    assert right.verdict == RIGHT
    np.testing.assert_array_equal(moved.ranks["PIT of y0"], right.ranks["PIT of y0"])
    assert "PIT of y1" in outside(moved)
    for name in ("PIT of y0", "PIT of y1"):
        np.testing.assert_array_equal(loose.ranks[name], right.ranks[name])
    assert {"average rank", "energy rank", "density rank"} <= outside(loose)


@pytest.mark.parametrize(("fault", "blind"), [("shifted", set()), ("narrow", set()), ("dropped", {"PIT of y1"})])
def test_on_many_rows_every_statistic_sees_a_fault_that_touches_its_scores(fault, blind):
    """Along the way, both ways round are alike: if one is dropped, that target's law stays as it is."""
    fork, narrow = em.problems.get("fork"), em.problems.get("fork", least_noise=0.09, most_noise=0.21)
    x, y = fork.sample(4000, seed=0)
    draws = (narrow if fault == "narrow" else fork).sample_given(x, 160, seed=1)
    if fault == "dropped":
        draws = np.take_along_axis(
            draws, np.argsort(fork.assign(x, draws) == 1, axis=1, kind="stable")[..., None], axis=1
        )
    draws = draws[:, :40] + (0.15 if fault == "shifted" else 0.0)
    found = calibrate_draws(y, draws, x=x)
    assert {check.name for check in found.checks} - outside(found) == blind


def test_only_references_near_in_x_see_a_model_that_does_not_look_at_x():
    x, y = em.problems.get("line").sample(1000, seed=0)
    blind = em.problems.get("line").sample(1000 * 100, seed=1)[1].reshape(1000, 100, 1)
    without, beside = calibrate_draws(y, blind), calibrate_draws(y, blind, x=x)
    assert without.verdict == RIGHT  # it has the right law of y
    assert beside.verdict != RIGHT
    assert outside(beside) - outside(without) == {"reference rank"}


def test_references_never_come_full_circle():
    x = np.random.default_rng(0).normal(size=(101, 2))
    for given in (None, x):
        other = references(101, given, np.random.default_rng(1))
        assert (other >= 0).sum() == 100
        for row in range(101):
            seen = set()
            while row >= 0:
                assert row not in seen
                seen.add(row)
                row = other[row]
    near, far = (np.linalg.norm(x - x[references(101, given, np.random.default_rng(1))], axis=1) for given in (x, None))
    assert np.median(near) < 0.4 * np.median(far)


def test_the_size_of_a_region_is_that_of_a_normal():
    rng = np.random.default_rng(0)
    draws, y = rng.normal(size=(60, 600)), rng.normal(size=60)
    log_density = -0.5 * draws**2 - 0.5 * np.log(2 * np.pi)
    exact = calibrate_draws(y, draws, log_density=-0.5 * y**2 - 0.5 * np.log(2 * np.pi), draws_log_density=log_density)
    assert exact.sharpness.region == pytest.approx(2 * 1.645, rel=0.03)
    near = calibrate_draws(3 * y, 3 * draws).sharpness.region
    assert near == pytest.approx(6 * 1.645, rel=0.4)  # by three neighbours: rough, in the right units


def test_many_targets_are_ranked_together():
    rng = np.random.default_rng(0)
    y, draws = rng.normal(size=(200, 20)), rng.normal(size=(200, 40, 20))
    found = calibrate_draws(y, draws)
    assert found.verdict == RIGHT
    assert not any(name.startswith("PIT") for name in found.ranks)
    assert "20 targets" in found.remarks[0]
    assert found.sharpness.region is None
    assert calibrate_draws(y, 0.5 * draws).verdict == "too narrow"


def test_a_result_is_repeatable_and_json_ready():
    first, second = judged("fork", rows=100), judged("fork", rows=100)
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False)) == second.to_dict()
    assert str(first).startswith("verdict: calibrated")
    assert "only what is far wrong" in str(first)
    assert first.title == "y0, y1: calibrated: nothing found"
    assert replace(first, verdict="shifted").meaning.startswith("answers lie to one side")


def test_rounded_answers_are_remarked():
    x, y = em.problems.get("line").sample(300, seed=0)
    found = calibrate_draws(np.round(y, 1), em.problems.get("line").sample_given(x, 50, seed=1))
    assert any("many rows share" in remark for remark in found.remarks)


# Models --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> em.OneToManyRegressor:
    x, y = em.problems.get("line").sample(800, seed=0)
    settings = {"steps": 400, "width": 32, "depth": 1, "device": "cpu", "random_state": 0}
    return em.OneToManyRegressor("gaussian", **settings).fit(pd.DataFrame(x, columns=["x"]), y[:, 0])


def test_a_model_of_the_right_law_is_told_from_the_same_on_shifted_rows(model):
    x, y = em.problems.get("line").sample(400, seed=1)
    x = pd.DataFrame(x, columns=["x"])
    found = em.calibrate(model, x, y[:, 0], n_draws=50)
    assert found.verdict == RIGHT
    assert found.density == "log-density"
    assert em.calibrate(model, x, y[:, 0], n_draws=50, density=False).density == "nearest neighbours"
    assert em.calibrate(model, x, y[:, 0] + 0.2, n_draws=50).verdict == "shifted"
    fewer = em.calibrate(model, x, y[:, 0], n_draws=50, max_rows=100)
    assert fewer.rows == 100
    assert "100 of 400 rows" in fewer.remarks[0]


def test_squared_error_is_too_narrow_and_has_no_density():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": rng.choice(["a", "b"], 300), "x": rng.normal(size=300)})
    y = pd.DataFrame({"first": rng.normal(size=300), "second": frame["x"] + rng.normal(size=300)})
    model = em.OneToManyRegressor("mse", steps=50, width=16, depth=1, device="cpu", random_state=0).fit(frame, y)
    found = em.calibrate(model, frame, y, n_draws=20)
    assert found.verdict == "too narrow"
    assert found.targets == ("first", "second")
    assert found.sharpness.width == {"first": 0.0, "second": 0.0}
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(UnsupportedError, match="has no density"):
        em.calibrate(model, frame, y, n_draws=20, density=True)


# What cannot be judged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros((30, 3))}, r"y must be \(rows, dy\).*got \(30, 3\) and \(30, 20, 2\)"),
        ({"draws": np.zeros((30, 20))}, r"draws \(rows, n, dy\)"),
        ({"y": np.zeros((5, 2)), "draws": np.zeros((5, 20, 2))}, "asks for 20 rows and 20 draws .* got 5 rows"),
        ({"draws": np.zeros((30, 3, 2))}, "got 30 rows and 3 draws"),
        ({"y": np.full((30, 2), np.nan)}, "y must be finite: 30 rows are not, the first is 0"),
        ({"draws": np.full((30, 20, 2), np.inf)}, "draws must be finite"),
        ({"x": np.zeros((29, 1))}, r"x must be finite numbers \(30, columns\)"),
        ({"log_density": np.zeros(30)}, "both, or neither"),
        (
            {"log_density": np.zeros(30), "draws_log_density": np.zeros((30, 2))},
            r"\(30, 20\); got \(30,\) and \(30, 2\)",
        ),
        ({"log_density": np.full(30, np.nan), "draws_log_density": np.zeros((30, 20))}, "30 are NaN"),
        ({"names": ["a"]}, "give 2, one a column of y"),
    ],
)
def test_what_cannot_be_judged_is_refused(change, message):
    rng = np.random.default_rng(0)
    given = {"y": rng.normal(size=(30, 2)), "draws": rng.normal(size=(30, 20, 2)), **change}
    with pytest.raises(DataError, match=message):
        calibrate_draws(given.pop("y"), given.pop("draws"), **given)


def test_settings_are_checked(model):
    x, y = em.problems.get("line").sample(30, seed=1)
    x = pd.DataFrame(x, columns=["x"])
    with pytest.raises(SettingError, match="n_draws=5 is out of range"):
        em.calibrate(model, x, y[:, 0], n_draws=5)
    with pytest.raises(SettingError, match="random_state"):
        em.calibrate(model, x, y[:, 0], random_state=-1)
    with pytest.raises(SettingError, match="give a fitted OneToManyRegressor, or its draws to calibrate_draws"):
        em.calibrate("mdn", x, y)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="X has 30 rows, but Y has shape"):
        em.calibrate(model, x, y[:20, 0])
