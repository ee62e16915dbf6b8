"""The curve over steps: what it counts, in how many evaluations, and what it leaves as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest

import everymode as em
from everymode import plots
from everymode.curve import settings_for, steps_curve, with_settings
from everymode.errors import SettingError
from everymode.families import get_family


@pytest.fixture(scope="module")
def fork():
    """The problem, some x, and a small flow of it."""
    problem = em.problems.get("fork")
    x, y = problem.sample(1000, seed=0)
    return problem, x, em.OneToManyRegressor(steps=300, width=32, batch_size=256, random_state=0).fit(x, y)


@pytest.mark.parametrize("name", ["flow_matching", "diffusion", "gm_flow", "mean_flow", "consistency"])
def test_the_settings_of_an_nfe_cost_it(name):
    family = get_family(name)
    for method in family.methods or (name,):
        for nfe in (1, 2, 4, 12, 100):
            settings = settings_for(family, method, nfe)
            if settings is not None:
                assert type(family)(**{**family.get_params(), **settings}).nfe == nfe
            else:
                assert nfe % 4 or method not in ("euler", "ddim", "midpoint", "rk4", "mixture")


def test_settings_are_as_before_afterwards(fork):
    family = fork[2].family_
    with with_settings(family, steps=3, solver="euler"):
        assert family.nfe == 3
    assert (family.steps, family.solver) == (16, "midpoint")


def test_steps_buy_valid_answers(fork):
    problem, _, model = fork
    before = model.sample(np.zeros((1, 1)), 5, random_state=1)
    found = steps_curve(model, problem, nfe=(1, 2, 32), methods=("euler", "midpoint"), rows=20, draws=200)
    points = {(point.method, point.nfe): point for point in found.points}
    assert set(points) == {("euler", 1), ("euler", 2), ("euler", 32), ("midpoint", 2), ("midpoint", 32)}
    assert points["euler", 1].valid_share < 0.05  # the average again
    assert points["euler", 1].modes_found == 0
    assert points["midpoint", 32].valid_share > 0.9
    assert points["midpoint", 32].modes_found == points["midpoint", 32].modes_total == 2
    assert points["midpoint", 32].sliced_wasserstein < 0.5 * points["euler", 1].sliced_wasserstein
    assert found.best(32).method in ("euler", "midpoint")
    assert found.valid_floor > 0.99
    assert json.loads(json.dumps(found.to_dict()))["points"][0]["nfe"] == 1
    assert "NFE 32" in str(found)
    assert np.array_equal(model.sample(np.zeros((1, 1)), 5, random_state=1), before)


def test_without_a_problem_the_finest_draws_are_the_reference(fork):
    _, x, model = fork
    found = steps_curve(model, x, nfe=(1, 32), methods=("midpoint", "euler"), rows=16, draws=300)
    last = found.points[-1]
    assert last.valid_share is None
    assert found.valid_floor is None
    assert last.sliced_wasserstein < 1.3 * found.floor
    assert found.points[1].sliced_wasserstein > 3 * found.floor  # euler at 1
    student = em.distill(model, x, "mean_flow", rows=1000, steps=20)
    taught = steps_curve(student, x, nfe=(1,), rows=16, draws=100, reference=model)
    assert taught.reference == "draws of flow_matching"


def test_the_figure_shows_every_method(fork, tmp_path):
    problem, x, model = fork
    for asked in (problem, x):
        found = steps_curve(model, asked, nfe=(1, 4), methods=("euler", "unipc"), rows=8, draws=50)
        drawn = plots.draw("steps", found)
        assert len(drawn.axes) == (2 if asked is problem else 1)
        assert [text.get_text() for text in drawn.axes[-1].get_legend().get_texts()] == ["euler", "unipc"]
        assert plots.save(drawn, tmp_path, "steps")[0].stat().st_size > 10_000


def test_bad_input_is_told(fork):
    problem, _, model = fork
    with pytest.raises(SettingError, match="nfe"):
        steps_curve(model, problem, nfe=(0,))
    with pytest.raises(SettingError, match="euler"):
        steps_curve(model, problem, methods=("eulr",))
    x, y = problem.sample(100, seed=0)
    mdn = em.OneToManyRegressor("mdn", steps=5, random_state=0).fit(x, y)
    with pytest.raises(SettingError, match="nfe=\\(1,\\)"):
        steps_curve(mdn, problem, nfe=(4,))
