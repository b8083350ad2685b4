"""P12's handlers as perdure has them, through its bridge; _p12_direct.py has the same."""

from __future__ import annotations

import time

import perdure
import perdure.restate
from benchmarks._p12_steps import charge, intervals_ms


class BridgeSteps(perdure.Service):
    @perdure.handler
    async def run(self, ctx: perdure.Context, count: int) -> list[float]:
        moments = []
        for number in range(count):
            await ctx.run("charge", charge, number)
            moments.append(time.perf_counter())
        return intervals_ms(moments)


class BridgeWaits(perdure.Workflow):
    async def run(self, ctx: perdure.WorkflowContext, count: int) -> int:
        for number in range(count):
            await ctx.run("charge", charge, number)
        return await ctx.promise("end", int)

    @perdure.handler
    async def end(self, ctx: perdure.WorkflowSharedContext) -> None:
        await ctx.promise("end", int).resolve(1)


app = perdure.restate.app([BridgeSteps(), BridgeWaits()])
