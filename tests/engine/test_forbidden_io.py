"""What would reach outside the journal is refused in a handler, and the text says what to do."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from engine_support import Place, quiet_log, run
from primitive_support import Primitive, once

from perdure import NondeterministicOperationError, TerminalError, WorkflowContext

Loop = asyncio.AbstractEventLoop
Protocol = asyncio.Protocol


def nothing(*_: object) -> None:
    """A callback."""


FORBIDDEN: dict[str, Callable[[Loop], Any]] = {
    "asyncio.to_thread": lambda loop: asyncio.to_thread(nothing),
    "run_in_executor": lambda loop: loop.run_in_executor(None, nothing),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(nothing),
    "open_connection": lambda loop: asyncio.open_connection("localhost", 1),
    "open_unix_connection": lambda loop: asyncio.open_unix_connection("/nowhere"),
    "start_server": lambda loop: asyncio.start_server(nothing, "localhost", 0),
    "create_connection": lambda loop: loop.create_connection(Protocol, "localhost", 1),
    "create_server": lambda loop: loop.create_server(Protocol, "localhost", 0),
    "create_datagram_endpoint": lambda loop: loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, ("localhost", 1)
    ),
    "create_subprocess_exec": lambda loop: asyncio.create_subprocess_exec("true"),
    "create_subprocess_shell": lambda loop: asyncio.create_subprocess_shell("true"),
    "getaddrinfo": lambda loop: loop.getaddrinfo("localhost", 1),
    "getnameinfo": lambda loop: loop.getnameinfo(("127.0.0.1", 1)),
    "add_reader": lambda loop: loop.add_reader(0, nothing),
    "remove_reader": lambda loop: loop.remove_reader(0),
    "add_writer": lambda loop: loop.add_writer(1, nothing),
    "sock_recv": lambda loop: loop.sock_recv(socket.socket.__new__(socket.socket), 1),
    "sock_accept": lambda loop: loop.sock_accept(socket.socket.__new__(socket.socket)),
    "connect_read_pipe": lambda loop: loop.connect_read_pipe(Protocol, None),
    "add_signal_handler": lambda loop: loop.add_signal_handler(signal.SIGUSR1, nothing),
    "set_default_executor": lambda loop: loop.set_default_executor(ThreadPoolExecutor()),
    "stop": lambda loop: loop.stop(),
    "close": lambda loop: loop.close(),
    "run_forever": lambda loop: loop.run_forever(),
    "anyio.connect_tcp": lambda loop: anyio.connect_tcp("localhost", 1),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_io_on_the_loop_of_a_handler_is_refused(resident_place: Place, name: str) -> None:
    async def body(ctx: WorkflowContext) -> None:
        made = FORBIDDEN[name](asyncio.get_running_loop())
        if made is not None:
            await made

    with pytest.raises(NondeterministicOperationError, match=r"use ctx\.run\('name', function, …"):
        once(resident_place, body)


def test_every_method_of_a_loop_that_does_io_is_refused() -> None:
    """Also those that a later Python adds: what the loop does not do itself, it refuses."""
    from perdure._core._loop import DeterministicLoop

    inherited = [
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("_")
        and getattr(DeterministicLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    ]
    assert inherited == []


def test_a_handler_that_awaits_a_future_of_another_loop_is_told_so(resident_place: Place) -> None:
    async def main() -> None:
        foreign = asyncio.get_running_loop().create_future()

        async def body(ctx: WorkflowContext) -> None:
            await foreign

        async with resident_place.engine(Primitive(body)) as engine:
            await engine.submit(Primitive.run, key="k")

    with pytest.raises(
        NondeterministicOperationError,
        match=r"belongs to another event loop .* do this in a step: use ctx\.run",
    ):
        run(main())


def test_a_handler_that_awaits_a_task_of_another_loop_is_told_so(resident_place: Place) -> None:
    async def main() -> None:
        foreign = asyncio.create_task(asyncio.sleep(0))

        async def body(ctx: WorkflowContext) -> None:
            await foreign

        async with resident_place.engine(Primitive(body)) as engine:
            await engine.submit(Primitive.run, key="k")

    with pytest.raises(NondeterministicOperationError, match="belongs to another event loop"):
        run(main())


def test_a_handler_that_yields_something_else_is_told_so(resident_place: Place) -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "something"

    async def body(ctx: WorkflowContext) -> None:
        await Odd()

    with pytest.raises(
        NondeterministicOperationError, match=r"'something', which is not asyncio's"
    ):
        once(resident_place, body)


def test_the_refusal_can_be_caught_and_the_handler_goes_on(place: Place) -> None:
    quiet_log()

    async def body(ctx: WorkflowContext) -> str:
        try:
            await asyncio.to_thread(nothing)
        except NondeterministicOperationError:
            return await ctx.run("in a step", str, 7)
        return "in a thread"

    assert once(place, body) == "7"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_step_that_uses_the_context_is_told_to_take_values(place: Place, is_async: bool) -> None:
    async def body(ctx: WorkflowContext) -> None:
        def use() -> None:
            ctx.set("a", 1)

        async def use_async() -> None:
            use()

        await ctx.run("step", use_async if is_async else use)

    with pytest.raises(TerminalError, match="pass values into steps"):
        once(place, body)
