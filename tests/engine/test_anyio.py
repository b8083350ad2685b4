"""anyio in a handler: its task groups, cancel scopes and streams outlive the engine too."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.abc
from engine_support import Place
from primitive_support import durable

from perdure import TerminalError, WorkflowContext


def echo(value: str) -> str:
    return value


def test_a_task_group_waits_for_all(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = []

        async def wait(name: str) -> None:
            seen.append(await ctx.promise(name))

        async with anyio.create_task_group() as group:
            group.start_soon(wait, "a")
            group.start_soon(wait, "b")
        return seen

    assert durable(place, body, "b", "a") == ["value of b", "value of a"]


def test_a_task_group_waits_for_a_task_to_have_started(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        async def serve(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
            task_status.started(await ctx.promise("a"))
            await ctx.promise("b")

        started: Any = None
        async with anyio.create_task_group() as group:
            started = await group.start(serve)
        return [started]

    assert durable(place, body, "a", "b") == ["value of a"]


def test_a_failure_in_a_task_group_cancels_the_others(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        seen: list[str] = []

        async def fail() -> None:
            await ctx.promise("a")
            raise TerminalError("no")

        async def clean_up(name: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    seen.append(await ctx.run(f"clean up {name}", echo, name))

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(clean_up, "x")
                group.start_soon(fail)
                group.start_soon(clean_up, "y")
        except* TerminalError as failures:
            seen.append(str(failures.exceptions[0]))
        return seen

    seen = durable(place, body, "a")
    assert sorted(seen[:-1]) == ["x", "y"]
    assert seen[-1] == "no"


def test_move_on_after(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        promise = ctx.promise("a")
        with anyio.move_on_after(10) as scope:
            await promise
        return [scope.cancelled_caught, await promise]

    assert durable(place, body, 10, "a") == [True, "value of a"]


def test_fail_after(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            with anyio.fail_after(10):
                await ctx.promise("a")
        except TimeoutError:
            return "timed out"
        return "in time"

    assert durable(place, body, 9, 1) == "timed out"


def test_a_scope_cancelled_from_another_task(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[bool]:
        scope = anyio.CancelScope()

        async def cancel() -> None:
            await ctx.promise("a")
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(cancel)
            with scope:
                await ctx.promise("b")
        return [scope.cancel_called, scope.cancelled_caught]

    assert durable(place, body, "a") == [True, True]


def test_a_scope_cancels_again_what_swallows_its_cancellation(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        swallowed = 0
        with anyio.move_on_after(10) as scope:
            while swallowed < 3:
                try:
                    await ctx.promise(f"never {swallowed}")
                except asyncio.CancelledError:
                    swallowed += 1
            await ctx.promise("not reached")
        return [swallowed, scope.cancelled_caught, await ctx.promise("a")]

    assert durable(place, body, 10, "a") == [3, True, "value of a"]


def test_a_shielded_step_is_not_cancelled_again_by_the_scope_around_it(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = []
        with anyio.move_on_after(10):
            try:
                await ctx.promise("never")
            finally:
                with anyio.CancelScope(shield=True):
                    seen.append(await ctx.promise("a"))
        return seen

    assert durable(place, body, 10, "a") == ["value of a"]


def test_a_cancelled_scope_waits_for_a_durable_clean_up_of_a_child(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = []

        async def child() -> None:
            try:
                await ctx.promise("never")
            finally:
                seen.append(await ctx.promise("a"))

        with anyio.move_on_after(10) as scope:
            # asyncio's group does not leave before its children, however often it is cancelled.
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
        return [*seen, scope.cancelled_caught]

    assert durable(place, body, 10, "a") == ["value of a", True]


def test_event_and_condition(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        event = anyio.Event()
        condition = anyio.Condition()
        seen: list[str] = []

        async def wait() -> None:
            await event.wait()
            seen.append("event")
            async with condition:
                await condition.wait()
                seen.append("condition")

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await ctx.promise("a")
            event.set()
            await ctx.promise("b")
            async with condition:
                condition.notify()
        return seen

    assert durable(place, body, "a", "b") == ["event", "condition"]


def test_a_memory_object_stream(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        send, receive = anyio.create_memory_object_stream[Any](0)
        seen: list[Any] = []

        async def supply() -> None:
            async with send:
                for name in "ab":
                    await send.send(await ctx.promise(name))

        async with anyio.create_task_group() as group:
            group.start_soon(supply)
            async with receive:
                seen += [item async for item in receive]
        return seen

    assert durable(place, body, "a", "b") == ["value of a", "value of b"]


def test_semaphore_and_limiter(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        semaphore, limiter = anyio.Semaphore(1), anyio.CapacityLimiter(1)
        seen: list[str] = []

        async def limited(name: str) -> None:
            async with semaphore, limiter:
                seen.append(f"{name} in")
                await ctx.promise(name)

        async with anyio.create_task_group() as group:
            group.start_soon(limited, "a")
            group.start_soon(limited, "b")
        return seen

    assert durable(place, body, "b", "a") == ["a in", "b in"]
