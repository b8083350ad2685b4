"""The services of http_support.py once more, for a real Restate to compare with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate
from restate.exceptions import TerminalError
from restate.serde import BytesSerde

greeter = restate.Service("Greeter")
counter = restate.VirtualObject("Counter")
signup = restate.Workflow("Signup")
waiter = restate.Service("Waiter")
_ids: list[str] = []


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"hi {name}"


@greeter.handler()
async def untyped(ctx: restate.Context, value: Any) -> Any:
    return value


@greeter.handler("void")
async def nothing(ctx: restate.Context, name: str) -> None: ...


@greeter.handler()
async def noargs(ctx: restate.Context) -> str:
    return "noargs"


@greeter.handler(
    accept="*/*",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def raw(ctx: restate.Context, content: bytes) -> bytes:
    return content[::-1]


@greeter.handler()
async def price(ctx: restate.Context, item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "price": item["price"] * 2}


@greeter.handler()
async def fail(ctx: restate.Context, code: int) -> None:
    raise TerminalError("my msg", code or 500, {"k": "v"} if code else None)


@greeter.handler()
async def headers(ctx: restate.Context) -> dict[str, str]:
    return dict(ctx.request().headers)


@greeter.handler(ingress_private=True)
async def secret(ctx: restate.Context) -> None: ...


@greeter.handler()
async def nap(ctx: restate.Context, seconds: float) -> str:
    await ctx.sleep(timedelta(seconds=seconds))
    return "awake"


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@counter.handler(kind="shared")
async def total(ctx: restate.ObjectSharedContext) -> int:
    return await ctx.get("total", type_hint=int) or 0


@signup.main()
async def run(ctx: restate.WorkflowContext, name: str) -> str:
    ctx.set("status", "waiting")
    return f"{name}:{await ctx.promise('approval', type_hint=str).value()}"


@signup.handler()
async def approve(ctx: restate.WorkflowSharedContext, answer: str) -> str:
    await ctx.promise("approval", type_hint=str).resolve(answer)
    return "resolved"


@signup.handler()
async def refuse(ctx: restate.WorkflowSharedContext, reason: str) -> None:
    await ctx.promise("approval", type_hint=str).reject(reason, 499)


@signup.handler()
async def peek(ctx: restate.WorkflowSharedContext) -> str | None:
    return await ctx.promise("approval", type_hint=str).peek()


@waiter.handler()
async def wait(ctx: restate.Context) -> str:
    identity, value = ctx.awakeable(type_hint=str)
    if identity not in _ids:
        _ids.append(identity)
    return await value


@waiter.handler()
async def waiting(ctx: restate.Context) -> list[str]:
    return _ids


app = restate.app([greeter, counter, signup, waiter])
