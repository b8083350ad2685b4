"""Services that the tests of the harness are about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import perdure
from perdure import (
    Context,
    ObjectContext,
    RetryPolicy,
    WorkflowContext,
    WorkflowSharedContext,
)


@dataclass
class Receipt:
    number: int


class Payments(perdure.Service):
    @perdure.handler
    async def charge(self, ctx: Context, amount: int) -> Receipt:
        return Receipt(amount)

    @perdure.handler
    async def refund(self, ctx: Context, receipt: Receipt) -> None:
        await ctx.run("refund", lambda: None)


class Order(perdure.Workflow):
    """Charges, and waits two days for an approval."""

    def __init__(self) -> None:
        self.charged: list[int] = []

    async def charge(self, amount: int) -> Receipt:
        self.charged.append(amount)
        return Receipt(amount)

    async def run(self, ctx: WorkflowContext, amount: int) -> str:
        receipt = await ctx.run("charge card", self.charge, amount)
        approval = ctx.promise("approval", str)
        timeout = ctx.after(timedelta(hours=48))
        if await ctx.wait_first(approval, timeout) is timeout:
            return f"{receipt.number}: nobody approved"
        return f"{receipt.number}: approved by {await approval}"

    @perdure.handler
    async def approve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise("approval", str).resolve(name)


class Daily(perdure.Workflow):
    """Notes the time, a day after the other."""

    async def run(self, ctx: WorkflowContext, days: int) -> list[str]:
        noted = []
        for _ in range(days):
            await ctx.sleep(timedelta(days=1))
            noted.append(f"{ctx.now():%m-%d %H:%M}")
        return noted


class Approval(perdure.Workflow):
    """Waits for an answer without a timeout."""

    async def run(self, ctx: WorkflowContext) -> str:
        return await ctx.promise("approval", str)

    @perdure.handler
    async def approve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise("approval", str).resolve(name)


class Caller(perdure.Workflow):
    """Has others do the work."""

    async def run(self, ctx: WorkflowContext, amount: int) -> str:
        try:
            receipt = await ctx.call(Payments.charge, amount)
        except perdure.TerminalError as error:
            return f"failed: {error}"
        return f"receipt {receipt.number}"

    @perdure.handler
    async def order(self, ctx: WorkflowSharedContext, amount: int) -> str:
        return await ctx.call(Order.run, amount, key=f"of {ctx.key}")

    @perdure.handler
    async def by_name(self, ctx: WorkflowSharedContext) -> int:
        value = await ctx.call("Rates.eur", "usd", returns=int)
        ctx.send("Rates.log", value)
        return value


def fail() -> int:
    raise ValueError("no such account")


class Broken(perdure.Workflow):
    """Each handler fails in its way."""

    async def run(self, ctx: WorkflowContext) -> int:
        return await ctx.run("look up", fail)

    @perdure.handler
    async def at_once(self, ctx: WorkflowSharedContext) -> None:
        raise ValueError("in the handler")

    @perdure.handler
    async def calls_run(self, ctx: WorkflowSharedContext) -> int:
        return await ctx.call(Broken.run, key=f"of {ctx.key}")

    @perdure.handler
    async def three_times(self, ctx: WorkflowSharedContext) -> str:
        try:
            await ctx.run("look up", fail, retry=RetryPolicy(max_attempts=3))
        except perdure.TerminalError as error:
            return str(error)
        return "no error"

    @perdure.handler
    async def waits_for_nothing(self, ctx: WorkflowSharedContext) -> None:
        import asyncio

        await asyncio.get_running_loop().create_future()

    @perdure.handler
    async def declines(self, ctx: WorkflowSharedContext) -> None:
        raise perdure.TerminalError("declined", 402)


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, by: int) -> int:
        total: int = await ctx.get("total", int, default=0) + by
        ctx.set("total", total)
        await ctx.sleep(timedelta(hours=1))
        return total
