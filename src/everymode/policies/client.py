"""A robot's side of a policy server: it asks ahead of time, and an answer that is late never stops it."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self, cast

import numpy as np

from everymode.errors import DataError, SettingError, check_number
from everymode.policies.demonstrations import STATE
from everymode.policies.queue import ActionQueue
from everymode.policies.wire import pack, unpack, websockets

__all__ = ["LateWarning", "RemotePolicy", "ServerError"]


class ServerError(RuntimeError):
    """The server answered with an error, or not at all; the message is its own."""


class LateWarning(UserWarning):
    """The server has not answered in time: the robot goes on with the actions at hand, or holds its last."""


class RemotePolicy:
    """A policy that answers from a server, with the manners of one that is at hand.

    `act` gives an action in every control step. It asks for the next chunk while there are still actions of the last
    one, and puts it to use from the step at which it arrives. With nothing left it waits for `deadline` seconds, and
    then repeats its last action.

    Args:
        address: ws://host:port.
        execution_horizon: actions of a chunk after which the next is asked for; the policy's own if None.
        deadline: seconds that `act` may wait; a control step of the policy's rate if None, .1 where it has none.
        timeout: seconds to wait for a connection, for the first action of an episode and in `act_chunk`.

    Attributes:
        policy: what the server says of its policy.
        status: of the last `act`: 'fresh' (a new chunk came in), 'queued', 'late' (the answer is overdue, and the queue
            goes on) or 'held' (there was no action left).
        late: steps of the episode that were 'late' or 'held'.

    Raises:
        SettingError: nothing answers at the address.
    """

    def __init__(
        self,
        address: str,
        *,
        execution_horizon: int | None = None,
        deadline: float | None = None,
        timeout: float = 10.0,
    ) -> None:
        connect = websockets("sync.client").connect
        self.timeout = check_number("timeout", timeout, 0.0, exclusive_low=True)
        self._left = ExitStack()
        try:
            opened = connect(address, open_timeout=timeout, max_size=None, compression=None)
            self._socket = self._left.enter_context(opened)
        except (OSError, ValueError, websockets("exceptions").WebSocketException) as error:
            raise SettingError(f"no policy server answers at {address}: {error}. Is `policy serve` running?") from error
        self._ids = itertools.count()
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._gone: str | None = None
        self._reader = threading.Thread(target=self._read, name="policy answers", daemon=True)
        self._reader.start()
        self.policy: dict[str, Any] = self._ask({"kind": "describe"})["policy"]
        horizon = self.policy["prediction_horizon"]
        usual = self.policy["execution_horizon"] if execution_horizon is None else execution_horizon
        self.execution_horizon = check_number("execution_horizon", usual, 1, horizon, integer=True)
        rate = self.policy.get("rate")
        self.deadline = check_number("deadline", (1 / rate if rate else 0.1) if deadline is None else deadline, 0.0)
        self._history: deque[dict[str, np.ndarray]] = deque(maxlen=self.policy["observation_horizon"])
        self._queue = ActionQueue()
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server."""
        self._left.close()
        self._reader.join(self.timeout)

    # Asking --------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        closed = websockets("exceptions").ConnectionClosed
        try:
            for data in self._socket:
                message = unpack(data, most=len(data))
                with self._arrived:
                    self._answers[message["id"]] = message
                    self._arrived.notify_all()
        except (closed, DataError, KeyError) as error:
            reason = str(error)
        else:
            reason = "the connection was closed"
        with self._arrived:
            self._gone = reason
            self._arrived.notify_all()

    def _send(self, message: Mapping[str, Any]) -> int:
        name = next(self._ids)
        try:
            self._socket.send(pack({"id": name, **message}))
        except websockets("exceptions").ConnectionClosed as error:
            raise ServerError(f"the server is gone: {error}") from error
        return name

    def _wait(self, name: int, seconds: float) -> dict[str, Any] | None:
        """Return the answer to a request, or None if it does not come in time."""
        with self._arrived:
            self._arrived.wait_for(lambda: name in self._answers or self._gone is not None, seconds)
            if name in self._answers:
                return self._answers.pop(name)
            if self._gone is not None:
                raise ServerError(f"the server is gone: {self._gone}")
        return None

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._wait(self._send(message), self.timeout)
        if answer is None:
            raise ServerError(f"the server has not answered within {self.timeout:g} s.")
        if "error" in answer:
            raise ServerError(answer["error"])
        return answer

    def act_chunk(self, observations: Mapping[str, Any] | np.ndarray) -> np.ndarray:
        """Return the chunk (robots, prediction_horizon, d) for observations (robots, observation_horizon, *shape).

        Raises:
            ServerError: the server answered with an error, or not in time.
        """
        return self._ask({"kind": "act", "observations": _by_name(observations)})["actions"]

    # Acting --------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin a new episode: history and queue are forgotten."""
        self._history.clear()
        self._queue.clear()
        self._pending: tuple[int, int, float] | None = None  # id, the step it was asked at, and the time
        self._asked_at = 0
        self._last: np.ndarray | None = None
        self.status, self.late, self._told = "queued", 0, False

    def act(self, observation: Mapping[str, Any] | np.ndarray) -> np.ndarray:
        """Return the action (d,) of this control step.

        Raises:
            ServerError: the server is gone or refuses the observation; or there was no first action in time.

        Warns:
            LateWarning: an answer is overdue. Said once an episode; `status` and `late` tell every step.
        """
        self._history.append(_by_name(observation))
        step = self._queue.step
        if self._pending is None and (not len(self._queue) or step - self._asked_at >= self.execution_horizon):
            self._pending = (self._send({"kind": "act", "observations": self._window()}), step, time.monotonic())
            self._asked_at = step
        self.status = "queued"
        if self._pending is not None:
            first = self._last is None
            self._take(0.0 if len(self._queue) else self.timeout if first else self.deadline)
            if first and self._last is None and not len(self._queue):
                raise ServerError(f"the server gave no first action within {self.timeout:g} s.")
        action = self._queue.pop()
        if action is None:  # there was a first one, or `act` had not come this far
            self.status, action = "held", cast("np.ndarray", self._last)
        if self.status in ("late", "held"):
            self._tell()
        self._last = action
        return action

    def _window(self) -> dict[str, np.ndarray]:
        """Return the last observations (1, observation_horizon, *shape), the first one repeated at the start."""
        missing = (self._history.maxlen or 1) - len(self._history)
        rows = [self._history[0]] * missing + list(self._history)
        return {name: np.stack([row[name] for row in rows])[None] for name in rows[0]}

    def _take(self, seconds: float) -> None:
        """Put the answer that is asked for to use, if it comes in time."""
        name, made_at, asked = self._pending or (0, 0, 0.0)
        answer = self._wait(name, seconds)
        if answer is None:
            self.status = "late" if time.monotonic() - asked > self.deadline else "queued"
            return
        self._pending = None
        if answer.get("code") in ("late", "busy"):  # asked again in the next step
            self.status, self._asked_at = "late", made_at - self.execution_horizon
            return
        if "error" in answer:
            raise ServerError(answer["error"])
        self._queue.put(answer["actions"][0], made_at)
        self.status = "fresh"

    def _tell(self) -> None:
        self.late += 1
        if not self._told:
            self._told = True
            warnings.warn(
                f"the policy server has not answered within {self.deadline:g} s: the robot goes on with the actions at "
                "hand, and holds the last where there are none.",
                LateWarning,
                stacklevel=3,
            )


def _by_name(observation: Mapping[str, Any] | np.ndarray) -> dict[str, np.ndarray]:
    named = observation if isinstance(observation, Mapping) else {STATE: observation}
    return {name: np.asarray(values) for name, values in named.items()}
