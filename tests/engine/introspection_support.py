"""What the tests of introspection share: a few services, and the loop's longest turn."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from perdure import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

T = TypeVar("T")

LOOP_TURN_MAX_S = 0.010
"""5 ms at the most are promised; this leaves room for a machine that is slow for a moment."""


class Gate(Workflow):
    """Waits until it is let go on."""

    async def run(self, ctx: WorkflowContext, value: int) -> int:
        ctx.set("value", value)
        return value + await ctx.promise("go", int)

    @handler
    async def go(self, ctx: WorkflowSharedContext, more: int) -> None:
        await ctx.promise("go", int).resolve(more)

    @handler
    async def refuse(self, ctx: WorkflowSharedContext, why: str) -> None:
        await ctx.promise("go", int).reject(why)

    @handler
    async def watch(self, ctx: WorkflowSharedContext) -> int:
        return await ctx.promise("go", int)


class Echo(Service):
    """Ends at once, or fails whenever it is tried."""

    @handler
    async def say(self, ctx: Context, value: int) -> int:
        return value

    @handler
    async def fail(self, ctx: Context) -> None:
        raise ValueError("broken")


class Counter(VirtualObject):
    """Counts; `hold` keeps the key for a while."""

    def __init__(self) -> None:
        self.holding = asyncio.Event()
        self.let_go = asyncio.Event()

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total

    @handler
    async def total(self, ctx: ObjectSharedContext) -> int:
        return await ctx.get("total", int, 0)

    @handler
    async def hold(self, ctx: ObjectContext) -> None:
        await ctx.run("hold", self._hold)

    async def _hold(self) -> None:
        self.holding.set()
        await self.let_go.wait()


async def longest_turn_s(asked: Awaitable[T]) -> tuple[T, float, int]:
    """The answer, the longest turn of the loop meanwhile, and how many turns there were.

    In seconds that this thread has computed: what else the machine does is not counted.
    """
    longest, turns = 0.0, 0
    task: asyncio.Future[Any] = asyncio.ensure_future(asked)
    # What a collection of garbage takes depends on what the tests before have left.
    gc.collect()
    gc.disable()
    try:
        before = time.thread_time()
        while not task.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, before = max(longest, now - before), now
            turns += 1
    finally:
        gc.enable()
    return task.result(), longest, turns
