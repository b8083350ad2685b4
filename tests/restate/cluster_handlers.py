"""Services whose steps leave a line each in the file ``STEPS``, for a cluster to invoke."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import perdure
from perdure import Context, WorkflowContext, WorkflowSharedContext

TIMER_S = 2.0


def leave_a_line(name: str) -> None:
    with Path(os.environ["STEPS"]).open("a") as file:
        file.write(f"{name}\n")


class Order(perdure.Workflow):
    """Waits for a person and for a timer, both at once."""

    async def run(self, ctx: WorkflowContext, item: str) -> str:
        for step in ("reserve", "charge", "announce"):
            await ctx.run(step, leave_a_line, f"{ctx.key} {step}")
        timer = asyncio.create_task(asyncio.sleep(TIMER_S))
        ctx.set("waiting", True)
        name = await ctx.promise("approval", str)
        await timer
        await ctx.run("ship", leave_a_line, f"{ctx.key} ship")
        return f"{item}, approved by {name}"

    @perdure.handler
    async def approve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise("approval", str).resolve(name)

    @perdure.handler
    async def is_waiting(self, ctx: WorkflowSharedContext) -> bool:
        return await ctx.get("waiting", bool, False)


class Parcels(perdure.Service):
    @perdure.handler
    async def deliver(self, ctx: Context, name: str) -> str:
        await asyncio.sleep(TIMER_S)
        await ctx.run("deliver", leave_a_line, f"parcel {name}")
        return name

    @perdure.handler
    async def weigh(self, ctx: Context, number: int) -> int:
        return number * 100


services = [Order(), Parcels()]
