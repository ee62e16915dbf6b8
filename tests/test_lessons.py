"""The two lessons: what they measure agrees with theory, and what they teach is true."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from everymode import plots, problems
from everymode.errors import DataError, SettingError
from everymode.lessons import Crossing, Merging, crossing, merging
from everymode.lessons.crossing import TwoModes, crossing_rate, exact_crossing_time, slope_on_square
from everymode.lessons.merging import between_modes, component_numbers, modes_apart

# Crossing ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crossed():
    return crossing([3.0, 4.0, 5.0, 6.0], chains=400, budget=8000, seed=1)


def test_the_slope_is_that_of_the_exact_theory(crossed):
    slope = crossed.slope
    assert 0 < slope["low"] < slope["value"] < slope["high"]
    assert slope["low"] - 0.001 < slope["exact"] < slope["high"] + 0.001  # .001: the step is not infinitely small
    assert slope["high"] - slope["low"] < 0.02
    assert slope["kramers"] == 1 / 8


def test_each_crossing_time_agrees_with_the_exact_one(crossed):
    """To within four standard errors, and the 7 % that steps of .05 add; the last separation has censored chains."""
    for row in crossed.rows:
        reach = 4 / math.sqrt(row["crossings"]) + 0.07
        assert row["crossing_time"] == pytest.approx(row["crossing_time_exact"], rel=reach)
        assert row["crossing_time_low"] < row["crossing_time"] < row["crossing_time_high"]
    assert [row["crossings"] for row in crossed.rows[:3]] == [400, 400, 400]
    assert crossed.rows[3]["crossings"] < 400


def test_plain_langevin_pays_ever_more_and_the_others_do_not(crossed):
    paid = {name: [row["evaluations"][name] for row in crossed.rows] for name in crossed.rows[0]["evaluations"]}
    plain = paid["langevin"]
    assert plain == sorted(plain)
    assert plain[-1] > 10 * plain[0]
    assert max(paid["annealed_langevin"]) < 100
    assert max(paid["diffusion"]) < 20
    assert all(cheap < dear for cheap, dear in zip(paid["diffusion"], plain, strict=True))


def test_what_the_budget_does_not_reach_is_not_known():
    found = crossing([9.5, 8.0, 8.0], chains=8, budget=50)
    assert [row["separation"] for row in found.rows] == [8.0, 9.5]
    for row in found.rows:
        assert row["crossings"] == 0
        assert row["crossing_time"] is row["crossing_time_high"] is row["evaluations"]["langevin"] is None
        assert 0 < row["crossing_time_low"] < 8 * 50 * 0.05
    assert found.slope["value"] is None
    plots.draw("crossing", found)


def test_the_exact_time_tends_to_kramers():
    """tau / (sqrt(2 pi) (pi / s) exp(s^2 / 8)) -> 1, as 1 + O(1 / s^2)."""
    separations = np.array([8.0, 12.0, 16.0, 20.0])
    limit = np.sqrt(2 * np.pi) * np.pi / separations * np.exp(separations**2 / 8)
    ratio = np.array([exact_crossing_time(s) for s in separations]) / limit
    assert (np.diff(ratio) < 0).all()
    assert ratio[-1] == pytest.approx(1, abs=0.015)
    assert np.polyfit(np.log(separations[1:]), np.log(ratio[1:] - 1), 1)[0] == pytest.approx(-2, abs=0.3)


def test_the_exact_time_without_a_barrier_is_that_of_one_gaussian():
    """As s -> 0 it is the time of an Ornstein-Uhlenbeck process over s: s sqrt(2 pi) / 2."""
    s = 1e-3
    assert exact_crossing_time(s) == pytest.approx(s * math.sqrt(2 * math.pi) / 2, rel=1e-3)


@pytest.mark.parametrize("level", [None, 0.3, 4.0])
def test_the_score_is_the_gradient_of_the_mixture_it_stands_for(level):
    modes = TwoModes(5.0)
    y = np.linspace(-6, 6, 25)[:, None]
    step = 1e-5
    blur = 0.0 if level is None else level
    up, down = (modes.mixture.log_density_at(y + d, 1.0, blur) for d in (step, -step))
    given = None if level is None else torch.tensor(level, dtype=torch.float64)
    score = modes.score(torch.from_numpy(y), given)[:, 0].numpy()
    np.testing.assert_allclose(score, (up - down) / (2 * step), atol=1e-6)
    assert modes.barrier == pytest.approx(5.0**2 / 8 - math.log(2), abs=1e-4)


def test_the_distance_is_kolmogorov_and_smirnovs():
    modes = TwoModes(6.0)
    real = torch.from_numpy(modes.mixture.sample(4000, 0))
    assert modes.distance(real) < 1.95 / math.sqrt(4000)  # p = .001
    stuck = torch.from_numpy(norm.rvs(size=(4000, 1), random_state=0) - 3)
    assert modes.distance(stuck) == pytest.approx(0.5, abs=0.01)


def test_a_censored_rate_recovers_the_mean_and_its_interval_covers():
    """Exponential waits of mean 10, watched for 4: two thirds are censored; 95 % of the intervals hold 10."""
    random, covered, estimates = np.random.default_rng(0), 0, []
    for _ in range(400):
        waits = random.exponential(10.0, 60)
        estimate, low, high = crossing_rate(int((waits < 4).sum()), float(np.minimum(waits, 4).sum()))
        assert estimate is not None
        assert high is not None
        estimates.append(1 / estimate)
        covered += low < 10 < high
    assert np.mean(estimates) == pytest.approx(0.1, rel=0.05)
    assert 0.93 < covered / 400 < 0.99


def test_the_slope_of_an_exact_exponential_is_exact():
    rows = [
        {"separation": s, "crossings": n, "crossing_time": np.exp(1 + 0.2 * s**2), "crossing_time_exact": 3.0}
        for s, n in ((2.0, 100), (3.0, 50), (5.0, 3), (6.0, 0))
    ]
    slope = slope_on_square(rows)
    assert slope["value"] == pytest.approx(0.2)
    assert slope["exact"] == pytest.approx(0)
    assert slope_on_square(rows[2:])["value"] is None


def test_same_seed_same_lesson():
    first, again, other = (crossing([3.0, 4.0], chains=50, budget=2000, seed=seed).to_dict() for seed in (5, 5, 6))
    assert first == again
    assert first["rows"] != other["rows"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"separations": [3.0]}, "at least two"),
        ({"separations": [1.5, 3.0]}, "separations=1.5"),
        ({"chains": 1}, "chains=1"),
        ({"budget": 0}, "budget=0"),
        ({"step_size": 3.0}, "step_size=3"),
        ({"tolerance": 0.7}, "tolerance=0.7"),
    ],
)
def test_wrong_settings_of_crossing(settings, message):
    with pytest.raises(SettingError, match=message):
        crossing(**{"separations": [3.0, 4.0], **settings})


# Merging -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merged():
    """A model of a few seconds: enough to have a place in the result, not to be judged."""
    return merging(
        components=[1, 2, 4, 7, 8, 12], rows=2000, draws=2000, seed=0, family="flow_matching", steps=60, batch_size=64
    )


def test_too_few_components_merge_modes_and_enough_do_not(merged):
    rows = {row["components"]: row for row in merged.mixtures}
    shares = [rows[k]["valid_share"] for k in (1, 2, 4, 7, 8)]
    assert shares == sorted(shares)
    assert rows[7]["valid_share_high"] < rows[8]["valid_share_low"]
    assert rows[4]["valid_share"] < 0.7 < 0.99 < rows[8]["valid_share"]
    assert rows[8]["valid_share"] == pytest.approx(merged.floor["valid_share"], abs=0.005)
    assert [rows[k]["modes_apart"] for k in (1, 4, 7, 8, 12)] == [0, 0, 6, 8, 8]
    assert rows[4]["modes_found"] == 8  # each gets its share of draws, merged or not: why modes_apart is counted
    assert rows[4]["between_share"] > 0.3
    assert rows[8]["between_share"] < 0.01


def test_likelihoods_rise_to_the_floor_and_bic_finds_the_number(merged):
    rows = {row["components"]: row["log_likelihood"] for row in merged.mixtures}
    assert rows[1] < rows[2] < rows[4] < rows[7] < rows[8]
    assert rows[8] == pytest.approx(merged.floor["log_likelihood"], abs=0.03)
    assert merged.bic_choice == 8
    assert merged.modes == 8
    # of the mixture that is the truth, but for the overlap of the modes: minus the entropy
    entropy = math.log(8) + 1 + math.log(2 * math.pi * 0.06**2)
    assert merged.floor["log_likelihood"] == pytest.approx(-entropy, abs=5 / math.sqrt(2000))


def test_the_result_holds_the_model_and_survives_json(merged):
    assert merged.model["family"] == "flow_matching"
    assert merged.model["steps"] == 60
    assert merged.model["log_likelihood"] < merged.floor["log_likelihood"]
    described = json.loads(json.dumps(merged.to_dict(), allow_nan=False))
    assert Merging.from_dict(described) == merged
    assert "panels" not in merged.to_dict(pictures=False)
    with pytest.raises(DataError, match="'crossing'"):
        Crossing.from_dict(described)
    with pytest.raises(DataError, match="lacks panels"):
        Merging.from_dict(merged.to_dict(pictures=False))


def test_modes_apart_is_no_quirk_of_the_draws():
    random = np.random.default_rng(0)
    places = np.array([[-1.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    apart = places[random.integers(3, size=3000)] + 0.1 * random.standard_normal((3000, 2))
    assert modes_apart(apart, places).tolist() == [True, True, True]
    laid_over = np.where(random.random((3000, 1)) < 0.6, random.standard_normal((3000, 2)) * [1.0, 0.1], [5.0, 0.0])
    assert modes_apart(laid_over, places).tolist() == [False, False, True]
    assert modes_apart(apart[apart[:, 0] > 0], places).tolist() == [False, True, True]  # a lost mode is not kept
    assert modes_apart(apart, places[:1]).tolist() == [True]


def test_between_modes_and_outside_of_them():
    places = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    inside, outside = [[0.0, 0.3], [0.0, -0.5], [0.5, 0.5]], [[0.0, -1.5], [2.0, 0.0], [-1.2, 0.1]]
    assert between_modes(np.array(inside), places).all()
    assert not between_modes(np.array(outside), places).any()
    assert between_modes(np.empty((0, 2)), places).shape == (0,)


def test_component_numbers_span_twice_the_modes():
    assert component_numbers(8) == list(range(1, 17))
    numbers = component_numbers(25)
    assert (numbers[0], numbers[-1], 25 in numbers) == (1, 50, True)
    assert len(numbers) <= 21


def test_another_problem_and_a_family_with_a_density_of_its_own_or_none():
    found = merging(
        problems.get("fork"), [1.0], family="mse", components=[1, 2], rows=300, draws=200, steps=3, batch_size=16
    )
    assert found.modes == 2
    assert found.settings["problem"] == "fork"
    assert found.model["log_likelihood"] is None
    assert found.model["modes_found"] == 0
    assert found.mixtures[0]["valid_share"] < found.mixtures[1]["valid_share"]
    plots.draw("merging", found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": [0]}, "components=0"),
        ({"components": [5000]}, "components=5000"),
        ({"rows": 2}, "rows=2"),
        ({"draws": 2.5}, "draws=2.5"),
        ({"family": "difusion"}, "'diffusion'"),
        ({"x": [0.0, 1.0]}, "x must have shape"),
        ({"problem": problems.get("sine_fold")}, "y is one number"),
    ],
)
def test_wrong_settings_of_merging(settings, message):
    with pytest.raises(ValueError, match=message):
        merging(**{"components": [1], "rows": 100, "draws": 100, "steps": 1, **settings})


# Figures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["merging", "crossing"])
def test_a_lesson_has_a_figure_of_its_name_the_same_bytes_twice(kind, merged, crossed, tmp_path):
    lesson = {"merging": merged, "crossing": crossed}[kind]
    again = type(lesson).from_dict(json.loads(json.dumps(lesson.to_dict())))
    first, second = (
        plots.save(plots.draw(kind, found), tmp_path / folder, kind)
        for folder, found in (("first", lesson), ("second", again))
    )
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True)] == [True, True]


def test_the_figure_tells_the_slope_and_the_valid_shares(merged, crossed):
    def texts(figure):
        return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))

    assert f"{crossed.slope['value']:.4f}" in texts(plots.draw("crossing", crossed))
    assert "mixture of 4" in texts(plots.draw("merging", merged))
    without = dataclasses.replace(merged, panels=[])
    with pytest.raises(DataError, match="has no panels"):
        plots.draw("merging", without)
