"""P8's handlers for Restate, an app for hypercorn; as in benchmarks/_p8_services.py."""

from __future__ import annotations

import restate

greeter = restate.Service("Greeter")
counter = restate.VirtualObject("Counter")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"hi {name}"


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


# A tenth faster than "bidi" for greet, and no slower for add beyond what rounds differ by.
app = restate.app([greeter, counter], protocol="request_response")
