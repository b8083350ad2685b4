"""What the soak asks of perdure, and its server: its arguments: directory, port, admin port."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta

import perdure
from perdure.http._server import run

SHORT = timedelta(seconds=5)


class Account(perdure.VirtualObject, idempotency_retention=SHORT):
    """A key for ever, with state of one size."""

    @perdure.handler
    async def add(self, ctx: perdure.ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total


class Order(perdure.Workflow, retention=SHORT, journal_retention=SHORT):
    """Steps, a timer that fires, a race between a promise and a timer, a call, a send."""

    async def run(self, ctx: perdure.WorkflowContext, text: str) -> str:
        priced = await ctx.run("price", _priced, text)
        await ctx.sleep(timedelta(milliseconds=20))
        approval = ctx.promise("approval", str)
        if await ctx.wait_first(approval, ctx.after(timedelta(minutes=5))) is not approval:
            return "nobody came"
        await ctx.call(Account.add, 1, key=ctx.key[-2:])
        # Under a key, for the result of a send without one is kept for an hour.
        soon = timedelta(milliseconds=50)
        ctx.send(Account.add, 1, key="all", delay=soon, idempotency_key=ctx.key)
        ctx.set("approved by", await approval)
        return await ctx.run("ship", _priced, priced)

    @perdure.handler
    async def approve(self, ctx: perdure.WorkflowSharedContext, name: str) -> None:
        await ctx.promise("approval", str).resolve(name)


async def _priced(text: str) -> str:
    return text.upper()


if __name__ == "__main__":
    engine = perdure.Engine(sys.argv[1], [Account(), Order()])
    port, admin_port = map(int, sys.argv[2:])
    sys.exit(run(engine, port=port, admin_port=admin_port, log_level=logging.WARNING))
