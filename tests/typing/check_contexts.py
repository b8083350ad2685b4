"""What type checkers make of steps, promises and state asked for by name.

Nothing runs this module: mypy and pyright check it, and that what is ignored here is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from perdure import DurableFuture, DurablePromise, Saga, WorkflowContext
from perdure.futures import PendingType

if TYPE_CHECKING:

    def count(text: str, start: int = 0) -> int: ...

    async def fetch(url: str) -> bytes: ...

    untyped: Callable[..., Any] = print

    async def steps_have_the_type_of_their_function(ctx: WorkflowContext) -> None:
        assert_type(ctx.run("count", count, "a"), DurableFuture[int])
        assert_type(ctx.run("fetch", fetch, "http://a", timeout=timedelta(1)), DurableFuture[bytes])
        assert_type(await ctx.run("fetch", fetch, "http://a"), bytes)
        assert_type(ctx.run("lambda", lambda: "text"), DurableFuture[str])

    async def returns_wins_over_the_annotation(ctx: WorkflowContext) -> None:
        assert_type(ctx.run("count", count, "a", returns=bool), DurableFuture[bool])
        assert_type(ctx.run("untyped", untyped, returns=list[int]), DurableFuture[list[int]])
        _either: Any = await ctx.run("untyped", untyped, returns=int | None)

    async def arguments_of_a_step_are_checked(ctx: WorkflowContext) -> None:
        ctx.run("count", count, 7)  # type: ignore[arg-type]
        ctx.run("fetch", fetch)  # type: ignore[call-arg, arg-type]

    async def promises_have_the_type_they_were_asked_with(ctx: WorkflowContext) -> None:
        promise = ctx.promise("number", int)
        assert_type(promise, DurablePromise[int])
        assert_type(await promise, int)
        assert_type(await promise.peek(), int | PendingType)
        assert_type(ctx.promise("anything"), DurablePromise[Any])
        _either: DurablePromise[Any] = ctx.promise("either", int | None)

    async def state_has_the_type_it_was_asked_with(ctx: WorkflowContext) -> None:
        assert_type(await ctx.get("n", int), int | None)
        assert_type(await ctx.get("n", int, 0), int)
        assert_type(await ctx.get("n", int, ""), int | str)
        names = await ctx.get("names", list[str], [])
        assert_type(names, list[str])
        ages = await ctx.get("ages", dict[str, int], {})
        assert_type(ages, dict[str, int])
        assert_type(await ctx.get("n"), Any)
        assert_type(await ctx.get("n", default=0), Any)
        _either: int | None = await ctx.get("n", int | None, 0)

    async def steps_of_a_saga_have_the_type_of_their_action(ctx: WorkflowContext) -> None:
        async with Saga(ctx) as saga:
            assert_type(saga.step("count", count, "a", undo=print), DurableFuture[int])
            assert_type(await saga.step("fetch", fetch, "http://a", undo=print), bytes)
            assert_type(saga.step("b", count, "a", undo=print, returns=bool), DurableFuture[bool])
            _either: Any = saga.step("either", count, "a", undo=print, returns=int | None)
            saga.step("wrong", count, 3, undo=print)  # type: ignore[arg-type]
            saga.add("count", count, "a")

    async def futures_are_awaitable_in_all_of_asyncio(ctx: WorkflowContext) -> None:
        step, timer = ctx.run("count", count, "a"), ctx.after(1)
        assert_type(await asyncio.gather(step, timer), tuple[int, None])
        assert_type(await asyncio.wait_for(step, 1), int)
        assert_type(await asyncio.shield(step), int)
