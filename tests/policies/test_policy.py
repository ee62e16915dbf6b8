"""A policy from demonstrations to actions: its chunks, its execution, its file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from everymode.errors import CheckpointError, DataError, SettingError
from everymode.policies import Demonstrations, Policy, load_policy

TINY = {"width": 16, "depth": 1, "steps": 30, "batch_size": 32, "random_state": 0}


def walks(episodes=12, length=15) -> Demonstrations:
    """Points that walk to the origin: the action is a tenth of the way."""
    rng = np.random.default_rng(0)
    states = []
    for _ in range(episodes):
        state = rng.normal(size=2)
        for _ in range(length):
            states.append(state)
            state = 0.9 * state
    states = np.asarray(states)
    ends = np.arange(1, episodes + 1) * length
    return Demonstrations({"state": states}, -0.1 * states, ends, rate=10.0)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy("flow_matching", prediction_horizon=6, execution_horizon=3, **TINY).fit(walks())


def test_regression_learns_what_is_done_and_executes_it_by_chunks():
    chosen = Policy("mse", prediction_horizon=4, execution_horizon=4, steps=400, width=32, random_state=0)
    chosen.fit(walks(40))
    state = np.asarray([[0.8, -0.5]])
    chunk = chosen.act_chunk(np.stack([state, state], axis=1) * [[[1 / 0.9], [1.0]]])
    wanted = -0.1 * state * 0.9 ** np.arange(4)[:, None]
    np.testing.assert_allclose(chunk[0], wanted, atol=0.01)
    execution = chosen.start()
    done = np.stack([execution.act(state)[0] for _ in range(4)])
    np.testing.assert_allclose(done[0], wanted[0], atol=0.02)
    assert len(execution.seconds) == 1


def test_an_episode_begins_with_its_first_observation_repeated(policy):
    states = np.random.default_rng(1).normal(size=(5, 2))
    first = policy.start(5, random_state=3).act(states)
    chunks = policy.act_chunk(np.repeat(states[:, None], 2, axis=1), random_state=3)
    np.testing.assert_array_equal(first, chunks[:, 0])


def test_a_robot_does_the_same_whatever_robots_are_beside_it(policy):
    states = np.random.default_rng(2).normal(size=(8, 6, 2))  # (steps, robots, d)
    together = policy.start(6, random_state=0)
    many = np.stack([together.act(now) for now in states])
    fewer = policy.start(2, random_state=0)
    np.testing.assert_allclose(np.stack([fewer.act(now[:2]) for now in states]), many[:, :2], atol=1e-5)


def test_robots_plan_when_their_queue_is_empty_and_a_reset_forgets_one_alone(policy):
    states = np.random.default_rng(2).normal(size=(5, 3, 2))
    execution, undisturbed = policy.start(3, random_state=0), policy.start(3, random_state=0)
    planned = []
    for step, now in enumerate(states):
        if step == 2:
            execution.reset([1], random_state=[7])
        mine, other = execution.act(now), undisturbed.act(now)
        np.testing.assert_allclose(mine[[0, 2]], other[[0, 2]], atol=1e-6)
        planned.append(execution.planned.tolist())
        if step == 2:
            np.testing.assert_allclose(mine[1], policy.start(1, random_state=7).act(now[1:2])[0], atol=1e-6)
    assert planned == [[True] * 3, [False] * 3, [False, True, False], [True, False, True], [False] * 3]


def test_the_history_is_the_last_observations_oldest_first(policy):
    states = np.random.default_rng(4).normal(size=(4, 1, 2))
    execution = policy.start(1, random_state=0)
    execution.act(states[0])
    again = policy.start(1, random_state=0)
    again.act(states[0])
    for now in states[1:3]:
        execution.act(now)
    execution.act(states[3])  # the second plan: it sees states 2 and 3
    generators = policy.generators(1, 0)
    policy.plan({"state": states[[0, 0], 0][None]}, generators)
    chunk = policy.plan({"state": states[[2, 3], 0][None]}, generators)
    np.testing.assert_array_equal(execution.chunks, chunk)


def test_an_observation_may_begin_as_whole_numbers_and_a_label_as_a_short_word():
    rng = np.random.default_rng(0)
    told = Demonstrations(
        {"state": rng.normal(size=(60, 1)), "task": np.repeat(["go", "return"], 30)},
        rng.normal(size=(60, 1)),
        np.asarray([30, 60]),
    )
    chosen = Policy("mse", prediction_horizon=1, execution_horizon=1, **TINY).fit(told)
    execution = chosen.start()
    execution.act({"state": np.asarray([[0]]), "task": ["go"]})
    action = execution.act({"state": np.asarray([[0.5]]), "task": ["return"]})
    seen = {"state": [[[0.0], [0.5]]], "task": [["go", "return"]]}
    np.testing.assert_allclose(action, chosen.act_chunk(seen)[:, 0], atol=1e-6)


def test_act_keeps_the_execution_of_one_robot(policy):
    states = np.random.default_rng(5).normal(size=(4, 2))
    execution = policy.start()
    expected = [execution.act(state[None])[0] for state in states]
    policy._execution = None
    np.testing.assert_array_equal([policy.act(state) for state in states], expected)
    policy.reset()
    assert policy._execution._fresh.all()


def test_a_saved_policy_does_the_same(policy, tmp_path):
    policy.save(tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path)
    seen = np.random.default_rng(6).normal(size=(3, 2, 2))
    np.testing.assert_array_equal(loaded.act_chunk(seen), policy.act_chunk(seen))
    assert loaded.rate_ == 10.0
    assert loaded.network == "mlp"
    assert json.dumps(loaded.history_) == json.dumps(policy.history_)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "policy.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        load_policy(tmp_path / "other.safetensors")


def test_an_interrupted_policy_that_is_resumed_is_the_uninterrupted_one(tmp_path):
    whole = Policy("flow_matching", **TINY).fit(walks())
    asked = iter([False] * 11 + [True])
    Policy("flow_matching", **TINY).fit(walks(), checkpoint_folder=tmp_path, interrupted=lambda: next(asked))
    resumed = Policy("flow_matching", **TINY).fit(walks(), checkpoint_folder=tmp_path, resume=True)
    for name, tensor in whole.family_.state_dict().items():
        assert torch.equal(tensor, resumed.family_.state_dict()[name]), name


def test_angles_are_told_round_the_circle():
    """An angle that passes 2 pi is no jump: the policy that goes on turning does so over the seam."""
    steps = np.arange(600)
    angle = (0.05 * steps) % (2 * np.pi)
    demonstrations = Demonstrations(
        {"pose": angle[:, None]},
        ((angle + 0.05) % (2 * np.pi))[:, None],
        np.asarray([600]),
        angles={"pose": (0,), "action": (0,)},
    )
    turning = Policy("mse", observation_horizon=1, steps=400, width=32, random_state=0).fit(demonstrations)
    asked = np.asarray([[[0.02]], [[2 * np.pi - 0.02]], [[2 * np.pi - 0.2]], [[1.5]]])
    told = turning.act_chunk({"pose": asked})[:, 0, 0]
    away = (told - asked[:, 0, 0] - 0.05 + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(away).max() < 0.05
    assert told.min() > -0.1  # in the turn that the demonstrations used
    assert told.max() < 2 * np.pi + 0.1


@pytest.mark.parametrize(
    ("observations", "said"),
    [
        (np.zeros((1, 3, 2)), r"has shape \(1, 3, 2\): give \(robots, 2, \.\.\.\)"),
        (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\), but each row must have shape \(2, 2\)"),
        ({"pose": np.zeros((1, 2, 2))}, "lacks state; it holds pose"),
        (np.full((1, 2, 2), np.nan), "NaN"),
    ],
)
def test_observations_that_do_not_fit_are_refused(policy, observations, said):
    with pytest.raises(DataError, match=said):
        policy.act_chunk(observations)


def test_robots_that_are_missing_are_told(policy):
    with pytest.raises(DataError, match=r"give \(3, \.\.\.\), one a robot"):
        policy.start(3).act(np.zeros((2, 2)))


def test_more_than_is_predicted_cannot_be_executed():
    with pytest.raises(SettingError, match="only what is predicted can be executed"):
        Policy(prediction_horizon=4, execution_horizon=5).fit(walks())
