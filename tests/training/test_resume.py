"""An interrupted and resumed run equals an uninterrupted one: same weights, bit for bit, wherever it was cut.

A server process imports everymode once; each run is a fork of it that calls the command line, so that a run can be
killed at any moment without paying for the imports again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from everymode.families import Family, Part
from everymode.training import STATE_FILE, TrainingSettings, read_tensors, train

STEPS = 600
CHECKPOINT_EVERY = 20  # a multiple of the steps between two reports: the reports are those of a run that writes fewer
KILLS = 20
MODEL = "model.safetensors"

SERVER = f"""
import json, os, signal, sys, traceback
import everymode.cli.demo, everymode.cli.fit, everymode.cli.fitting, everymode.cli.resume, everymode.runs
from everymode.cli import main
from everymode.estimator import OneToManyRegressor
from everymode.training import TrainingSettings
import torch
real = TrainingSettings.for_rows
TrainingSettings.for_rows = lambda rows, **given: real(rows, checkpoint_every={CHECKPOINT_EVERY}, **given)
def kill(): os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if not pid:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0); os.dup2(log, 1); os.dup2(log, 2)
        code = 99
        try:
            sys.argv = ["everymode", *request["argv"]]
            exec(request["before"])
            main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Server:
    """Runs the command line in forks of one warm process."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, *argv: object, before: str = "") -> int:
        assert self.process.stdin is not None
        request = {"argv": [str(a) for a in argv], "log": str(self.log), "before": before}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self._read())

    def wait(self) -> int:
        return int(self._read())

    def run(self, *argv: object, before: str = "") -> int:
        self.start(*argv, before=before)
        return self.wait()

    def said(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 150)
    frame = pd.DataFrame({"x": x, "y": np.where(rng.random(150) < 0.5, -1, 1) * (1 + x) + 0.1 * rng.normal(size=150)})
    path = tmp_path_factory.mktemp("table") / "table.csv"
    frame.to_csv(path, index=False)
    return path


def fit(table: Path, out: Path, *more: object) -> list[object]:
    size = ["--steps", STEPS, "--width", 16, "--depth", 1, "--batch-size", 32]
    return ["fit", table, "--target", "y", "--out", out, "--device", "cpu", *size, *more]


def resume(out: Path, *more: object) -> list[object]:
    return ["resume", out, "--device", "cpu", *more]


@pytest.fixture(scope="module")
def whole(server, table, tmp_path_factory) -> tuple[Path, float]:
    """An uninterrupted run, and the seconds that it took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    started = time.perf_counter()
    assert server.run(*fit(table, out)) == 0, server.said()
    return out, time.perf_counter() - started


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.perf_counter() + seconds
    while not path.exists():
        assert time.perf_counter() < end, f"{path} did not appear"
        time.sleep(0.002)


def assert_same_model(one: Path, other: Path) -> None:
    expected, expected_header = read_tensors(one / MODEL, kind="model")
    found, header = read_tensors(other / MODEL, kind="model")
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not different
    for name in ("n_steps_", "stopped_", "precision_", "sample_seed_"):
        assert header["fitted"][name] == expected_header["fitted"][name], name
    assert header["fitted"]["history_"][-1] == expected_header["fitted"]["history_"][-1]


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_twenty_kills_change_nothing(server, table, whole, tmp_path):
    """SIGKILL at random moments, over chains of fit, resume, resume, ...; the end of each chain equals `whole`."""
    expected, seconds = whole
    rng = random.Random(20)
    # a chain is cut early (before its first checkpoint) and then a few times on its way
    moments = [rng.uniform(0, 0.03 if k % 5 == 0 else 0.45) * seconds for k in range(KILLS * 3)]
    landed, before_first_checkpoint, chain = 0, 0, 0
    while landed < KILLS:
        out = tmp_path / f"chain{chain}"
        chain += 1
        command, finished = fit(table, out), False
        for _ in range(5):
            pid = server.start(*command)
            wait_for(out / "run.json")
            time.sleep(moments.pop(0))
            checkpointed = (out / STATE_FILE).exists()
            os.kill(pid, signal.SIGKILL)
            code = server.wait()
            assert code in (-signal.SIGKILL, 0), server.said()
            command = resume(out)
            if code == 0:  # it was over before the signal came
                finished = True
                break
            landed += 1
            before_first_checkpoint += not checkpointed
            if landed == KILLS:
                break
        if not finished:
            assert server.run(*command) == 0, server.said()
        assert_same_model(expected, out)
    assert before_first_checkpoint >= 2
    assert landed - before_first_checkpoint >= 10


def test_kill_of_the_real_command(server, table, whole, tmp_path):
    out = tmp_path / "run"
    command = [Path(sys.executable).with_name("everymode"), *fit(table, out)]
    process = subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    wait_for(out / STATE_FILE)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / MODEL).exists()
    assert server.run(*resume(out)) == 0, server.said()
    assert_same_model(whole[0], out)


@pytest.mark.parametrize("write", [1, 5])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_kill_while_a_checkpoint_is_written(server, table, whole, tmp_path, call, write):
    """Just before the file is flushed to disk, and just before it takes its name."""
    out = tmp_path / "run"
    before = f"""
import everymode.training.run as loop, everymode.files as files
count = 0
save, true = loop.save_state, files.os.{call}
def deadly(*a, **k):
    kill()
def counted(*a, **k):
    global count
    count += 1
    if count == {write}: files.os.{call} = deadly
    return save(*a, **k)
loop.save_state = counted
"""
    assert server.run(*fit(table, out), before=f"globals()['count'] = 0\n{before}") == -signal.SIGKILL, server.said()
    assert (out / STATE_FILE).exists() == (write > 1)
    assert server.run(*resume(out)) == 0, server.said()
    assert_same_model(whole[0], out)


@pytest.mark.parametrize("ending", ["completed", "early stopping", "time limit"])
def test_kill_after_the_last_checkpoint_before_the_model(server, table, tmp_path, ending):
    """The training is over and its state is written, but the model is not: `resume` writes it, and trains no more."""
    more = {"completed": [], "early stopping": [], "time limit": ["--max-seconds", 0.4]}[ending]
    impatient = "TrainingSettings.for_rows = lambda r, **g: real(r, **{**g, 'patience': 1, 'validate_every': 20})\n"
    setting = impatient if ending == "early stopping" else ""
    out = tmp_path / "cut"
    deadly = setting + (
        "save = OneToManyRegressor.save\n"
        "OneToManyRegressor.save = lambda self, path: (save(self, str(path) + '.kept.safetensors'), kill())"
    )
    assert server.run(*fit(table, out, *more), before=deadly) == -signal.SIGKILL, server.said()
    assert not (out / MODEL).exists()
    (out / f"{MODEL}.kept.safetensors").rename(tmp_path / MODEL)
    assert read_tensors(tmp_path / MODEL, kind="model")[1]["fitted"]["stopped_"] == ending
    assert server.run(*resume(out), before=setting) == 0, server.said()
    assert_same_model(tmp_path, out)


def test_history_of_a_resumed_run_is_whole(server, table, whole, tmp_path):
    out = tmp_path / "run"
    pid = server.start(*fit(table, out))
    wait_for(out / STATE_FILE)
    os.kill(pid, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    assert server.run(*resume(out)) == 0, server.said()
    histories = [read_tensors(folder / MODEL, kind="model")[1]["fitted"]["history_"] for folder in (whole[0], out)]
    assert [row["step"] for row in histories[1]] == [row["step"] for row in histories[0]]
    assert histories[1] == histories[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_resume_goes_on(server, table, whole, tmp_path, number):
    out = tmp_path / "run"
    pid = server.start(*fit(table, out, "--json"))
    wait_for(out / STATE_FILE)
    time.sleep(0.05)
    os.kill(pid, number)
    assert server.wait() == 130
    said = server.said()
    assert '"stopped": "interrupted"' in said
    assert f"everymode resume {out}" in said.replace("\n", "")
    steps = read_tensors(out / STATE_FILE, kind="training")[1]["counters"]["step"]
    assert 0 < steps < STEPS
    assert f'"steps": {steps},' in said  # the checkpoint is of the step at which it stopped
    assert not (out / MODEL).exists()
    assert server.run(*resume(out)) == 0, server.said()
    assert_same_model(whole[0], out)


def test_resume_of_a_finished_run_is_refused(server, whole):
    content = (whole[0] / MODEL).read_bytes()
    assert server.run(*resume(whole[0])) == 2
    assert server.said().count("\n") == 1
    assert "is finished; there is nothing to resume" in server.said()
    assert (whole[0] / MODEL).read_bytes() == content


@pytest.mark.parametrize("damage", ["a flipped byte", "half of it", "a text", "a model"])
def test_a_damaged_training_state_is_refused(server, table, whole, tmp_path, damage):
    out = tmp_path / "run"
    before = "import everymode.cli.fitting as f; f._Stop.__call__ = lambda self: True"
    assert server.run(*fit(table, out), before=before) == 130
    state = out / STATE_FILE
    content = bytearray(state.read_bytes())
    content[-100] ^= 1
    damaged = {
        "a flipped byte": bytes(content),
        "half of it": bytes(content[: len(content) // 2]),
        "a text": b"not a checkpoint",
        "a model": (whole[0] / MODEL).read_bytes(),
    }[damage]
    state.write_bytes(damaged)
    assert server.run(*resume(out)) == 2
    said = server.said()
    assert said.startswith(f"everymode: {state} ")
    assert said.count("\n") == 1
    assert "'model' checkpoint" in said if damage == "a model" else "damaged" in said
    assert state.read_bytes() == damaged
    assert not (out / MODEL).exists()


def test_max_seconds_counts_all_sittings(server, table, tmp_path):
    out = tmp_path / "run"
    pid = server.start(*fit(table, out, "--max-seconds", 1.5, "--steps", 1_000_000))
    wait_for(out / STATE_FILE)
    time.sleep(0.7)
    os.kill(pid, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    before = read_tensors(out / STATE_FILE, kind="training")[1]["counters"]["seconds"]
    assert before > 0.3
    assert server.run(*resume(out)) == 0, server.said()
    fitted = read_tensors(out / MODEL, kind="model")[1]["fitted"]
    assert fitted["stopped_"] == "time limit"
    assert 1.5 <= fitted["fit_seconds_"] < 2.5


# The loop itself, in this process ------------------------------------------------------------------------------------


class Number(Family):
    """One number, pulled to where the rows are."""

    name = "number"

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))

    def loss(self, y, x, *, generator=None):
        return (self.number - y[:, 0]).square()


class TwoStages(Family):
    """A number pulled to where the rows are; then another one, pulled to what the first has become."""

    name = "two_stages"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ParameterList([torch.zeros(1)]), nn.ParameterList([torch.zeros(1)])

    def parts(self):
        def first(y, x, *, generator=None):
            return (self.first[0] - y[:, 0]).square()

        def second(y, x, *, generator=None):
            return (self.second[0] - self.first[0].detach()).square() + 0 * y[:, 0]

        return [Part("first", self.first, first), Part("second", self.second, second, stage=1)]


class Killed(Exception):
    """Raised where a signal would have ended the process."""


def train_in_sittings(kind, folder, cuts=(), *, kill=False, checkpoint_every=1):
    """Train towards 1, with held-out rows at 0.5, cut at each of the steps `cuts`; return (family, last report)."""
    settings = TrainingSettings(
        steps=60,
        batch_size=4,
        learning_rate=0.03,
        ema=0.5,
        validate_every=20,
        patience=None,
        checkpoint_every=checkpoint_every,
    )
    y, x = torch.ones(8, 1), torch.zeros(8, 1)
    held_out = (torch.full((4, 1), 0.5), torch.zeros(4, 1))
    for cut in (*cuts, None):
        state = folder / STATE_FILE
        done = read_tensors(state, kind="training")[1]["counters"]["step"] if state.exists() else 0

        def interrupted(cut=cut):
            nonlocal done
            done += 1
            if cut is None or done < cut:
                return False
            if kill:
                raise Killed
            return True

        family, reports = kind(), []
        run = train(
            family, y, x, settings=settings, held_out=held_out, folder=folder, resume=True, interrupted=interrupted
        )
        with contextlib.suppress(Killed):
            reports += run
    return family, reports[-1]


@pytest.mark.parametrize("kill", [False, True], ids=["interrupted", "killed"])
@pytest.mark.parametrize("cuts", [(1,), (17,), (20,), (30,), (31,), (60,), (3, 4, 23, 24, 50)])
@pytest.mark.parametrize("kind", [Number, TwoStages])
def test_cut_at_any_step(tmp_path, kind, cuts, kill):
    """The held-out loss falls, then rises: an interruption on the way must not change which weights are the best."""
    every = 1 if kill else 20
    expected, last = train_in_sittings(kind, tmp_path / "whole", checkpoint_every=every)
    found, found_last = train_in_sittings(kind, tmp_path / "cut", cuts, kill=kill, checkpoint_every=every)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert replace(found_last, seconds=0.0) == replace(last, seconds=0.0)
    histories = [
        read_tensors(tmp_path / folder / STATE_FILE, kind="training")[1]["counters"]["history"]
        for folder in ("whole", "cut")
    ]
    assert histories[1] == histories[0]
