"""A server of a policy: observations in, chunks of actions out, over a websocket.

A request is {"id": ..., "kind": "act", "observations": {name: (robots, observation_horizon, *shape)}}, and its answer
{"id": ..., "actions": (robots, prediction_horizon, d), "seconds": ...}; {"id": ..., "kind": "describe"} asks what the
policy sees and does. What cannot be answered gets {"id": ..., "error": sentence, "code": "bad", "late" or "busy"}.
Requests that arrive together are answered by one pass of the networks. The policy works in a thread of its own: while
it does, or stalls, the server goes on hearing, and a request whose time is up is answered that it is late.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np

from everymode.errors import DataError, SettingError, check_number
from everymode.policies.wire import MESSAGE_BYTES, pack, unpack, websockets

__all__ = ["PolicyServer"]

_AT_ONCE = 64  # requests that one pass answers
_MOST_WAITING = 256  # requests of all robots that wait for the policy; more are told that it is busy
_MOST_PENDING = 16  # of one connection
_CLOSED_FROM = 4  # times the longest message: what is longer is not even read, and its connection is closed


@dataclass(eq=False)
class _Request:
    """One question of one robot, and where its answer goes."""

    observations: dict[str, np.ndarray]
    answer: asyncio.Future[dict[str, Any]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def rows(self) -> int:
        """Robots asked for."""
        return len(next(iter(self.observations.values())))

    @property
    def kind(self) -> tuple[Any, ...]:
        """Requests of one kind fit into one batch."""
        return tuple((name, array.shape[1:], array.dtype.str) for name, array in sorted(self.observations.items()))


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class PolicyServer:
    """Serves a fitted policy until it is stopped; as a context manager, from a thread of its own.

    Args:
        policy: what has `act_chunk(observations, random_state=...)`, as `everymode.policies.Policy` does.
        host: address to listen on; only this machine's by default.
        port: 0 takes a free one.
        deadline: seconds after which a request is answered that it is late.
        most_bytes: of one message.
        random_state: of the draws: the k-th pass of the networks draws by it and k.

    Examples:
        >>> with PolicyServer(policy, port=0) as server:  # doctest: +SKIP
        ...     robot = RemotePolicy(server.address)
    """

    def __init__(
        self,
        policy: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        deadline: float = 2.0,
        most_bytes: int = MESSAGE_BYTES,
        random_state: int = 0,
    ) -> None:
        self.policy, self.host = policy, host
        self.port = check_number("port", port, 0, 65535, integer=True)
        self.deadline = check_number("deadline", deadline, 0.0, exclusive_low=True)
        self.most_bytes = check_number("most_bytes", most_bytes, 1024, 1 << 31, integer=True)
        self.random_state = check_number("random_state", random_state, 0, 2**31, integer=True)
        self.answered, self.refused = 0, 0
        self._passes = itertools.count()
        self._thread: threading.Thread | None = None
        self._stopping: Callable[[], object] = lambda: None

    @property
    def address(self) -> str:
        """Where robots find it: ws://host:port."""
        return f"ws://{self.host}:{self.port}"

    # Running -------------------------------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until the task is cancelled; `ready` is called once robots can connect, with `port` known.

        Raises:
            SettingError: the address cannot be listened on.
        """
        serve = websockets("asyncio.server").serve
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue(_MOST_WAITING)
        most = _CLOSED_FROM * self.most_bytes
        try:
            server = await serve(self._connection, self.host, self.port, max_size=most, compression=None)
        except OSError as error:
            raise SettingError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror or error}. Choose another port."
            ) from error
        thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        try:
            async with server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                ready()
                await self._work(thread)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        started, failed = threading.Event(), []

        async def main() -> None:
            task, loop = cast("asyncio.Task[None]", asyncio.current_task()), asyncio.get_running_loop()
            self._stopping = lambda: loop.call_soon_threadsafe(task.cancel)
            await self.run(started.set)

        def serve() -> None:
            try:
                asyncio.run(main())
            except asyncio.CancelledError:
                pass
            except Exception as error:
                failed.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=serve, name="policy server", daemon=True)
        self._thread.start()
        started.wait()
        if failed:
            raise failed[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping()
        if self._thread is not None:
            self._thread.join()

    # Connections ---------------------------------------------------------------------------------------------------

    async def _connection(self, socket: Any) -> None:
        closed = websockets("exceptions").ConnectionClosed
        pending: set[asyncio.Task[None]] = set()
        try:
            async for data in socket:
                task = asyncio.create_task(self._handle(socket, data, len(pending)))
                pending.add(task)
                task.add_done_callback(pending.discard)
        except closed:
            pass  # the robot is gone: so is whoever waits for its answers
        finally:
            for task in pending:
                task.cancel()

    async def _handle(self, socket: Any, data: bytes | str, pending: int) -> None:
        name: Any = None
        try:
            message = unpack(data, most=self.most_bytes)
            name = message.get("id")
            reply = await self._reply(message, pending)
            self.answered += 1
        except (DataError, _Refused) as error:
            reply = {"error": str(error), "code": getattr(error, "code", "bad")}
            self.refused += 1
        try:
            await socket.send(pack({"id": name, **reply}))
        except websockets("exceptions").ConnectionClosed:
            pass

    async def _reply(self, message: Mapping[str, Any], pending: int) -> dict[str, Any]:
        kind = message.get("kind", "act")
        if kind == "describe":
            return {"policy": self.policy.describe()}
        if kind != "act":
            raise DataError(f"kind={kind!r}: ask for 'act' or 'describe'.")
        request = _Request(_read_observations(message.get("observations")))
        if pending >= _MOST_PENDING or self._waiting.full():
            raise _Refused("busy", f"{max(pending, self._waiting.qsize())} requests are waiting: ask again later.")
        self._waiting.put_nowait(request)
        try:
            return await asyncio.wait_for(request.answer, self.deadline)
        except TimeoutError:
            raise _Refused(
                "late", f"the policy has not answered within {self.deadline:g} s: go on with the actions at hand."
            ) from None

    # The policy ----------------------------------------------------------------------------------------------------

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        """Answer what waits, batch by batch, in the order of arrival."""
        loop, left = asyncio.get_running_loop(), None
        while True:
            batch = [left or await self._waiting.get()]
            left = None
            while len(batch) < _AT_ONCE and not self._waiting.empty():
                request = self._waiting.get_nowait()
                if request.kind != batch[0].kind:
                    left = request  # begins the next batch
                    break
                batch.append(request)
            batch = [request for request in batch if not request.answer.done()]
            if not batch:
                continue
            for request, answer in zip(batch, await loop.run_in_executor(thread, self._answers, batch), strict=True):
                if request.answer.done():  # too late, or the robot is gone
                    continue
                if isinstance(answer, Exception):
                    request.answer.set_exception(_Refused("bad", f"{answer}"))
                else:
                    request.answer.set_result(answer)

    def _answers(self, batch: list[_Request]) -> list[dict[str, Any] | Exception]:
        """Return the answer, or the error, of each request; one that cannot be answered spoils no other."""
        try:
            names = batch[0].observations
            together = {name: np.concatenate([request.observations[name] for request in batch]) for name in names}
            started = time.perf_counter()
            chunks = self.policy.act_chunk(together, random_state=self.random_state + next(self._passes))
            seconds = time.perf_counter() - started
            parts = np.split(chunks, np.cumsum([request.rows for request in batch])[:-1])
            return [{"actions": part, "seconds": seconds} for part in parts]
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [answer for request in batch for answer in self._answers([request])]


def _read_observations(observations: Any) -> dict[str, np.ndarray]:
    if not isinstance(observations, dict) or not observations:
        raise DataError("the request holds no observations: send a map of arrays (robots, observation_horizon, ...).")
    for name, values in observations.items():
        if not isinstance(values, np.ndarray) or values.ndim < 2 or not len(values):
            raise DataError(
                f"observation {name!r}: send an array (robots, observation_horizon, ...), one robot or more."
            )
    rows = {name: len(values) for name, values in observations.items()}
    if len(set(rows.values())) > 1:
        raise DataError(f"the observations differ in robots: {', '.join(f'{n} has {k}' for n, k in rows.items())}.")
    return observations
