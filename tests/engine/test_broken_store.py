"""A commit that fails: nothing more happens, who waits is told, reopening recovers."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, scheduler_of, until

from perdure import (
    Engine,
    Status,
    StoreBroken,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

MIB = 1 << 20
BROKEN = re.compile(r"the commit after unit \d+ failed: .*until the directory is opened again")


class Fill(Workflow):
    """Keeps a value, runs a step, waits."""

    def __init__(self) -> None:
        self.told: Any = None  # the pipe that learns of acknowledgements
        self.steps: list[str] = []
        self.step: Any = self.steps.append

    async def run(self, ctx: WorkflowContext, value: bytes) -> str:
        ctx.set("value", value)
        await ctx.run("step", self.step, ctx.key)
        return await ctx.promise("go", str)

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(ctx.key)

    @handler
    async def size(self, ctx: WorkflowSharedContext) -> int:
        return len(await ctx.get("value", bytes, b""))


def in_a_child(place: Place, body: Callable[[Engine, Fill], Awaitable[None]]) -> bytes:
    """Run *body* with an engine whose disk fills up soon; what it wrote to the pipe."""
    reading, writing = os.pipe()

    async def main() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))
        service = Fill()
        async with place.engine(service) as engine:
            with os.fdopen(writing, "wb", buffering=0, closefd=False) as told:
                service.told = told
                await body(engine, service)

    quiet_log()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run(main())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    told = b""
    while part := os.read(reading, 65536):
        told += part
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return told


async def fill(engine: Engine, service: Fill) -> int:
    """Send until the disk is full; how many were acknowledged."""
    for number in range(10_000):
        try:
            await engine.send(Fill.run, os.urandom(3000), key=str(number))
        except StoreBroken:
            return number
        service.told.write(number.to_bytes(4, "big"))
    raise AssertionError("the disk never filled")


def test_who_waits_is_told_nothing_more_is_accepted_and_no_step_starts(
    resident_place: Place,
) -> None:
    async def body(engine: Engine, service: Fill) -> None:
        first = await engine.send(Fill.run, b"", key="first")
        waiting = [
            asyncio.create_task(first.result()),
            asyncio.create_task(engine.submit(Fill.run, b"", key="first")),
            asyncio.create_task(engine.call(Fill.run, b"", key="called")),
        ]
        await fill(engine, service)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreBroken), outcome
            assert BROKEN.search(str(outcome))
        steps = len(service.steps)
        uses: list[Callable[[], Awaitable[Any]]] = [
            lambda: engine.send(Fill.run, b"", key="later"),
            lambda: engine.call(Fill.size, key="first"),
            lambda: engine.submit(Fill.run, b"", key="first"),
            lambda: engine.describe(first.id),
            lambda: engine.output(first.id),
            lambda: engine.attach(first.id),
            lambda: engine.resume(first.id),
        ]
        for use in uses:
            with pytest.raises(StoreBroken, match=BROKEN):
                await use()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(service.steps) == steps
        assert not scheduler_of(engine).running.any()

    assert in_a_child(resident_place, body)


def test_reopening_recovers_all_that_was_acknowledged(place: Place) -> None:
    async def body(engine: Engine, service: Fill) -> None:
        await fill(engine, service)

    told = in_a_child(place, body)
    acknowledged = len(told) // 4
    assert acknowledged > 10

    async def main() -> None:
        service = Fill()
        async with place.engine(service) as engine:
            for number in range(acknowledged):
                key = str(number)
                assert await engine.call(Fill.size, key=key) == 3000
                await engine.call(Fill.go, key=key)
                assert await engine.submit(Fill.run, b"", key=key) == key
            # The one that was refused is there or it is not; either way it can be sent.
            handle = await engine.send(Fill.run, b"x", key=str(acknowledged))
            await engine.call(Fill.go, key=str(acknowledged))
            assert await handle.result() == str(acknowledged)

    run(main())


def test_a_running_step_is_cancelled_when_the_store_breaks(resident_place: Place) -> None:
    async def body(engine: Engine, service: Fill) -> None:
        ended: list[str] = []

        async def work(key: str) -> None:
            ended.append("begun")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("ended")

        service.step = work
        await engine.send(Fill.run, b"", key="first")
        await until(lambda: ended == ["begun"])
        await fill(engine, service)
        await until(lambda: ended.count("ended") == ended.count("begun"), "their end")

    in_a_child(resident_place, body)


def test_closing_a_broken_engine_ends_at_once(resident_place: Place) -> None:
    async def body(engine: Engine, service: Fill) -> None:
        await fill(engine, service)
        async with asyncio.timeout(1):
            await engine.close()

    in_a_child(resident_place, body)

    async def main() -> None:
        async with resident_place.engine(Fill()) as engine:
            handle = await engine.send(Fill.run, b"", key="after")
            assert (await engine.describe(handle.id)).status is not Status.COMPLETED

    run(main())
