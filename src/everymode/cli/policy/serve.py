"""`everymode policy serve`: let robots ask a policy over a websocket."""

from __future__ import annotations

from typing import Annotated

import typer

from everymode.cli.options import Device, Json, Quiet, Run, Seed
from everymode.cli.voice import Voice


def command(
    run: Run,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    deadline: Annotated[float, typer.Option(help="Seconds after which a request is answered that it is late.")] = 2.0,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve a policy until Ctrl-C, or a request to terminate.

    Robots ask with `everymode.policies.RemotePolicy("ws://host:port")`, whose `act` goes on with the actions at hand
    where an answer is late. Whoever can reach the address can ask: there is no password.
    """
    import asyncio
    import contextlib
    import signal

    from everymode.policies import PolicyServer, load_policy

    voice = Voice(json=json, quiet=quiet)
    policy = load_policy(run, device=device)
    server = PolicyServer(policy, host=host, port=port, deadline=deadline, random_state=seed)

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows, where Ctrl-C raises KeyboardInterrupt
                loop.add_signal_handler(number, lambda: task and task.cancel())
        await server.run(lambda: voice.say(f"{policy.family_.name} at {server.address}; Ctrl-C stops it"))

    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(serve())
    voice.say(f"stopped: {server.answered} requests answered, {server.refused} refused")
    voice.result({"address": server.address, "answered": server.answered, "refused": server.refused})
