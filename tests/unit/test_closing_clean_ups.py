"""Clean-ups while a handler is closed: what they may do, and what is reported of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from closing_support import Log, evicted, nothing
from core_support import Driver

from perdure import NondeterminismError, WorkflowContext

never = asyncio.Event  # an event of the handler's own that nobody sets


def test_a_finally_that_awaits_is_run_to_its_end_at_each_level() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def clean_up(name: str) -> None:
            try:
                await asyncio.sleep(0)
            finally:
                try:
                    await never().wait()
                finally:
                    log.lines.append(name)

        async def inner() -> None:
            try:
                await ctx.run("step", nothing)
            finally:
                await clean_up("inner")

        try:
            await inner()
        finally:
            await clean_up("outer")

    assert evicted(handler) == []
    assert log.lines == ["inner", "outer"]


def test_nested_task_groups_are_closed_however_deep() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def nest(depth: int) -> None:
            with log.leaving(str(depth)):
                async with asyncio.TaskGroup() as group:
                    if depth:
                        group.create_task(nest(depth - 1))
                    await ctx.run(f"step {depth}", nothing)

        await nest(10)

    assert evicted(handler) == []
    assert log.lines == [str(depth) for depth in range(11)]


def test_a_stack_of_task_groups_in_one_task_is_closed() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(10):
                stack.enter_context(log.leaving(str(number)))
                group = await stack.enter_async_context(asyncio.TaskGroup())
                group.create_task(never().wait())
            await ctx.run("step", nothing)

    assert evicted(handler) == []
    assert log.lines == [str(number) for number in reversed(range(10))]


def test_durable_operations_in_a_finally_end_it() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        try:
            await ctx.run("step", nothing)
        finally:
            log.lines.append("before")
            try:
                await ctx.run("compensate", nothing)
            except Exception:
                log.lines.append("swallowed")
            log.lines.append("after")

    assert evicted(handler) == []
    assert log.lines == ["before"]


@pytest.mark.parametrize(
    "clean_up",
    [
        lambda ctx: ctx.now(),
        lambda ctx: ctx.uuid4(),
        lambda ctx: ctx.set("a", 1),
        lambda ctx: ctx.after(1),
        lambda ctx: ctx.promise("p"),
        lambda ctx: asyncio.get_running_loop().call_later(1, nothing),
        lambda ctx: asyncio.create_task(asyncio.sleep(0)),
    ],
    ids=["now", "uuid4", "set", "after", "promise", "call_later", "create_task"],
)
def test_the_context_is_inert_while_it_is_closed(clean_up: Any) -> None:
    reached: list[str] = []

    async def handler(ctx: WorkflowContext) -> None:
        try:
            await ctx.run("step", nothing)
        finally:
            clean_up(ctx)
            reached.append("after")

    assert evicted(handler) == []
    assert reached == []


def test_a_finally_that_raises_is_reported_and_the_outer_ones_still_run() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def inner() -> None:
            try:
                await ctx.run("step", nothing)
            finally:
                raise ValueError("in the clean-up")

        with log.leaving("handler"):
            await inner()

    assert evicted(handler) == ["ValueError while being closed: in the clean-up"]
    assert log.lines == ["handler"]


def test_a_finally_that_raises_in_a_task_group_is_reported() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup():
            try:
                await ctx.run("step", nothing)
            finally:
                raise ValueError("in the clean-up")

    (complaint,) = evicted(handler)
    assert complaint.startswith("ExceptionGroup while being closed:")


def test_a_generator_that_yields_while_being_closed_is_closed_again() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            with log.leaving("generator"):
                for number in range(5):
                    with contextlib.suppress(GeneratorExit):
                        yield number

        async for _ in generate():
            await ctx.run("step", nothing)

    assert evicted(handler) == []
    assert log.lines == ["generator"]


@pytest.mark.parametrize("kind", ["coroutine", "generator"])
def test_what_never_gives_in_is_reported_with_its_line_and_left_alone(kind: str) -> None:
    rounds = 0
    stubborn = True

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            nonlocal rounds
            while True:
                rounds += 1
                try:
                    if kind == "generator":
                        yield 1
                    else:
                        await (asyncio.sleep(0) if rounds > 1 else ctx.run("step", nothing))
                except BaseException:
                    if not stubborn:
                        raise

        async for _ in generate():
            await ctx.run("step", nothing)

    (complaint,) = evicted(handler)
    assert "swallows GeneratorExit and goes on, 100 times over, at" in complaint
    assert complaint.endswith("handler.<locals>.generate")
    assert rounds <= 101
    stubborn = False  # or it would complain when the interpreter ends


def test_coroutines_that_were_to_be_awaited_later_are_dropped_in_silence() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        async def one(name: str) -> None:
            await ctx.run(name, nothing)

        for waiting in [one("a"), one("b")]:
            await waiting

    assert evicted(handler) == []


def test_coroutines_made_in_a_finally_are_dropped_in_silence() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        async def one(name: str) -> None:
            await ctx.run(name, nothing)

        try:
            await ctx.run("step", nothing)
        finally:
            await asyncio.gather(one("a"), one("b"))

    assert evicted(handler) == []


def test_a_coroutine_that_a_handler_forgets_to_await_is_still_warned_of() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        async def forgotten() -> None:
            """Never runs."""

        forgotten()  # type: ignore[unused-coroutine]
        await ctx.run("step", nothing)

    with pytest.warns(RuntimeWarning, match="forgotten' was never awaited"):
        evicted(handler)


def test_a_task_that_has_not_begun_is_closed_without_running() -> None:
    log = Log()

    async def first(ctx: WorkflowContext) -> None:
        await ctx.run("step", nothing)

    async def changed(ctx: WorkflowContext) -> None:
        async def child() -> None:
            log.lines.append("child")

        task = asyncio.create_task(child())
        await ctx.run("another step", nothing)
        await task

    driver = Driver(first)
    driver.start()
    with pytest.raises(NondeterminismError):
        driver.crash(changed)
    assert driver.evict() == []
    assert log.lines == []


def test_the_waiting_line_is_found_inside_a_generator() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            await ctx.run("step", nothing)
            yield 1

        async for _ in generate():
            pass

    driver = Driver(handler)
    driver.start()
    assert "in test_the_waiting_line_is_found_inside_a_generator.<locals>" in (
        driver.machine.waiting_line()
    )
    assert driver.machine.waiting_line().endswith("handler.<locals>.generate")
    driver.evict()
