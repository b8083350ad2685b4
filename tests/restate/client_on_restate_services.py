"""The services of client_support.py once more, written for restate-sdk, without perdure."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import restate
from restate.exceptions import TerminalError
from restate.serde import BytesSerde, JsonSerde

desk = restate.Service("Desk")
counter = restate.VirtualObject("Counter")
approval = restate.Workflow("Approval")
_ids: list[str] = []
_calls: list[int] = []


@desk.handler()
async def copy(ctx: restate.Context, document: dict[str, Any]) -> dict[str, Any]:
    return document


@desk.handler()
async def nothing(ctx: restate.Context) -> None: ...


@desk.handler()
async def maybe(ctx: restate.Context, text: Any) -> Any:
    return text


@desk.handler(
    accept="*/*",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def raw(ctx: restate.Context, content: bytes) -> bytes:
    return content[::-1]


@desk.handler()
async def fail(ctx: restate.Context, code: int) -> None:
    raise TerminalError("no tea", code, {"shop": "closed"})


@desk.handler("failAs")
async def fail_as(ctx: restate.Context, kind: str) -> None:
    raise TerminalError("cancelled", 409, {"shop": "closed", "perdure.kind": kind})


@desk.handler()
async def stumble(ctx: restate.Context) -> None:
    raise ValueError("odd")


@desk.handler()
async def header(ctx: restate.Context, name: str) -> str | None:
    return ctx.request().headers.get(name)


@desk.handler()
async def count(ctx: restate.Context) -> int:
    return await ctx.run_typed("count", _count)


def _count() -> int:
    _calls.append(1)
    return len(_calls)


@desk.handler(inactivity_timeout=timedelta(0))
async def wait(ctx: restate.Context) -> str:
    """Waits for a signal, suspended."""
    return await ctx.signal("go", JsonSerde())


@desk.handler()
async def nap(ctx: restate.Context, seconds: float) -> str:
    """Waits for a timer, running, behind a step."""
    await ctx.run_typed("lie down", _lie_down)
    await ctx.sleep(timedelta(seconds=seconds), name="nap")
    return "awake"


def _lie_down() -> None: ...


@desk.handler()
async def ask(ctx: restate.Context) -> str:
    identity, value = ctx.awakeable(type_hint=str)
    if identity not in _ids:
        _ids.append(identity)
    return await value


@desk.handler("ids")
async def the_ids(ctx: restate.Context) -> list[str]:
    return _ids


@desk.handler("callsAway")
async def calls_away(ctx: restate.Context, key: str) -> int:
    with contextlib.suppress(TerminalError):
        await ctx.run_typed("lose", _lose)
    ctx.object_send(add, key, 2, send_delay=timedelta(hours=1))
    return await ctx.object_call(add, key, 3)


def _lose() -> None:
    raise TerminalError("lost", 410)


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@counter.handler()
async def hold(ctx: restate.ObjectContext, seconds: float) -> None:
    await ctx.sleep(timedelta(seconds=seconds))


@counter.handler()
async def keep(ctx: restate.ObjectContext) -> None:
    """Keeps values of every form that the bridge writes, and one of somebody else's."""
    ctx.set("json", {"a": [1, None]})
    ctx.set("none", b"null", BytesSerde())
    ctx.set("cbor", b"\xd9\xd9\xf7\x42\x00\xff", BytesSerde())
    ctx.set("text", b"tea: green", BytesSerde())
    ctx.set("bytes", b"\xff\xfe", BytesSerde())


@counter.handler(kind="shared")
async def key_of(ctx: restate.ObjectSharedContext) -> str:
    return ctx.key()


@approval.main()
async def run(ctx: restate.WorkflowContext, document: dict[str, Any]) -> Any:
    ctx.set("title", document["title"])
    return await ctx.promise("decision").value()


@approval.handler()
async def title(ctx: restate.WorkflowSharedContext) -> str | None:
    return await ctx.get("title", type_hint=str)


@approval.handler()
async def decide(ctx: restate.WorkflowSharedContext, decision: dict[str, Any]) -> None:
    await ctx.promise("decision", type_hint=dict).resolve(decision)


@approval.handler()
async def refuse(ctx: restate.WorkflowSharedContext, reason: str) -> None:
    await ctx.promise("decision").reject(reason, 499)


@approval.handler()
async def reject(ctx: restate.WorkflowSharedContext) -> None:
    """Rejects the promise with NotFound("nope"), as the bridge does."""
    rejection = b"\0\x84hNotFounddnope\x19\x01\x94\xa0"
    await ctx.promise("decision", BytesSerde()).resolve(rejection)


app = restate.app([desk, counter, approval])
