"""What differs for a handler on Restate: each row of the page that says so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Plain, named
from worlds import World

from perdure import Context, TerminalError, WorkflowContext

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "restate.md"


async def _failure(act: Awaitable[Any]) -> Any:
    """What *act* gives, or class and code of its failure."""
    try:
        return await act
    except TerminalError as failure:
        return [type(failure).__name__, failure.code]


async def patched(ctx: WorkflowContext) -> Any:
    async def ask() -> bool:
        return ctx.patched("a change")

    return await _failure(ask())


async def attempt(ctx: WorkflowContext) -> Any:
    async def ask() -> int:
        return ctx.request.attempt

    return await _failure(ask())


async def idempotency_key(ctx: WorkflowContext) -> Any:
    async def other(other_ctx: Context) -> Any:
        return other_ctx.request.idempotency_key in ("k", None)

    name = await ctx.run("name", named, other)
    return await ctx.call(Plain.act, name, idempotency_key="k")


async def invocation_id(ctx: WorkflowContext) -> Any:
    return [ctx.invocation_id[:4], len(ctx.invocation_id)]


async def awakeable(ctx: WorkflowContext) -> Any:
    return ctx.awakeable().id.partition("_")[0]


async def completed_twice(ctx: WorkflowContext) -> Any:
    it = ctx.awakeable()
    await ctx.resolve_awakeable(it.id, 1)
    await it
    return await _failure(ctx.resolve_awakeable(it.id, 2))


async def rejected(ctx: WorkflowContext) -> Any:
    it = ctx.awakeable()
    await ctx.reject_awakeable(it.id, TerminalError("no", 418, {"a": "b"}))
    try:
        await it
    except TerminalError as failure:
        return [str(failure), failure.code, failure.metadata]


async def call(ctx: WorkflowContext) -> Any:
    return [repr(await ctx.call(Plain.echo, value)) for value in (float("inf"), {1})]


async def code(ctx: WorkflowContext) -> Any:
    async def fails(other_ctx: Context) -> None:
        raise TerminalError("odd", 70_000)

    return await _failure(ctx.call(Plain.act, await ctx.run("name", named, fails)))


REFUSED = ["NotSupportedOnRestate", 501]

ROWS: dict[str, tuple[Callable[[WorkflowContext], Awaitable[Any]], Any, Any]] = {
    "`ctx.patched`": (patched, True, REFUSED),
    "`ctx.request.attempt`": (attempt, 1, REFUSED),
    "`ctx.request.idempotency_key`": (idempotency_key, True, True),
    "`ctx.invocation_id`": (invocation_id, ["inv_", 30], ["inv_", 38]),
    "`ctx.awakeable`": (awakeable, "awk", "sign"),
    "`ctx.resolve_awakeable`, `ctx.reject_awakeable`": (
        completed_twice,
        ["AlreadyCompleted", 409],
        None,
    ),
    "`ctx.reject_awakeable`": (rejected, ["no", 418, {"a": "b"}], ["no", 418, {}]),
    "`ctx.call`, `ctx.send`": (call, ["inf", "{1}"], ["None", "[1]"]),
    "`TerminalError(code=…)`": (code, ["TerminalError", 70_000], ["TerminalError", 500]),
}
"""By the first column of the page: a handler, its result embedded, and on Restate."""

ELSEWHERE = {
    "`ctx.signal`",
    "`ctx.run` without `retry=`",
    "`ctx.run` with `retry=`",
    "`step.cancel()`, `asyncio.wait_for`, cancellation",
    "`ctx.now()`",
    "an attempt of a handler that fails",
    "`ctx.log`",
    "a handler that waits for nothing that can happen",
}
"""Of these, the other tests of this folder try what is the same."""


@pytest.mark.parametrize("row", ROWS)
def test_a_handler_sees_what_its_row_says(world: World, row: str) -> None:
    body, embedded, on_restate = ROWS[row]
    assert world.result(body) == (on_restate if world.on_restate else embedded)


def test_the_page_has_a_row_for_each_difference() -> None:
    _, _, section = PAGE.read_text("utf-8").partition("## What differs in handlers")
    cells = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    assert cells[0] == "member"
    assert set(cells[1:]) == {*ROWS, *ELSEWHERE}
