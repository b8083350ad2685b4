"""A context belongs to its handler: used anywhere else it says so, and does nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from core_support import Driver

from perdure import InvalidInput, WorkflowContext
from perdure.serde import decode_failure

Body = Callable[[WorkflowContext], Awaitable[Any]]
Use = Callable[[WorkflowContext], object]


def nothing() -> None:
    """A step."""


async def waits(ctx: WorkflowContext) -> None:
    await ctx.run("step", nothing)


USES: dict[str, Use] = {
    "run": lambda ctx: ctx.run("another", nothing),
    "after": lambda ctx: ctx.after(1),
    "now": lambda ctx: ctx.now(),
    "uuid4": lambda ctx: ctx.uuid4(),
    "promise": lambda ctx: ctx.promise("p"),
    "set": lambda ctx: ctx.set("a", 1),
}


@pytest.fixture(params=USES)
def use(request: pytest.FixtureRequest) -> Use:
    """One of the things a context is used for."""
    return USES[request.param]


def context_of(body: Body = waits) -> tuple[Driver, WorkflowContext]:
    """A started invocation, and the context its handler was given."""
    contexts: list[WorkflowContext] = []

    async def handler(ctx: WorkflowContext) -> Any:
        contexts.append(ctx)
        return await body(ctx)

    driver = Driver(handler)
    driver.start()
    return driver, contexts[0]


@pytest.mark.parametrize("ended", ["returned", "evicted"])
def test_a_context_is_of_no_use_after_its_handler(use: Use, ended: str) -> None:
    driver, ctx = context_of()
    if ended == "returned":
        driver.answer(driver.named("step"))
    else:
        driver.evict()
    with pytest.raises(InvalidInput, match="used after its handler ended"):
        use(ctx)
    driver.evict()


def test_a_context_is_of_no_use_in_a_task_of_the_host(use: Use) -> None:
    driver, ctx = context_of()

    async def host() -> None:
        use(ctx)

    with pytest.raises(InvalidInput, match="used outside its own handler"):
        asyncio.run(host())
    driver.evict()


def test_a_context_is_of_no_use_in_a_thread(use: Use) -> None:
    driver, ctx = context_of()
    errors: list[Exception] = []

    def in_thread() -> None:
        try:
            use(ctx)
        except InvalidInput as error:
            errors.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert "used outside its own handler" in str(errors[0])
    driver.evict()


def test_a_context_is_of_no_use_in_another_handler(use: Use) -> None:
    driver, ctx = context_of()

    async def other(_: WorkflowContext) -> None:
        use(ctx)

    another, _ = context_of(other)
    assert another.failed()
    assert "in another handler" in str(decode_failure(another.output().payload or b""))
    assert driver.machine.state.value == "live"
    driver.evict()


def test_a_durable_future_can_not_be_awaited_elsewhere() -> None:
    made: list[Any] = []

    async def body(ctx: WorkflowContext) -> None:
        made.append(ctx.run("step", nothing))
        await made[0]

    driver, _ = context_of(body)

    async def host() -> None:
        await made[0]

    with pytest.raises(InvalidInput, match="used outside its own handler"):
        asyncio.run(host())
    driver.evict()


def test_tasks_that_the_handler_starts_may_use_its_context(use: Use) -> None:
    async def body(ctx: WorkflowContext) -> None:
        async def child() -> None:
            use(ctx)

        await asyncio.create_task(child())
        await waits(ctx)

    driver, _ = context_of(body)
    driver.finish()
    assert driver.completed
    driver.evict()
