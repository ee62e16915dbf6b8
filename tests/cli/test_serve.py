"""`everymode policy serve`, as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from everymode.policies import Demonstrations, Policy, RemotePolicy, load_policy


@pytest.fixture
def run(tmp_path):
    states = np.random.default_rng(0).normal(size=(40, 3))
    demonstrations = Demonstrations({"state": states}, states[:, :2], np.asarray([20, 40]), rate=20.0)
    policy = Policy("flow_matching", prediction_horizon=4, execution_horizon=2, width=8, steps=5, random_state=0)
    policy.fit(demonstrations).save(tmp_path / "policy.safetensors")
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_policy_answers_as_the_one_at_hand_until_it_is_told_to_end(run, number):
    argv = [sys.executable, "-m", "everymode", "policy", "serve", str(run), "--port", "0", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = re.search(r"ws://\S+:\d+", process.stderr.readline()).group()
        with RemotePolicy(address) as robot:
            assert robot.policy["rate"] == 20.0
            assert list(robot.policy["observations"]) == ["state"]
            seen = np.random.default_rng(1).normal(size=(3, 2, 3))
            np.testing.assert_allclose(robot.act_chunk(seen), load_policy(run).act_chunk(seen, random_state=0))
            assert robot.act(seen[0, 0]).shape == (2,)
        process.send_signal(number)
        try:
            said, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert json.loads(said) == {"address": address, "answered": 3, "refused": 0}


def test_a_folder_without_a_policy_is_one_sentence(tmp_path):
    argv = [sys.executable, "-m", "everymode", "policy", "serve", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "policy.safetensors" in done.stderr
    assert done.stderr.count("\n") == 1
