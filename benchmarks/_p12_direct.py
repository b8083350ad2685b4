"""P12's handlers as restate-sdk has them, an app for hypercorn; _p12_bridge.py has the same."""

from __future__ import annotations

import time

import restate

from benchmarks._p12_steps import charge, intervals_ms

steps = restate.Service("DirectSteps")
waits = restate.Workflow("DirectWaits")


@steps.handler("run")
async def run(ctx: restate.Context, count: int) -> list[float]:
    moments = []
    for number in range(count):
        await ctx.run_typed("charge", charge, number=number)
        moments.append(time.perf_counter())
    return intervals_ms(moments)


@waits.main("run")
async def wait(ctx: restate.WorkflowContext, count: int) -> int:
    for number in range(count):
        await ctx.run_typed("charge", charge, number=number)
    return await ctx.promise("end", type_hint=int)


@waits.handler("end")
async def end(ctx: restate.WorkflowSharedContext) -> None:
    await ctx.promise("end", type_hint=int).resolve(1)


app = restate.app([steps, waits])
