"""What the tests of SQL share: rows as dicts, and services that leave rows of every kind."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from perdure import (
    Context,
    Engine,
    ObjectContext,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._reading import Reading
from perdure.errors import InvalidInput


async def rows(engine: Reading, sql: str, **options: Any) -> list[dict[str, Any]]:
    """The rows of a query, by column."""
    result = await engine.query(sql, **options)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


async def row(engine: Engine, sql: str) -> dict[str, Any]:
    """The one row of a query."""
    (only,) = await rows(engine, sql)
    return only


async def column(engine: Engine, sql: str) -> list[Any]:
    """The one column of a query."""
    return [only for (only,) in (await engine.query(sql)).rows]


async def refusal(engine: Engine, sql: str, **options: Any) -> str:
    """Why a query is refused."""
    try:
        result = await engine.query(sql, **options)
    except InvalidInput as error:
        return str(error)
    raise AssertionError(f"not refused: {result}")


class Order(Workflow):
    """Keeps state, calls, sends, sleeps, waits."""

    async def run(self, ctx: WorkflowContext, item: dict[str, Any]) -> str:
        ctx.set("item", item)
        await ctx.run("charge", self.charge, 3)
        weight = await ctx.call(Scale.weigh, 2)
        ctx.send(Scale.weigh, weight, delay=timedelta(days=1))
        timer = ctx.after(timedelta(days=2))
        approval = ctx.promise("approval", str)
        await ctx.wait_first(approval, timer)
        return await approval

    async def charge(self, amount: int) -> int:
        return amount

    @handler
    async def approve(self, ctx: WorkflowSharedContext, who: str) -> None:
        await ctx.promise("approval", str).resolve(who)

    @handler
    async def refuse(self, ctx: WorkflowSharedContext, why: str) -> None:
        await ctx.promise("approval", str).reject(why)


class Scale(Service):
    """Weighs, or fails."""

    @handler
    async def weigh(self, ctx: Context, amount: int) -> int:
        return amount * 10

    @handler
    async def refuse(self, ctx: Context, why: str) -> None:
        raise TerminalError(why, 418)

    @handler
    async def fail(self, ctx: Context) -> None:
        raise ValueError("broken scale")

    @handler
    async def fail_in_a_step(self, ctx: Context) -> None:
        await ctx.run("break", self.break_down)

    async def weigh_once(self) -> int:
        return 1

    async def break_down(self) -> None:
        raise ValueError("broken spring")


class Pair(VirtualObject):
    """Moves between two values whose sum stays; `hold` keeps the key."""

    def __init__(self) -> None:
        self.holding = asyncio.Event()
        self.let_go = asyncio.Event()

    @handler
    async def begin(self, ctx: ObjectContext, amount: int) -> None:
        ctx.set("left", amount)
        ctx.set("right", 0)

    @handler
    async def move(self, ctx: ObjectContext, amount: int) -> None:
        ctx.set("left", await ctx.get("left", int, 0) - amount)
        ctx.set("right", await ctx.get("right", int, 0) + amount)

    @handler
    async def hold(self, ctx: ObjectContext) -> None:
        await ctx.run("hold", self._hold)

    async def _hold(self) -> None:
        self.holding.set()
        await self.let_go.wait()
