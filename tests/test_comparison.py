"""Comparing families on equal terms: means, intervals, budgets, sizes, crashes and going on."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

import everymode as em
from everymode.comparison import Budget, Comparison, ModeTable, ProblemTask, Row, Sweep, TableTask, label_of
from everymode.comparison.budget import matched_size, reference_parameters
from everymode.errors import CheckpointError, SettingError
from everymode.families import MSE, Abilities, get_family, names
from everymode.metrics import Measure

TINY = {"width": 8, "depth": 1}


class Crashing(MSE):
    """Cannot be trained."""

    name = "crashing"
    abilities = Abilities(several=False, modes=False)

    def loss(self, y, x, *, generator=None):
        raise RuntimeError("no such luck\nand more")


class Dying(MSE):
    """Takes its process with it."""

    name = "dying"
    abilities = Abilities(several=False, modes=False)

    def loss(self, y, x, *, generator=None):
        os.kill(os.getpid(), signal.SIGKILL)


def fork(**settings):
    return ProblemTask("fork", **{"rows": 100, "judged": 10, "draws": 20, **settings})


# Rows and tables -----------------------------------------------------------------------------------------------------


def test_the_mean_over_seeds_holds_the_chance_between_them():
    """Of seeds that agree, the interval is that of a mean of as many; of seeds that differ, it is theirs."""

    def row(value, half):
        return Row("a", valid_share=Measure(value, value - half, value + half, 0.9, 10), modes_found=2, modes_total=3)

    agreeing = Row.mean([row(0.5, 0.1)] * 4).valid_share
    assert (agreeing.value, agreeing.low, agreeing.high) == pytest.approx((0.5, 0.45, 0.55))
    differing = Row.mean([row(value, 0.001) for value in (0.2, 0.4, 0.6, 0.8)]).valid_share
    half = 1.96 * np.std([0.2, 0.4, 0.6, 0.8], ddof=1) / 2
    assert (differing.value, differing.low, differing.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert differing.floor == pytest.approx(0.9)
    found = [Row("a", modes_found=n, modes_total=3) for n in (2, 3)]
    assert Row.mean(found).modes_found == 2.5
    assert Row.mean(found).modes_total == 3


def test_rows_and_tables_survive_json():
    row = Row("a", energy_score=Measure(1.0, 0.5, None, 0.2, 7), c2st=Measure(0.5, None, None, None, 3), nfe=4)
    again = Row.from_dict(json.loads(json.dumps(row.to_dict())))
    assert again.to_dict() == row.to_dict()
    table = ModeTable("t", (row,), "n", Row("truth"), (("b", "why"),))
    assert ModeTable.from_dict(json.loads(json.dumps(table.to_dict()))).to_dict() == table.to_dict()


def test_a_table_shows_what_is_filled_and_the_floor_last():
    row = Row("a", energy_score=Measure(1.0, 0.5, 2.0, 0.25, 7))
    (shown,) = ModeTable("t", (row,)).shown()
    assert shown == {"family": "a", "energy score": "1.000 (floor 0.250)"}
    first, last, failed = ModeTable("t", (row,), floor=row, failures=(("b", "why"),)).shown()
    assert first["energy score"] == "1.000"
    assert last["family"] == "truth"
    assert failed == {"family": "b: failed", "energy score": "-"}


# Equal terms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60s", Budget(seconds=60)),
        ("1.5m", Budget(seconds=90)),
        ("2h", Budget(seconds=7200)),
        ("500", Budget(steps=500)),
        ("500 steps", Budget(steps=500)),
    ],
)
def test_budgets_are_read(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "s", "-3s", "0", "1.5", "soon", "10 days"])
def test_other_budgets_are_refused(text):
    with pytest.raises(SettingError, match="budget"):
        Budget.parse(text)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("problem", ["imbalanced", "inverse_kinematics"])
def test_sizes_are_equal_within_ten_percent(name, problem):
    X, Y = em.problems.get(problem).sample(50, seed=0)
    parameters = reference_parameters(X, Y, 64, None)
    size = matched_size(get_family(name), X, Y, parameters, None)
    if get_family(name).abilities.gradient:
        assert size.parameters == pytest.approx(parameters, rel=0.1)
    else:
        assert size.width is None


def test_a_budget_of_steps_is_spent_and_one_of_seconds_kept():
    for result in Sweep([fork()], ["mse", "flow_matching"], budget="30", **TINY).run().results:
        assert (result.steps, result.stopped) == (30, "completed")
    (result,) = Sweep([fork()], ["mse"], budget="0.5s", **TINY).run().results
    assert result.stopped == "time limit"
    assert result.row.seconds == pytest.approx(0.5, abs=0.4)


# Sweeps --------------------------------------------------------------------------------------------------------------


def test_all_families_see_the_same_rows_and_seeds_differ():
    X, Y = np.arange(40.0)[:, None], np.arange(40.0) ** 2
    task = TableTask(X, Y)
    kept = task.known(0)[0]
    assert len(kept) == 32
    assert np.array_equal(kept, task.known(0)[0])
    assert not np.array_equal(kept, task.known(1)[0])
    assert not np.array_equal(fork().known(0)[0], fork().known(1)[0])


def test_a_crash_is_reported_and_the_rest_goes_on(tmp_path):
    told = []
    sweep = Sweep([fork()], ["mse", Crashing()], seeds=2, budget="5", **TINY)
    found = sweep.run(folder=tmp_path, progress=lambda result, done, total: told.append((result.family, done, total)))
    assert sorted(told) == [("crashing", 2, 4), ("crashing", 4, 4), ("mse", 1, 4), ("mse", 3, 4)]
    assert [row.family for row in found["fork"]] == ["mse"]
    assert found["fork"].failures == (("crashing", "RuntimeError: no such luck"),)
    assert {failure.seed for failure in found.failures} == {0, 1}
    assert "in loss" in found.failures[0].details
    assert "crashing: failed" in str(found)


def test_a_process_that_dies_takes_no_other_cell_with_it(tmp_path):
    sweep = Sweep([fork()], [Dying(), "mse"], seeds=2, budget="5", jobs=2, **TINY)
    found = sweep.run(folder=tmp_path)
    assert [row.family for row in found["fork"]] == ["mse"]
    assert {r.seed for r in found.results if r.row is not None} == {0, 1}
    assert all("process died" in failure.error for failure in found.failures)
    assert len(found.failures) == 2


def test_several_processes_find_what_one_finds(tmp_path):
    tasks = [fork(), ProblemTask("imbalanced", rows=100, judged=10, draws=20)]
    one, two = (Sweep(tasks, ["mse", "flow_matching"], budget="10", jobs=jobs, **TINY).run() for jobs in (1, 2))
    for first, second in zip(one.results, two.results, strict=True):
        assert (first.task, first.family) == (second.task, second.family)
        assert first.row.energy_score.value == pytest.approx(second.row.energy_score.value, rel=1e-4)


def test_only_what_changed_is_run_again(tmp_path):
    def ran(families, **settings):
        times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")}
        Sweep([fork()], families, **{"budget": "5", **TINY, **settings}).run(folder=tmp_path)
        now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")}
        return sorted(path.name for path in now if now[path] != times.get(path))

    assert ran(["mse", Crashing()]) == ["fork--crashing--0.json", "fork--mse--0.json"]
    assert ran(["mse", Crashing()]) == ["fork--crashing--0.json"]  # a crash is tried again
    assert ran(["mse"], budget="6") == ["fork--mse--0.json"]
    (tmp_path / "cells" / "fork--mse--0.json").write_text("{")
    assert ran(["mse"], budget="6") == ["fork--mse--0.json"]  # damaged


def test_a_comparison_is_saved_and_read(tmp_path):
    found = Sweep([fork()], ["mse", em.FlowMatching(steps=2)], budget="5", **TINY).run(folder=tmp_path)
    found.save(tmp_path)
    again = Comparison.load(tmp_path)
    assert again.to_dict() == found.to_dict()
    assert again.samples.keys() == {("fork", name) for name in ("mse", "flow_matching:steps=2", "truth")}
    assert again.samples["fork", "truth"]["valid"].mean() > 0.98
    assert again.samples["fork", "mse"]["valid"].mean() < 0.5
    for kind in em.plots.kinds_for(again):
        em.plots.draw(kind, again)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        Comparison.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no comparison\.json"):
        Comparison.load(tmp_path / "nowhere")


def test_the_floor_is_what_the_truth_scores():
    floor = Sweep([fork(judged=50, draws=100)], ["mse"], budget="2", **TINY).run()["fork"].floor
    assert floor.valid_share.value > 0.99
    assert floor.modes_found == floor.modes_total == 2
    assert floor.c2st.value == pytest.approx(0.5, abs=0.15)
    assert floor.sliced_wasserstein.value == pytest.approx(floor.sliced_wasserstein.floor, rel=0.5)


def test_labels_tell_settings_apart():
    assert label_of(em.FlowMatching()) == "flow_matching"
    assert label_of(em.FlowMatching(path="cosine", steps=4)) == "flow_matching:path=cosine:steps=4"


def test_compare_of_a_table_in_python():
    x, y = em.problems.get("fork").sample(200, seed=0)
    table = em.compare(x, y, ["mse", "flow_matching"], budget="20", seeds=2, draws=20, **TINY)
    assert [row.family for row in table] == ["mse", "flow_matching"]
    assert "Means over 2 seed(s)" in table.note
    with pytest.raises(RuntimeError, match=r"no family could be fitted: crashing: RuntimeError"):
        em.compare(x, y, [Crashing()], budget="20", **TINY)
