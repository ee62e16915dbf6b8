"""Two processes under `torchrun` train as one process does with the same global batch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from everymode.cli import main
from everymode.errors import SettingError
from everymode.families import FlowMatching
from everymode.spaces import VectorSpace
from everymode.training import Processes, TrainingSettings, read_tensors, train

STEPS = 120


def run(*argv: object) -> tuple[int, str, str]:
    """Two processes: exit code, stdout, stderr. torchrun ends with `-m module ...`, as python does."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    done = subprocess.run(
        [sys.executable, *map(str, launcher), "-m", "everymode", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout, done.stderr


def run_here(*argv: object) -> tuple[int, str, str]:
    """One process, this one."""
    stdout, code = io.StringIO(), 0
    with contextlib.redirect_stdout(stdout), mock.patch.object(sys, "argv", ["everymode", *map(str, argv)]):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, stdout.getvalue(), ""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200)
    y = 3 * x + 0.1 * rng.normal(size=200)
    path = tmp_path_factory.mktemp("table") / "table.csv"
    pd.DataFrame({"x": x, "kind": rng.choice(["a", "b"], 200), "y": y}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory) -> dict[int, tuple[Path, tuple[int, str, str]]]:
    """The same run by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for processes in (1, 2):
        out = folder / f"of{processes}"
        size = ("--steps", STEPS, "--width", 16, "--depth", 1, "--batch-size", 32, "--learning-rate", 0.01)
        argv = ("fit", table, "--target", "y", "--out", out, "--json", "--device", "cpu", *size)
        found[processes] = out, (run_here if processes == 1 else run)(*argv)
    return found


def test_both_end_well_and_speak_once(runs):
    for out, (code, stdout, stderr) in runs.values():
        assert code == 0, stderr
        summary = json.loads(stdout)  # one document, of the main process alone
        assert summary["run"] == str(out)
        assert summary["steps"] == STEPS
        assert summary["stopped"] == "completed"


def test_two_processes_have_the_losses_of_one(runs):
    histories = [
        read_tensors(out / "model.safetensors", kind="model")[1]["fitted"]["history_"] for out, _ in runs.values()
    ]
    one, two = (pd.DataFrame(history) for history in histories)
    assert len(one) == STEPS / 10
    assert one["step"].tolist() == two["step"].tolist()
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    assert one["loss"].iloc[0] > 1.5 * one["loss"].iloc[-1]  # they learn, and do not merely agree
    held = one["held_out_loss"].notna()
    assert held.any()
    assert two["held_out_loss"].notna().tolist() == held.tolist()
    np.testing.assert_allclose(two["held_out_loss"][held].astype(float), one["held_out_loss"][held].astype(float), 1e-4)


def test_two_processes_have_the_weights_of_one(runs):
    one, two = (read_tensors(out / "model.safetensors", kind="model")[0] for out, _ in runs.values())
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(Processes, "here", classmethod(lambda cls, device: cls(0, 2)))
    one = VectorSpace.fit(np.arange(4.0)[:, None])
    family = FlowMatching().build(one, one, width=16, depth=1)
    run = train(family, torch.ones(4, 1), torch.ones(4, 1), settings=TrainingSettings(batch_size=33))
    with pytest.raises(SettingError, match=r"^batch_size=33 does not divide over 2 processes\.$"):
        next(run)
