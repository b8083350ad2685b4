"""Eviction: what is suspended is closed, from the inside outwards, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from core_support import Driver

from perdure import NondeterminismError, WorkflowContext

never = asyncio.Event  # an event of the handler's own that nobody sets


def nothing() -> None:
    """What the steps of these tests do."""


def evicted(handler: Any) -> list[str]:
    """Start *handler*, evict it where it waits; the complaints. Nothing may be left to collect."""
    driver = Driver(handler)
    driver.start()
    complaints = driver.evict()
    assert driver.machine.loop.unfinished_tasks() == []
    del driver
    gc.collect()  # what is left over would run here, and pytest would see it fail
    return complaints


class Log:
    """Collects what clean-ups say, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def leaving(self, what: str) -> Any:
        try:
            yield
        finally:
            self.lines.append(what)


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
