"""`everymode policy data`: what it says, where, and what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from everymode.cli import main
from everymode.diagnosis import verdict

EPISODES, LENGTH = 24, 9


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(verdict.LEARNERS, "one for each")  # the networks, which take most of the time

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["everymode", "policy", "data", *map(str, argv)])
        code = 0
        capfd.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def written(tmp_path):
    def write(episodes=EPISODES, **changes):
        rng = np.random.default_rng(0)
        steps = episodes * LENGTH
        members = {"state": rng.normal(size=(steps, 2)), "action": rng.normal(size=(steps, 2))}
        ends = LENGTH * np.arange(1, episodes + 1)
        np.savez(tmp_path / "some.npz", **{**members, "episode_ends": ends, **changes})

    return write


def test_it_tells_what_there_is_and_writes_a_run(call, written):
    written()
    code, out, err = call("some.npz", "--states", EPISODES, "--out", "run")
    assert (code, err) == (0, "")
    assert "some.npz: 24 episodes, 216 steps" in out
    assert "24 episode(s) are shorter than the 16 actions" in out
    assert "24 states of 24 episodes" in out
    assert sorted(path.name for path in Path("run").iterdir()) == ["data.json", "figures", "report.html"]
    told = json.loads(Path("run/data.json").read_text())
    assert told["disagreement"]["states"] == 24
    for name in ("demonstrations.png", "demonstrations.svg", "disagreement.png"):
        assert (Path("run/figures") / name).stat().st_size > 5000
    assert "Do they disagree?" in Path("run/report.html").read_text()


def test_json_is_all_of_stdout_and_few_episodes_are_a_remark(call, written):
    written(5)
    code, out, err = call("some.npz", "--json", "--keys", "state")
    assert code == 0
    told = json.loads(out)
    assert told["episodes"] == 5
    assert told["disagreement"] is None
    assert "not asked whether the demonstrators disagree: some.npz has 5 episodes" in err
    assert (Path("runs/policy-data/latest") / "data.json").is_file()
    assert call("some.npz", "--states", 0, "--quiet")[2] == ""


@pytest.mark.parametrize(
    ("argv", "changes", "said"),
    [
        (("nowhere.npz",), {}, "nowhere.npz: there is no such file or folder."),
        (("some.npz", "--keys", "stat"), {}, "Did you mean 'state'?"),
        (("some.npz", "--format", "zarr"), {}, "Unknown format 'zarr'."),
        (("some.npz",), {"action": np.full((216, 2), np.nan)}, "action holds NaN or infinite values in 216 step(s)"),
        (("some.npz", "--horizon", 0), {}, "prediction_horizon=0"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_leaves_nothing(call, written, argv, changes, said):
    written(**changes)
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["some.npz"]
