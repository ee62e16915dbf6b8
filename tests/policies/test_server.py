"""The server and its robots: right answers to right requests, whatever else is sent, and a late answer stops nobody."""

from __future__ import annotations

import gc
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from everymode.errors import DataError, SettingError
from everymode.policies.client import LateWarning, RemotePolicy, ServerError
from everymode.policies.server import PolicyServer
from everymode.policies.wire import pack, unpack

HORIZON = 4


class Echo:
    """A policy whose action at step k of a chunk is the last observed value plus k; it can be held up."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()
        self.batches: list[int] = []

    def describe(self):
        return {"observation_horizon": 2, "prediction_horizon": HORIZON, "execution_horizon": 2, "rate": 50.0}

    def act_chunk(self, observations, *, random_state=None):
        self.hold.wait()
        state = observations["state"]
        if not np.isfinite(state).all():
            raise DataError("state holds NaN.")
        if (state == -1).all():
            raise RuntimeError("broken inside")
        self.batches.append(len(state))
        return state[:, -1, None, :] + np.arange(HORIZON)[:, None]


@pytest.fixture
def policy():
    policy = Echo()
    yield policy
    policy.hold.set()


def asked(value: float, rows: int = 1) -> dict:
    return {"state": np.full((rows, 2, 1), value)}


def test_arrays_travel_as_they_are():
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(2, 3)),
        rng.integers(0, 255, (4, 4, 3)).astype(np.uint8),
        np.zeros((0, 2), np.float32),
        np.asarray(True),
    ]
    back = unpack(pack({"arrays": arrays, "text": "ü", "n": np.int64(3), "none": None}))
    assert (back["text"], back["n"], back["none"]) == ("ü", 3, None)
    for sent, got in zip(arrays, back["arrays"], strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        np.testing.assert_array_equal(got, sent)


def extension(dtype: str, shape: list, data: bytes, code: int = 1) -> bytes:
    return msgpack.packb(
        {"id": 0, "observations": {"state": msgpack.ExtType(code, msgpack.packb([dtype, shape, data]))}}
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no MessagePack map"),
        (b"\xc1\xc1", "no MessagePack map"),
        (b"\x93\x01\x02\x03", "is a list; send a map"),
        (pack({"a": np.zeros(9)})[:-3], "no MessagePack map"),
        ("text", "is text"),
        (extension("<f8", [3], b"\0" * 8), r"8 bytes for an array of <f8 and shape \(3,\)"),
        (extension("|O", [1], b"\0" * 8), "only numbers travel"),
        (extension("nonsense", [1], b"\0" * 8), "no MessagePack map"),
        (extension("<f8", [1], b"\0" * 8, code=7), "extension of type 7"),
        (b"\0" * 5000, "5,000 bytes; 4,096 are the most"),
    ],
)
def test_what_is_no_message_is_refused_with_a_sentence(data, said):
    with pytest.raises(DataError, match=said):
        unpack(data, most=4096)


def test_objects_do_not_travel():
    with pytest.raises(DataError, match="only numbers travel"):
        pack({"a": np.asarray([object()])})


def test_requests_that_arrive_together_are_one_pass_and_each_gets_its_own(policy):
    with PolicyServer(policy, port=0) as server, ThreadPoolExecutor(8) as pool:
        robots = [RemotePolicy(server.address) for _ in range(8)]
        policy.hold.clear()
        answers = [pool.submit(robot.act_chunk, asked(10.0 * k, rows=k + 1)) for k, robot in enumerate(robots)]
        time.sleep(0.2)
        policy.hold.set()
        for k, answer in enumerate(answers):
            expected = np.broadcast_to(10.0 * k + np.arange(HORIZON)[:, None], (k + 1, HORIZON, 1))
            np.testing.assert_array_equal(answer.result(), expected)
        for robot in robots:
            robot.close()
    assert len(policy.batches) <= 2  # one that was begun, and one of all the others
    assert sum(policy.batches) == sum(range(1, 9))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"id": 1, "kind": "fly"}, "ask for 'act' or 'describe'"),
        ({"id": 1}, "no observations"),
        ({"id": 1, "observations": {}}, "no observations"),
        ({"id": 1, "observations": {"state": [1.0]}}, "send an array"),
        ({"id": 1, "observations": {"state": np.zeros(3)}}, "send an array"),
        ({"id": 1, "observations": {"state": np.zeros((0, 2, 1))}}, "send an array"),
        ({"id": 1, "observations": {"state": np.zeros((1, 2, 1)), "image": np.zeros((2, 2, 1))}}, "state has 1, image"),
        ({"id": 1, "observations": {"other": np.zeros((1, 2, 1))}}, "state"),
        ({"id": 1, "observations": {"state": np.full((1, 2, 1), np.nan)}}, "NaN"),
        ({"id": 1, "observations": {"state": np.full((1, 2, 1), -1.0)}}, "broken inside"),
    ],
)
def test_a_bad_request_is_answered_with_its_error_and_the_next_is_served(policy, message, said):
    with PolicyServer(policy, port=0) as server, connect(server.address) as robot:
        robot.send(pack(message))
        answer = unpack(robot.recv(timeout=5))
        assert answer["id"] == 1
        assert answer["code"] == "bad"
        assert said in answer["error"]
        robot.send(pack({"id": "next", "observations": asked(3.0)}))
        answer = unpack(robot.recv(timeout=5))
        assert answer["id"] == "next"
        assert answer["actions"][0, :, 0].tolist() == [3, 4, 5, 6]


def test_a_bad_request_in_a_batch_spoils_no_other(policy):
    with PolicyServer(policy, port=0) as server, ThreadPoolExecutor(3) as pool:
        robots = [RemotePolicy(server.address) for _ in range(3)]
        policy.hold.clear()
        answers = [pool.submit(r.act_chunk, asked(v)) for r, v in zip(robots, (0.0, np.nan, 2.0), strict=True)]
        time.sleep(0.2)
        policy.hold.set()
        assert answers[0].result()[0, 0, 0] == 0
        with pytest.raises(ServerError, match="NaN"):
            answers[1].result()
        assert answers[2].result()[0, 0, 0] == 2
        for robot in robots:
            robot.close()


def test_a_thousand_requests_among_kills_rubbish_and_stalls(policy):
    """No crash, no answer to another's request, every bad one answered with an error, and memory stays flat."""
    rounds, clients, most = 125, 8, 64 * 1024
    right, wrong, late = [0] * clients, [0] * clients, [0] * clients

    def work(client: int) -> None:
        rng = np.random.default_rng(client)
        connections = ExitStack()
        robot = connected(connections)
        for k in range(rounds):
            name, chance = f"{client}-{k}", rng.random()
            try:
                if chance < 0.05:  # killed in the middle: the socket is torn down, not closed
                    robot.send(pack({"id": name, "observations": asked(1.0)}))
                    robot.socket.shutdown(socket.SHUT_RDWR)
                    robot = connected(connections)
                    continue
                if chance < 0.15:
                    robot.send(rng.bytes(int(rng.integers(1, 200))))
                    assert unpack(robot.recv(timeout=5))["code"] == "bad"
                    wrong[client] += 1
                elif chance < 0.2:
                    robot.send(pack({"id": name, "observations": {"state": np.zeros((1, 2, most // 16))}}) + b"\0" * 99)
                    assert "bytes" in unpack(robot.recv(timeout=5))["error"]
                    wrong[client] += 1
                elif chance < 0.22:  # so long that it is not read at all
                    robot.send(b"\0" * (5 * most))
                    with pytest.raises(ConnectionClosed) as closed:
                        robot.recv(timeout=5)
                    assert closed.value.rcvd is not None
                    assert closed.value.rcvd.code == 1009
                    wrong[client] += 1
                    robot = connected(connections)
                else:
                    value = float(rng.integers(0, 10**6))
                    robot.send(pack({"id": name, "observations": asked(value)}))
                    answer = unpack(robot.recv(timeout=5))
                    assert answer["id"] == name
                    if "error" in answer:
                        assert answer["code"] in ("late", "busy")
                        late[client] += 1
                    else:
                        assert answer["actions"][0, 0, 0] == value
                        right[client] += 1
            except ConnectionClosed as error:
                pytest.fail(f"client {client}, request {k}: {error}")
        connections.close()

    def connected(connections: ExitStack):
        return connections.enter_context(connect(server.address, compression=None))

    def stalls(done: threading.Event) -> None:
        while not done.wait(0.15):
            policy.hold.clear()
            time.sleep(0.1)
            policy.hold.set()

    with PolicyServer(policy, port=0, deadline=0.05, most_bytes=most) as server:
        tracemalloc.start()
        sizes = []
        for _ in range(2):
            done = threading.Event()
            with ThreadPoolExecutor(clients + 1) as pool:
                staller = pool.submit(stalls, done)
                for result in [pool.submit(work, client) for client in range(clients)]:
                    result.result()
                done.set()
                staller.result()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        with RemotePolicy(server.address) as robot:
            assert robot.act_chunk(asked(7.0))[0, 0, 0] == 7
    assert sum(right) > 1000
    assert sum(wrong) > 100
    assert sum(late) > 10
    assert sizes[1] - sizes[0] < 300_000, sizes


# The robot's side ------------------------------------------------------------------------------------------------


def driven(robot: RemotePolicy, values, pause: float) -> tuple[list[float], list[str]]:
    """Return the actions and the status of a robot that sees these values, and never waits long."""
    actions, seen = [], []
    for value in values:
        started = time.monotonic()
        actions.append(float(robot.act(np.asarray([float(value)]))[0]))
        assert time.monotonic() - started < 0.5
        seen.append(robot.status)
        time.sleep(pause)
    return actions, seen


def test_the_robot_sees_the_first_observation_repeated_and_acts_on_the_newest_chunk(policy):
    with PolicyServer(policy, port=0) as server, RemotePolicy(server.address, deadline=5.0) as robot:
        assert robot.act(np.asarray([10.0])).tolist() == [10]
        assert robot.status == "fresh"
        assert robot.act(np.asarray([20.0])).tolist() == [11]  # of the chunk of step 0
        time.sleep(0)
        taken = [float(robot.act(np.asarray([100.0 + k]))[0]) for k in range(20)]
    ahead = np.asarray(taken) - (100 + np.arange(20))
    assert robot.late == 0
    assert (ahead[4:] == 0).all(), taken  # an action planned j steps ago is the value seen then, plus j


def test_a_late_answer_lets_the_queue_go_on_and_then_the_robot_holds(policy):
    with PolicyServer(policy, port=0, deadline=30.0) as server, RemotePolicy(server.address, deadline=0.03) as robot:
        assert robot.act(np.asarray([0.0])).tolist() == [0]
        policy.hold.clear()
        with pytest.warns(LateWarning, match="has not answered within 0.03 s"):
            actions, seen = driven(robot, range(1, 7), pause=0.03)
        assert actions == [1, 2, 3, 3, 3, 3]  # three of the chunk are left, then the last is held
        assert seen[:2] == ["queued", "queued"]
        assert seen[2] == "late"
        assert set(seen[3:]) == {"held"}
        assert robot.late == 4
        policy.hold.set()
        time.sleep(0.3)
        robot.act(np.asarray([7.0]))
        robot.reset()
        assert robot.act(np.asarray([50.0])).tolist() == [50]
        assert robot.late == 0


def test_a_server_that_says_it_is_late_is_asked_again(policy):
    with PolicyServer(policy, port=0, deadline=0.05) as server, RemotePolicy(server.address, deadline=0.01) as robot:
        robot.act(np.asarray([0.0]))
        policy.hold.clear()
        with pytest.warns(LateWarning):
            driven(robot, range(1, 9), pause=0.02)
        policy.hold.set()
        deadline = time.monotonic() + 5
        while robot.status != "fresh" and time.monotonic() < deadline:
            robot.act(np.asarray([9.0]))
            time.sleep(0.02)
        assert robot.status == "fresh"


def test_no_server_at_all_and_one_that_goes_are_sentences(policy):
    with pytest.raises(SettingError, match="no policy server answers"):
        RemotePolicy("ws://127.0.0.1:9", timeout=1.0)
    with PolicyServer(policy, port=0) as server:
        robot = RemotePolicy(server.address)
        with (
            pytest.raises(SettingError, match=f"cannot listen on 127.0.0.1:{server.port}"),
            PolicyServer(policy, port=server.port),
        ):
            pass
    with pytest.raises(ServerError, match="the server is gone"):
        robot.act_chunk(asked(1.0))
