"""The diagnosis of tables whose truth is known, and of tables that cannot be diagnosed."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import polars
import pytest
import torch

import everymode as em
from everymode.diagnosis import VERDICTS
from everymode.errors import DataError, SettingError
from everymode.problems.geyser import Geyser


@pytest.fixture(scope="module")
def fork():
    x, y = em.problems.get("fork").sample(500, seed=0)
    return em.diagnose(x, y)


@pytest.fixture(scope="module")
def parted():
    """Rows with y = a or -a where the kind is 'open' and u is large, and one answer elsewhere; noise is an eighth."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "u": rng.uniform(-1, 1, 1200),
            "kind": rng.choice(["open", "shut"], 1200),
            "nothing": rng.normal(size=1200),
        }
    )
    open_ = (frame["kind"] == "open") & (frame["u"] > 0)
    side = np.where(open_, rng.choice([-1.0, 1.0], 1200), 0.0)
    y = pd.Series(frame["u"] + side + 0.12 * rng.normal(size=1200), name="angle")
    return frame, y, open_.to_numpy(), em.diagnose(frame, y)


def test_two_ways_round_are_several_answers_everywhere(fork):
    assert fork.verdict == "several answers"
    assert fork.p_value < 1e-6
    assert fork.share > 0.95
    assert fork.gain > 5 * fork.gain_error > 0
    assert fork.valley_ratio < 0.01  # straight on is no answer
    assert fork.floor["y0"] == pytest.approx(3, abs=0.3)  # the ways are at -3 and 3
    assert fork.recommended == "mdn"
    assert "several answers" in str(fork)


def test_examples_are_near_in_x_and_apart_in_y(fork):
    assert len(fork.examples) == 20
    first, second = fork.examples.iloc[::2], fork.examples.iloc[1::2]
    assert (first["pair"].to_numpy() == second["pair"].to_numpy()).all()
    assert np.abs(first["x0"].to_numpy() - second["x0"].to_numpy()).max() < 0.05
    assert (np.sign(first["y0"].to_numpy()) == -np.sign(second["y0"].to_numpy())).all()
    row = fork.examples.iloc[0]
    assert fork.x.iloc[int(row["row"])]["x0"] == row["x0"]


def test_it_says_where_and_which_columns_matter(parted):
    _, _, truth, found = parted
    assert found.verdict == "several answers"
    assert found.share == pytest.approx(truth.mean(), abs=0.05)
    assert (found.several == truth).mean() > 0.95
    best = found.where[0]
    assert best.several > 0.9
    assert "u > 0" in best.rule or "u > -0" in best.rule
    assert "kind is open" in best.rule or "kind is not shut" in best.rule
    assert found.columns["nothing"] < 0.1 * min(found.columns["u"], found.columns["kind"])


def test_it_can_be_kept_as_json(parted):
    told = json.loads(json.dumps(parted[3].to_dict()))
    assert told["verdict"] == "several answers"
    assert len(told["examples"]) == 20
    assert told["noise"]["angle"]["spread_ratio"] >= 1


def test_the_same_seed_gives_the_same_answer(parted):
    frame, y, _, found = parted
    again = em.diagnose(frame, y)
    assert again.p_value == found.p_value
    assert again.columns == found.columns
    pd.testing.assert_frame_equal(again.examples, found.examples)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("line", "one answer"),
        ("heteroscedastic", "one answer, uneven noise"),
        ("skewed", "skewed or heavy-tailed, still one answer"),
        ("heavy_tailed", "skewed or heavy-tailed, still one answer"),
    ],
)
def test_one_answer_is_told_by_its_noise(name, verdict):
    x, y = em.problems.get(name).sample(1500, seed=1)
    found = em.diagnose(x, y)
    assert found.verdict == verdict
    assert verdict in VERDICTS
    assert found.p_value > 0.05
    assert found.share == 0
    assert len(found.examples) == 0
    assert found.recommended == {"one answer": "mse", "one answer, uneven noise": "gaussian"}.get(verdict, "mdn")


def test_the_geyser_has_two_answers_after_a_long_wait():
    table = Geyser().table()
    found = em.diagnose(table[["waiting"]], table["duration"])
    assert found.verdict == "several answers"
    waiting = found.x["waiting"].to_numpy()
    assert found.several[(waiting > 70) & (waiting < 88)].mean() > 0.9  # after 90 minutes a long eruption is rare
    assert found.several[waiting < 60].mean() < 0.2


def test_rounding_is_no_choice():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, (800, 1))
    found = em.diagnose(x, np.round(x[:, 0] + rng.normal(size=800)))
    assert found.verdict in ("one answer", "not enough data")
    assert "rounded to 1" in found.remarks[0]


@pytest.mark.parametrize(
    "as_user",
    [
        lambda x, y: (pd.DataFrame(x), y),  # columns are numbers
        lambda x, y: (torch.tensor(x), torch.tensor(y)),
        lambda x, y: (polars.DataFrame({"a": x[:, 0], "b": np.where(x[:, 1] > 0, "u", "v")}), polars.Series("z", y)),
        lambda x, y: (pd.DataFrame({"c": pd.Categorical(np.where(x[:, 0] > 0, "u", "v"))}), np.stack([y, y], axis=1)),
    ],
)
def test_tables_of_every_kind_are_taken(as_user):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.choice([-3.0, 3.0], 60) + 0.2 * rng.normal(size=60)
    found = em.diagnose(*as_user(x, y))
    assert found.verdict == "several answers"
    assert len(found.examples) == 20
    json.dumps(found.to_dict())


def test_few_rows_of_one_answer_are_not_enough():
    x, y = em.problems.get("line").sample(100, seed=0)
    assert em.diagnose(x, y).verdict == "not enough data"


def test_more_rows_than_are_looked_at_are_said(recwarn):
    x, y = em.problems.get("fork").sample(5000, seed=0)
    shares: list[float] = []
    found = em.diagnose(x, y, max_rows=300, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 2
    assert 0 < shares[0] < shares[-1] < 1
    assert (found.rows, found.rows_used) == (5000, 300)
    assert "300 of 5,000 rows" in found.remarks[0]
    assert found.verdict == "several answers"
    assert not recwarn.list


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.random.default_rng(0).normal(size=(10, 1)), np.arange(10.0), "10 rows"),
        (np.random.default_rng(0).normal(size=(100, 1)), np.ones(100), "nothing to predict"),
        (np.random.default_rng(0).normal(size=(100, 1)), np.random.default_rng(1).normal(size=(100, 17)), "1 to 16"),
        (np.random.default_rng(0).normal(size=(100, 4, 3)), np.arange(100.0), "diagnose looks at tables"),
        (np.random.default_rng(0).normal(size=(100, 1)), np.r_[np.nan, np.arange(99.0)], "NaN"),
        (np.random.default_rng(0).normal(size=(100, 1)), np.arange(99.0), "equal length"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(x, y, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            em.diagnose(x, y)


def test_settings_are_checked():
    x, y = em.problems.get("fork").sample(50, seed=0)
    with pytest.raises(SettingError, match="max_rows"):
        em.diagnose(x, y, max_rows=3)
    with pytest.raises(SettingError, match="random_state"):
        em.diagnose(x, y, random_state=-1)


def test_what_a_group_has_in_common_is_no_second_answer():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)  # each stays at one place and does one thing, which differ by chance
    x = rng.uniform(-1, 1, 40)[groups] + 0.02 * rng.normal(size=400)
    y = rng.normal(size=40)[groups] + 0.1 * rng.normal(size=400)
    together = em.diagnose(x[:, None], y, groups=groups)
    assert together.verdict == "not enough data"  # where the 400 had stood for themselves: p < 1e-16
    assert together.p_value > 0.05
    assert "of 40 groups" in str(together)


def test_groups_have_to_be_told_for_each_row():
    x = np.arange(60.0)[:, None]
    with pytest.raises(DataError, match=r"60 rows, but groups has shape \(59,\)"):
        em.diagnose(x, x[:, 0], groups=np.arange(59))
    with pytest.raises(DataError, match="19 groups: diagnose asks for 20"):
        em.diagnose(x, x[:, 0], groups=np.arange(60) % 19)
