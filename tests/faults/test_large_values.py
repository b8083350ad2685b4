"""Values of 32 MiB, wherever there are values; many on a slow disk; and a byte more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults_support import run_child, succeeded
from large_children import LARGEST
from load_support import Connection, Served

from perdure import (
    Context,
    Engine,
    InvalidInput,
    Service,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.http._limits import DEFAULT_LIMITS


class Echo(Service):
    @handler
    async def echo(self, ctx: Context, value: bytes) -> bytes:
        return value


class Large(Workflow):
    """Gets, makes and keeps a value in each way there is; answers with their lengths."""

    async def run(self, ctx: WorkflowContext, value: bytes) -> list[int]:
        size = len(value)
        found = [
            value,
            await ctx.run("make", bytes, size, returns=bytes),
            await ctx.call(Echo.echo, value),
            await ctx.promise("promise", bytes),
            await ctx.signal("signal", bytes),
        ]
        ctx.set("state", value)
        awakeable = ctx.awakeable(bytes)
        await ctx.promise("id of the awakeable", str).resolve(awakeable.id)
        found += [await awakeable, await ctx.get("state", bytes, b"")]
        return [len(each) for each in found]

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, value: bytes) -> None:
        await ctx.promise("promise", bytes).resolve(value)

    @handler
    async def awakeable(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.promise("id of the awakeable", str)


async def see_through(engine: Engine, key: str, size: int) -> list[int]:
    value = bytes(size)
    handle = await engine.send(Large.run, value, key=key)
    await engine.call(Large.resolve, value, key=key)
    await engine.signal(handle.id, "signal", value)
    await engine.resolve_awakeable(await engine.call(Large.awakeable, key=key), value)
    return await handle.result()


@pytest.mark.long
@pytest.mark.parametrize("max_resident", [10_000, 0])
def test_the_largest_value_goes_wherever_values_go(tmp_path: Path, max_resident: int) -> None:
    async def main() -> None:
        async with Engine(
            tmp_path / "data", [Large(), Echo()], durability="os", max_resident=max_resident
        ) as engine:
            assert await see_through(engine, "k", LARGEST) == [LARGEST] * 7

    asyncio.run(main())


class Beyond(Workflow):
    """Tries to give away a byte too much in each way there is; answers with what it was told."""

    async def run(self, ctx: WorkflowContext) -> list[str]:
        value = bytes(LARGEST + 1)
        awakeable = ctx.awakeable(bytes)
        ways: list[Callable[[], Any]] = [
            lambda: ctx.run("make", bytes, LARGEST + 1, returns=bytes),
            lambda: ctx.set("state", value),
            lambda: ctx.promise("given", bytes).resolve(value),
            lambda: ctx.call(Echo.echo, value),
            lambda: ctx.send(Echo.echo, value),
            lambda: ctx.resolve_awakeable(awakeable.id, value),
        ]
        told = []
        for way in ways:
            with pytest.raises(InvalidInput) as refusal:
                await way()
            told.append(str(refusal.value))
        return [*told, await ctx.promise("id of the awakeable", str)]

    @handler
    async def end(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("id of the awakeable", str).resolve("ended")

    @handler
    async def result(self, ctx: WorkflowSharedContext) -> bytes:
        return bytes(LARGEST + 1)


PLACES = [
    "result of step 'make'",
    "state 'state'",
    "value of promise 'given'",
    "argument of Echo.echo",
    "argument of Echo.echo",
    "awakeable",
]


def test_a_byte_more_is_refused_in_a_handler_with_its_place_and_the_handler_goes_on(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "data", [Beyond(), Echo()], durability="os") as engine:
            running = await engine.send(Beyond.run, key="k")
            await engine.call(Beyond.end, key="k")
            *told, ended = await running.result()
            assert ended == "ended"
            for text, place in zip(told, PLACES, strict=True):
                assert place in text
                assert "33,554,433 bytes when encoded; the limit is 33,554,432 bytes" in text

    asyncio.run(main())


def test_a_byte_more_is_refused_to_who_asks_from_outside_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        value = bytes(LARGEST + 1)
        async with Engine(
            tmp_path / "data", [Large(), Beyond(), Echo()], durability="os"
        ) as engine:
            handle = await engine.send(Large.run, b"small", key="k")
            for ask, place in (
                (engine.call(Echo.echo, value), "argument of Echo.echo"),
                (engine.call(Beyond.result, key="k"), "result of Beyond.result"),
                (engine.send(Large.run, value, key="other"), "argument of Large.run"),
                (engine.signal(handle.id, "signal", value), "value of signal 'signal'"),
                (engine.resolve("Large.promise", value, key="k"), "promise"),
                (engine.set_state(Large, "k", {"state": value}), "state"),
            ):
                with pytest.raises(InvalidInput, match="the limit is 33,554,432") as refusal:
                    await ask
                assert place in str(refusal.value)
            await engine.call(Large.resolve, b"small", key="k")
            await engine.signal(handle.id, "signal", b"small")
            waits = await engine.call(Large.awakeable, key="k")
            with pytest.raises(InvalidInput, match=r"awakeable.* the limit is 33,554,432"):
                await engine.resolve_awakeable(waits, value)
            await engine.resolve_awakeable(waits, b"small")
            assert await handle.result() == [len(b"small")] * 7

    asyncio.run(main())


@pytest.mark.long
def test_many_large_values_on_a_slow_disk_take_the_memory_of_a_few(
    failing_calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTS_SYNC_MS", "100")
    path = tmp_path / "data"
    child = run_child("large_children:hoard", path, 10, library=failing_calls)
    # 20 values are 640 MiB. 64 MiB may be uncommitted, in the engine and in LMDB; two callers
    # have a value each, and so have two steps.
    assert int(succeeded(child)) < 420, f"{child.stdout} MiB"


@pytest.mark.long
def test_over_http_a_string_of_32_mib_comes_back_and_beyond_is_400_or_413(tmp_path: Path) -> None:
    async def main() -> None:
        async with Served(tmp_path / "data") as served:
            connection = Connection(served.port)
            text = "x" * LARGEST
            answer = await connection.ask("POST", "/Echo/echo", text)
            assert (answer.status, answer.value == text) == (200, True)
            answer = await connection.ask("POST", "/Echo/echo", text + "x")
            assert answer.status == 400
            assert "argument of Echo.echo is 33,554,433 bytes" in answer.value["message"]
            await connection.begin("POST", "/Echo/echo", "x" * DEFAULT_LIMITS.body_bytes)
            assert (await connection.answer()).status == 413
            connection.close()
            connection = Connection(served.port)
            assert (await connection.ask("POST", "/Echo/echo", "goes on")).value == "goes on"
            connection.close()

    asyncio.run(main())
