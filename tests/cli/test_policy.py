"""The verbs of policies: from scripted demonstrations to numbers, interrupted and resumed."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from everymode.cli import main
from everymode.training import read_tensors

TINY = ("--set", "width=16", "--set", "depth=1", "--set", "batch_size=32")


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everymode", "policy", *map(str, argv)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capfd.readouterr())

    return run


def trained(call, *more: object) -> Path:
    code, out, err = call(
        "train",
        "--env",
        "Obstacle",
        "--recipe",
        "mse",
        "--demonstrations",
        6,
        "--set",
        "steps=40",
        *TINY,
        "--json",
        *more,
    )
    assert code == 0, err
    return Path(json.loads(out)["run"])


def test_a_policy_is_trained_and_judged_with_no_file(call):
    run = trained(call)
    assert {path.name for path in run.iterdir()} == {
        "policy.json",
        "policy.safetensors",
        "summary.json",
        "training.safetensors",
    }
    code, out, err = call("eval", run, "--episodes", 3, "--video", "--json")
    assert code == 0, err
    found = json.loads(out)
    folder = run / "evaluation"
    assert {path.name for path in folder.iterdir()} == {"episodes.gif", "episodes.npz", "evaluation.json", "figures"}
    kept = json.loads((folder / "evaluation.json").read_text())
    assert {**kept, "folder": str(folder)} == found
    assert (kept["settings"]["first_seed"], kept["score"]["n"]) == (200_000, 3)
    code, out, err = call("eval", run, "--episodes", 2, "--seed-block", "choose", "--env-set", "difficulty=0")
    assert code == 0, err
    assert "seed 100000" in out
    assert json.loads((run / "evaluation-2" / "evaluation.json").read_text())["settings"]["settings"] == {
        "difficulty": 0
    }


def test_what_cannot_be_trained_or_judged_is_one_sentence_and_leaves_no_folder(call):
    for argv, said in (
        (("train",), "--env"),
        (("train", "--env", "Obstacles"), "Obstacle"),
        (("train", "--env", "Obstacle", "--recipe", "flow_polici"), "flow_policy"),
        (("train", "--env", "Obstacle", "--recipe", "mse", "--set", "widht=3"), "widht"),
        (("train", "--env", "Obstacle", "--recipe", "mse", "--set", "width=wide"), "width"),
        (("train", "--env", "Obstacle", "--minutes", 0), "minutes"),
        (("eval", "nowhere"), "policy train"),
    ):
        code, out, err = call(*argv)
        assert (code, out) == (2, ""), argv
        assert said in err, argv
        assert err.count("\n") == 1, err
        assert not Path("runs").exists(), argv


def test_an_interrupted_run_goes_on_to_the_same_weights(call, monkeypatch):
    whole = trained(call, "--set", "steps=120", "--out", "whole")

    @contextmanager
    def soon():
        asked = iter(range(50))
        yield lambda: next(asked, None) is None

    with monkeypatch.context() as stopped:
        stopped.setattr("everymode.cli.policy._running.stoppable", soon)
        argv = ("--env", "Obstacle", "--recipe", "mse", "--demonstrations", 6, "--set", "steps=120", *TINY)
        code, _, err = call("train", *argv, "--out", "cut")
    assert code == 130
    assert "everymode resume cut" in err
    assert not Path("cut/policy.safetensors").exists()
    code, _, err = call("train", "--resume", "cut")
    assert code == 0, err
    tensors = [read_tensors(run / "policy.safetensors", kind="policy")[0] for run in (whole, Path("cut"))]
    assert all((tensors[0][name] == tensors[1][name]).all() for name in tensors[0])
    monkeypatch.setattr(sys, "argv", ["everymode", "resume", "cut"])
    with pytest.raises(SystemExit, match="2"):
        main()


def test_recipes_are_compared_and_a_crash_is_told(call):
    argv = ("compare", "--env", "Obstacle", "--recipes", "mse:width=16,mse:width=16:prediction_horizon=4")
    more = ("--budget", "20", "--episodes", 2, "--demonstrations", 4, "--out", "found", "--json")
    code, out, err = call(*argv, *more)
    assert code == 1
    assert "execution_horizon" in err
    found = json.loads(Path("found/comparison.json").read_text())
    assert json.loads(out) == found
    assert list(found["recipes"]) == ["mse:width=16"]
    assert {path.name for path in Path("found/figures").iterdir()} == {
        f"{kind}.{suffix}" for kind in ("policies", "ways") for suffix in ("png", "svg")
    }
    kept = Path("found/recipes/mse-width-16/evaluation.json").stat().st_mtime_ns
    code, _, err = call(*argv[:-1], "mse:width=16", *more[:6], "--resume", "found", "--json")
    assert code == 0, err
    assert Path("found/recipes/mse-width-16/evaluation.json").stat().st_mtime_ns == kept
