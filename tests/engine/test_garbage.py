"""What is over goes at once: nothing of perdure's is left to the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, scheduler_of, until, until_idle
from primitive_support import Body, Primitive

from perdure import RetryPolicy, WorkflowContext

MANY = 10


class Document:
    """Something large."""

    title = "a title"


async def nothing() -> None:
    await asyncio.sleep(0)


async def completes(ctx: WorkflowContext) -> None:
    await ctx.run("step", nothing)
    await ctx.sleep(0.001)
    await asyncio.sleep(0.001)


async def cancels_waits(ctx: WorkflowContext) -> None:
    for wait in (ctx.promise("never"), ctx.after(1000), ctx.run("slow", asyncio.sleep, 60)):
        try:
            async with asyncio.timeout(0.001):
                await wait
        except TimeoutError:
            pass


async def races(ctx: WorkflowContext) -> None:
    await ctx.wait_first(ctx.run("step", nothing), ctx.after(1000), ctx.promise("never"))


async def leaves_tasks(ctx: WorkflowContext) -> None:
    task = asyncio.create_task(asyncio.sleep(1000))
    await ctx.run("step", nothing)
    assert not task.done()


async def waits_for_timer(ctx: WorkflowContext) -> None:
    await ctx.run("step", nothing)
    await asyncio.sleep(1000)


async def waits_for_promise(ctx: WorkflowContext) -> None:
    await ctx.run("step", nothing)
    await ctx.promise("never")


def left(place: Place, body: Body, **options: Any) -> Counter[str]:
    """Run MANY of *body*; what of perdure's the garbage collector then finds, by type."""

    async def main() -> Counter[str]:
        async with place.engine(Primitive(body), **options) as engine:
            await engine.send(Primitive.run, key="warm")
            await until_idle_or_done(engine)
            gc.collect()
            gc.disable()
            for number in range(MANY):
                await engine.send(Primitive.run, key=str(number))
            await until_idle_or_done(engine)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return Counter(
                type(item).__qualname__
                for item in gc.garbage
                if type(item).__module__.startswith("perdure")
            )

    async def until_idle_or_done(engine: Any) -> None:
        for _ in range(200):
            await asyncio.sleep(0.001)
            await until_idle(engine)
            if not scheduler_of(engine).residents.by_id:
                return

    try:
        return run(main())
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("body", [completes, cancels_waits, races, leaves_tasks])
def test_nothing_of_what_has_completed_is_left(resident_place: Place, body: Body) -> None:
    assert left(resident_place, body) == {}


@pytest.mark.parametrize("body", [waits_for_timer, waits_for_promise])
def test_nothing_of_what_is_evicted_is_left(resident_place: Place, body: Body) -> None:
    assert left(Place(resident_place.path, 0), body) == {}


def test_nothing_of_a_failed_attempt_is_left(resident_place: Place) -> None:
    quiet_log()

    async def fails(ctx: WorkflowContext) -> None:
        await ctx.run("step", nothing)
        raise ValueError("on purpose")

    assert left(resident_place, fails, default_retry=RetryPolicy(max_attempts=1)) == {}


def test_a_steps_function_is_not_kept_with_what_it_has_closed_over(resident_place: Place) -> None:
    documents: list[weakref.ref[Document]] = []

    async def closes_over(ctx: WorkflowContext) -> None:
        document = Document()
        documents.append(weakref.ref(document))
        await ctx.run("title", lambda: document.title)

    async def main() -> None:
        async with resident_place.engine(Primitive(closes_over)) as engine:
            await engine.submit(Primitive.run, key="k")
            await until(lambda: documents[0]() is None, "its end")

    run(main())
