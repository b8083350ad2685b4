"""The primitives of asyncio in a handler outlive the engine: it restarts while each one waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import ManualClock, Place, run, until_idle
from primitive_support import Primitive, durable

from perdure import TerminalError, WorkflowContext


def echo(value: str) -> str:
    return value


async def awaiting(ctx: WorkflowContext, name: str) -> Any:
    return await ctx.promise(name)


def test_sleep(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(10)
        return [loop.time() - start]

    assert durable(place, body, 9, 1) == [10]


def test_gather(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        return list(await asyncio.gather(*(awaiting(ctx, name) for name in "abc")))

    expected = ["value of a", "value of b", "value of c"]
    assert durable(place, body, "c", "a", "b") == expected


def test_gather_of_durable_futures(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        step = ctx.run("step", echo, "stepped")
        return list(await asyncio.gather(ctx.promise("a"), step, ctx.after(5)))

    assert durable(place, body, "a", 5) == ["value of a", "stepped", None]


def test_gather_collects_failures(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        async def fail() -> None:
            await ctx.sleep(1)
            raise TerminalError("no")

        results = await asyncio.gather(fail(), awaiting(ctx, "a"), return_exceptions=True)
        return [str(result) for result in results]

    assert durable(place, body, 1, "a") == ["no", "value of a"]


def test_wait_for_the_first_completed(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        tasks = {asyncio.create_task(awaiting(ctx, name), name=name) for name in "ab"}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.get_name() for task in [*done, *pending]]

    assert durable(place, body, "b") == ["b", "a"]


def test_wait_for_the_first_completed_of_durable_futures(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[bool]:
        promise, timer = ctx.promise("a"), ctx.after(10)
        waited: set[Any] = {promise, timer}
        done, pending = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return [done == {promise}, pending == {timer}]

    assert durable(place, body, 5, "a") == [True, True]


def test_wait_for_the_first_exception(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        async def fail() -> None:
            await ctx.promise("b")
            raise TerminalError("no")

        names = {"a": awaiting(ctx, "a"), "b": fail(), "c": awaiting(ctx, "c")}
        tasks = [asyncio.create_task(made, name=name) for name, made in names.items()]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return [sorted(t.get_name() for t in done), [t.get_name() for t in pending]]

    assert durable(place, body, "a", "b") == [["a", "b"], ["c"]]


def test_wait_until_its_timeout(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        tasks = [asyncio.create_task(awaiting(ctx, name), name=name) for name in "ab"]
        done, pending = await asyncio.wait(tasks, timeout=10)
        return [[t.get_name() for t in done], [t.get_name() for t in pending]]

    assert durable(place, body, "a", 10) == [["a"], ["b"]]


def test_wait_for_that_times_out(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        promise = ctx.promise("a")
        try:
            await asyncio.wait_for(promise, 10)
        except TimeoutError:
            return ["timed out", await promise]
        return []

    assert durable(place, body, 10, "a") == ["timed out", "value of a"]


def test_wait_for_that_is_in_time(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await asyncio.wait_for(awaiting(ctx, "a"), 10)

    assert durable(place, body, 5, "a") == "value of a"


def test_wait_for_that_is_in_time_ends_its_timer(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await asyncio.wait_for(ctx.after(1), 10)
        await ctx.promise("a")

    clock = ManualClock()

    async def main() -> list[str]:
        async with place.engine(Primitive(body), clock=clock) as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_idle(engine)
            clock.advance(1)
            await until_idle(engine)
            return [str(each) for each in (await engine.describe(handle.id)).waiting_on]

    assert run(main()) == ["promise 'a'"]


@pytest.mark.parametrize("absolute", [False, True], ids=["timeout", "timeout_at"])
def test_timeout_that_expires(place: Place, absolute: bool) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        when = asyncio.get_running_loop().time() + 10
        scope = asyncio.timeout_at(when) if absolute else asyncio.timeout(10)
        try:
            async with scope:
                await ctx.promise("a")
        except TimeoutError:
            return [scope.expired(), asyncio.get_running_loop().time() == when]
        return []

    assert durable(place, body, 9, 1) == [True, True]


def test_timeout_that_is_rescheduled(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        async with asyncio.timeout(10) as scope:
            seen = [await ctx.promise("a")]
            scope.reschedule(asyncio.get_running_loop().time() + 100)
            seen.append(await ctx.promise("b"))
        return seen

    assert durable(place, body, 5, "a", 50, "b") == ["value of a", "value of b"]


def test_a_task_group_waits_for_all(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(awaiting(ctx, name)) for name in "ab"]
        return [task.result() for task in tasks]

    assert durable(place, body, "b", "a") == ["value of a", "value of b"]


def test_a_failure_in_a_task_group_cancels_the_others(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        seen: list[str] = []

        async def fail() -> None:
            await ctx.promise("a")
            raise TerminalError("no")

        async def clean_up(name: str) -> None:
            try:
                await ctx.sleep(1000)
            except asyncio.CancelledError:
                seen.append(await ctx.run(f"clean up {name}", echo, name))
                raise

        try:
            async with asyncio.TaskGroup() as group:
                for made in (clean_up("x"), fail(), clean_up("y")):
                    group.create_task(made)
        except* TerminalError as failures:
            seen.append(str(failures.exceptions[0]))
        return seen

    seen = durable(place, body, 1, "a")
    assert sorted(seen[:-1]) == ["x", "y"]
    assert seen[-1] == "no"


def test_shield_keeps_what_it_shields_from_a_timeout(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        inner = asyncio.create_task(awaiting(ctx, "a"))
        try:
            await asyncio.wait_for(asyncio.shield(inner), 10)
        except TimeoutError:
            return ["timed out", inner.done(), await inner]
        return []

    assert durable(place, body, 10, "a") == ["timed out", False, "value of a"]


def test_event(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        event = asyncio.Event()
        seen: list[str] = []

        async def wait(name: str) -> None:
            await event.wait()
            seen.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(wait("x"))
            group.create_task(wait("y"))
            await ctx.promise("a")
            event.set()
        return seen

    assert durable(place, body, "a") == ["x", "y"]


def test_lock(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        lock = asyncio.Lock()
        seen: list[str] = []

        async def locked(name: str) -> None:
            async with lock:
                seen.append(f"{name} in")
                await ctx.promise(name)
                seen.append(f"{name} out")

        await asyncio.gather(locked("a"), locked("b"))
        return seen

    assert durable(place, body, "b", "a") == ["a in", "a out", "b in", "b out"]


def test_queue(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)
        taken: list[Any] = []

        async def take() -> None:
            while (item := await queue.get()) is not None:
                taken.append(item)
                queue.task_done()

        taker = asyncio.create_task(take())
        for name in "ab":
            await queue.put(await ctx.promise(name))
            await queue.put(name)
        await queue.join()
        await queue.put(None)
        await taker
        return taken

    assert durable(place, body, "a", "b") == ["value of a", "a", "value of b", "b"]


@pytest.mark.parametrize("kind", [asyncio.Semaphore, asyncio.BoundedSemaphore])
def test_semaphore(place: Place, kind: type[asyncio.Semaphore]) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        semaphore = kind(2)
        begun: list[str] = []

        async def limited(name: str) -> None:
            async with semaphore:
                begun.append(name)
                await ctx.promise(name)
                begun.append(name.upper())

        await asyncio.gather(*(limited(name) for name in "abc"))
        return begun

    assert durable(place, body, "b", "a", "c") == ["a", "b", "B", "c", "A", "C"]


def test_condition(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        condition = asyncio.Condition()
        items: list[str] = []

        async def supply(name: str) -> None:
            value = await ctx.promise(name)
            async with condition:
                items.append(value)
                condition.notify_all()

        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(supply(name))
            async with condition:
                await condition.wait_for(lambda: len(items) == 2)
                return list(items)

    assert durable(place, body, "b", "a") == ["value of b", "value of a"]


def test_barrier(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        barrier = asyncio.Barrier(2)

        async def meet(name: str) -> list[Any]:
            await ctx.promise(name)
            return [name, await barrier.wait()]

        return list(await asyncio.gather(meet("a"), meet("b")))

    assert durable(place, body, "b", "a") == [["a", 1], ["b", 0]]


def test_as_completed(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        waiting = [awaiting(ctx, name) for name in "abc"]
        return [await earliest for earliest in asyncio.as_completed(waiting)]

    expected = ["value of c", "value of a", "value of b"]
    assert durable(place, body, "c", "a", "b") == expected


def test_as_completed_that_times_out(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        tasks = [asyncio.create_task(awaiting(ctx, name)) for name in "ab"]
        seen: list[Any] = []
        try:
            for earliest in asyncio.as_completed(tasks, timeout=10):
                seen += [await earliest]
        except TimeoutError:
            seen.append("timed out")
        return seen

    assert durable(place, body, "b", 10) == ["value of b", "timed out"]
