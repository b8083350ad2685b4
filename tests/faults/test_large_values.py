"""Values of 32 MiB, wherever there are values; many at once; and a byte more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

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

VALUE_BYTES_MAX = 32 * 1024 * 1024
LARGEST = VALUE_BYTES_MAX - 5
"""Bytes that are encoded in 32 MiB: a head of five bytes says how many they are."""


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


async def as_argument(engine: Engine) -> object:
    return await engine.call(Echo.echo, bytes(LARGEST + 1))


async def as_result(engine: Engine) -> object:
    return await engine.call(Makes.result, LARGEST + 1)


async def as_step(engine: Engine) -> object:
    return await engine.call(Makes.step, LARGEST + 1)


class Makes(Service):
    @handler
    async def result(self, ctx: Context, size: int) -> bytes:
        return bytes(size)

    @handler
    async def step(self, ctx: Context, size: int) -> int:
        return len(await ctx.run("make", bytes, size, returns=bytes))


@pytest.mark.parametrize(
    ("ask", "place"),
    [
        (as_argument, "argument of Echo.echo"),
        (as_result, "result of Makes.result"),
        (as_step, "step 'make'"),
    ],
)
def test_a_byte_more_is_refused_and_the_place_is_named(
    tmp_path: Path, ask: Callable[[Engine], Awaitable[object]], place: str
) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "data", [Echo(), Makes()], durability="os") as engine:
            with pytest.raises(InvalidInput, match=r"33[,_]?554[,_]?43\d") as refusal:
                await ask(engine)
            assert place in str(refusal.value)
            assert await engine.call(Echo.echo, b"goes on") == b"goes on"

    asyncio.run(main())


MANY = """
import asyncio, resource, sys
from tests_large import Echo
import perdure

async def main():
    async with perdure.Engine(sys.argv[1], [Echo()], durability="fsync") as engine:
        value = bytes(8 * 1024 * 1024)
        for _ in range(4):
            sent = [engine.send(Echo.echo, value) for _ in range(16)]
            handles = await asyncio.gather(*sent)
            for handle in handles:
                assert len(await handle.result()) == len(value)
                await engine.purge(handle.id)

asyncio.run(main())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""

ECHO = """
import perdure

class Echo(perdure.Service):
    @perdure.handler
    async def echo(self, ctx: perdure.Context, value: bytes) -> bytes:
        return value
"""


@pytest.mark.long
def test_many_large_values_at_once_take_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "tests_large.py").write_text(ECHO)
    (tmp_path / "many.py").write_text(MANY)
    done = subprocess.run(
        [sys.executable, "many.py", str(tmp_path / "data")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 64 MiB may be uncommitted, in the engine and in LMDB; each of 16 callers has its value, too.
    assert int(done.stdout) < 1200, f"{done.stdout} MiB"
