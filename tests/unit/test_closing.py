"""Eviction: what is suspended is closed, from the inside outwards, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from closing_support import Log, evicted, nothing

from perdure import WorkflowContext


def test_a_generator_that_waits_runs_its_finally_before_its_consumer() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            with log.leaving("generator"):
                await ctx.run("step", nothing)
                yield 1

        with log.leaving("handler"):
            async for _ in generate():
                pass

    assert evicted(handler) == []
    assert log.lines == ["generator", "handler"]


def test_nested_generators_and_coroutines_are_closed_from_the_inside() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def inner() -> AsyncGenerator[int, None]:
            with log.leaving("inner generator"):
                await ctx.run("step", nothing)
                yield 1

        async def between() -> int:
            with log.leaving("coroutine"):
                return await anext(inner(), 0)

        async def outer() -> AsyncGenerator[int, None]:
            with log.leaving("outer generator"):
                yield await between()

        with log.leaving("handler"):
            async for _ in outer():
                pass

    assert evicted(handler) == []
    assert log.lines == ["inner generator", "coroutine", "outer generator", "handler"]


def test_a_generator_at_a_yield_is_closed_after_its_consumer() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            with log.leaving("generator"):
                yield 1

        with log.leaving("handler"):
            async for _ in generate():
                await ctx.run("step", nothing)

    assert evicted(handler) == []
    assert log.lines == ["handler", "generator"]


def test_tasks_are_closed_last_made_first_each_with_its_generators() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def generate(name: str) -> AsyncGenerator[int, None]:
            with log.leaving(f"generator of {name}"):
                yield 1

        async def consume(name: str) -> None:
            with log.leaving(name):
                async for _ in generate(name):
                    await ctx.run(name, nothing)

        with log.leaving("handler"):
            async with asyncio.TaskGroup() as group:
                group.create_task(consume("a"))
                group.create_task(consume("b"))

    assert evicted(handler) == []
    assert log.lines == ["b", "generator of b", "a", "generator of a", "handler"]


def test_generators_of_a_task_that_has_ended_are_closed_last_begun_first() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        kept = []

        async def generate(name: str) -> AsyncGenerator[int, None]:
            with log.leaving(name):
                yield 1

        async def begin(name: str) -> None:
            kept.append(generate(name))
            await anext(kept[-1])

        await asyncio.gather(begin("a"), begin("b"))
        with log.leaving("handler"):
            await ctx.run("step", nothing)

    assert evicted(handler) == []
    assert log.lines == ["handler", "b", "a"]


def test_a_generator_handed_to_another_task_is_closed_where_it_waits() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            with log.leaving("generator"):
                yield 1
                await ctx.run("step", nothing)
                yield 2

        handed = generate()

        async def begin() -> None:
            await anext(handed)

        async def go_on() -> None:
            with log.leaving("second task"):
                await anext(handed)

        await asyncio.create_task(begin())
        await asyncio.create_task(go_on())

    assert evicted(handler) == []
    assert log.lines == ["generator", "second task"]


def test_a_finally_runs_in_the_context_of_its_task_as_the_current_task() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[tuple[str, str]] = []

    def look() -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append((variable.get(), task.get_name()))

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                look()

        async def work(name: str) -> None:
            token = variable.set(name)
            try:
                async for _ in generate():
                    await ctx.run(name, nothing)
            finally:
                look()
                variable.reset(token)
                variable.set("after")

        async with asyncio.TaskGroup() as group:
            group.create_task(work("a"), name="task a")
            group.create_task(work("b"), name="task b")

    assert evicted(handler) == []
    assert seen == [
        ("b", "task b"),
        ("after", "task b"),
        ("a", "task a"),
        ("after", "task a"),
    ]


def test_a_context_manager_made_of_a_generator_runs_its_exit() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        @contextlib.asynccontextmanager
        async def manager() -> AsyncIterator[None]:
            with log.leaving("manager"):
                yield

        async with manager(), manager():
            await ctx.run("step", nothing)

    assert evicted(handler) == []
    assert log.lines == ["manager", "manager"]


@pytest.mark.parametrize("where", ["enter", "exit"])
def test_a_context_manager_that_waits_itself_is_closed(where: str) -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        @contextlib.asynccontextmanager
        async def manager() -> AsyncIterator[None]:
            with log.leaving("manager"):
                if where == "enter":
                    await ctx.run("step", nothing)
                yield
                await ctx.run("step", nothing)

        with log.leaving("handler"):
            async with manager():
                pass

    assert evicted(handler) == []
    assert log.lines == ["manager", "handler"]


def test_a_generator_being_closed_by_its_consumer_is_closed() -> None:
    log = Log()

    async def handler(ctx: WorkflowContext) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                with log.leaving("clean-up"):
                    await ctx.run("step", nothing)

        with log.leaving("handler"):
            async with contextlib.aclosing(generate()) as generator:
                await anext(generator)

    assert evicted(handler) == []
    assert log.lines == ["clean-up", "handler"]
