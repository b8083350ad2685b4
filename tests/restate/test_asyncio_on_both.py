"""asyncio's own primitives, races and timers mean the same whoever drives the handler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted import Script, named
from worlds import World

from perdure import TerminalError, WorkflowContext


async def _value(value: Any) -> Any:
    return value


async def _refused(text: str) -> None:
    raise TerminalError(text, 418)


def test_gather_gives_results_in_order_or_the_failures(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async def slept(seconds: float, value: Any) -> Any:
            await ctx.sleep(seconds)
            return value

        good = await asyncio.gather(slept(0.03, "a"), slept(0.01, "b"), ctx.run("c", _value, "c"))
        mixed = await asyncio.gather(
            slept(0.01, "d"), ctx.run("fails", _refused, "no"), return_exceptions=True
        )
        return [*good, *map(repr, mixed)]

    assert world.result(body) == ["a", "b", "c", "'d'", "TerminalError('no')"]


def test_wait_tells_done_from_pending(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        futures: set[Any] = {ctx.after(0.01), ctx.after(30), ctx.run("step", _value, 1)}
        done, pending = await asyncio.wait(futures, timeout=0.3)
        for future in pending:
            future.cancel()
        return [len(done), len(pending)]

    assert world.result(body) == [2, 1]


def test_wait_for_and_timeout_end_what_takes_too_long(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        seen = []
        try:
            await asyncio.wait_for(ctx.promise("never"), 0.01)
        except TimeoutError:
            seen.append("wait_for")
        try:
            async with asyncio.timeout(0.01):
                await ctx.sleep(30)
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.timeout(30):
            seen.append(await ctx.run("in time", _value, "in time"))
        return seen

    assert world.result(body) == ["wait_for", "timeout", "in time"]


def test_as_completed_gives_them_in_the_order_of_their_timers(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async def slept(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        waits = [slept(seconds) for seconds in (0.15, 0.01, 0.08)]
        return [await first for first in asyncio.as_completed(waits)]

    assert world.result(body) == [0.01, 0.08, 0.15]


def test_a_failing_task_of_a_group_cancels_the_others_which_clean_up_durably(
    world: World,
) -> None:
    cleaned: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        async def other() -> None:
            try:
                await ctx.sleep(30)
            finally:
                await ctx.run("clean", cleaned.append, "cleaned")

        async def failing() -> None:
            await ctx.sleep(0.01)
            await ctx.run("fails", _refused, "no")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(other())
                group.create_task(failing())
        except ExceptionGroup as failures:
            return [repr(failure) for failure in failures.exceptions]

    assert world.result(body) == ["TerminalError('no')"]
    assert cleaned == ["cleaned"]


def test_shield_lets_what_it_guards_go_on(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        step = asyncio.ensure_future(_slept_and_ran(ctx))
        try:
            await asyncio.wait_for(asyncio.shield(step), 0.01)
        except TimeoutError:
            return ["timed out", await step]

    assert world.result(body) == ["timed out", "ran"]


async def _slept_and_ran(ctx: WorkflowContext) -> str:
    await ctx.sleep(0.1)
    return await ctx.run("ran", _value, "ran")


def test_event_lock_queue_and_semaphore_work_between_tasks(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        event, lock, places = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2)
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        seen: list[str] = []

        async def waits(name: str) -> None:
            await event.wait()
            async with places, lock:
                seen.append(await ctx.run(name, _value, name))
                await queue.put(name)

        async def takes() -> list[str]:
            return [await queue.get() for _ in range(3)]

        tasks = [asyncio.create_task(waits(name)) for name in "abc"]
        taken = asyncio.create_task(takes())
        await ctx.sleep(0.01)
        event.set()
        await asyncio.gather(*tasks)
        return [seen, await taken]

    assert world.result(body) == [["a", "b", "c"], ["a", "b", "c"]]


def test_a_timer_that_is_cancelled_does_not_fire(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        timer = ctx.after(0.01)
        timer.cancel()
        await ctx.sleep(0.05)
        return [timer.cancelled(), await asyncio.sleep(0, "at once")]

    assert world.result(body) == [True, "at once"]


def test_many_timers_fire_in_the_order_of_their_deadlines(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        timers: dict[Any, int] = {ctx.after((20 - i) / 100): i for i in range(20)}
        return [timers[timer] async for timer in ctx.wait(*timers)]

    assert world.result(body) == list(reversed(range(20)))


def test_timers_fire_in_order_where_each_delivery_asks_for_the_time(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        before = ctx.now()
        timers: dict[Any, int] = {ctx.after((20 - i) / 500): i for i in range(20)}
        order = []
        async for timer in ctx.wait(*timers):
            assert ctx.now() >= before
            before = ctx.now()
            order.append(timers[timer])
        return order

    assert world.result(body) == list(reversed(range(20)))


def test_wait_first_gives_the_first_and_leaves_the_losers_alone(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        late, soon = ctx.after(0.2), ctx.after(0.01)
        promise = ctx.promise("never")
        first = await ctx.wait_first(late, promise, soon)
        second = await ctx.wait_first(promise, late)
        again = await ctx.wait_first(late, soon)
        return [first is soon, second is late, again is soon, promise.done()]

    assert world.result(body) == [True, True, True, False]


def test_what_is_complete_already_wins_in_the_order_in_which_it_completed(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        first, second = ctx.after(0.05), ctx.after(0.01)
        await ctx.sleep(0.3)
        winner = await ctx.wait_first(first, second)
        return [first.done(), second.done(), winner is second]

    assert world.result(body) == [True, True, True]


@pytest.mark.parametrize("verb", ["ctx", "asyncio"])
def test_a_deadline_counts_from_where_it_was_set(world: World, verb: str) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        begun = ctx.now()
        await ctx.run("takes a while", asyncio.sleep, 0.1)
        await (ctx.sleep(0.1) if verb == "ctx" else asyncio.sleep(0.1))
        return (ctx.now() - begun).total_seconds()

    took = world.result(body)
    assert 0.2 <= took < 5


def test_now_never_goes_back_and_stands_between_two_awaits(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        times = []
        for number in range(5):
            times += [ctx.now(), ctx.now()]
            await (ctx.sleep(0.002) if number % 2 else ctx.run("step", _value, 1))
        assert times == sorted(times)
        return [times[i] == times[i + 1] for i in range(0, 10, 2)]

    assert world.result(body) == [True] * 5


def test_uuids_and_random_numbers_are_the_same_in_every_replay(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        drawn = [str(ctx.uuid4()), ctx.random.random()]
        kept = await ctx.run("keep", _value, drawn)
        await ctx.sleep(0.005)
        drawn += [str(ctx.uuid4()), ctx.random.random()]
        kept += await ctx.run("keep", _value, drawn[2:])
        await ctx.sleep(0.005)
        return [drawn == kept, len(set(map(str, drawn)))]

    assert world.result(body) == [True, 4]


def test_two_races_that_end_at_once_end_alike_in_every_replay(world: World) -> None:
    """Both outcomes are there at the same time: the handler's own steps say which came first."""

    async def body(ctx: WorkflowContext) -> Any:
        seen: list[Any] = []
        for number in range(5):
            pair = {ctx.after(0.01): "a", ctx.after(0.01): "b"}
            step = ctx.run("step", asyncio.sleep, 0.01)
            winner = await ctx.wait_first(step, *pair)
            seen.append("step" if winner is step else pair[winner])  # type: ignore[index]
            kept = await ctx.run(f"saw {number}", _value, list(seen))
            assert kept == seen, "a replay saw another order"
            for timer in pair:
                timer.cancel()
        return len(seen)

    assert world.result(body) == 5


def test_contextvars_and_task_names_are_the_handlers_own(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async def name() -> str:
            await ctx.sleep(0.001)
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        return await asyncio.gather(
            asyncio.create_task(name(), name="one"), asyncio.create_task(name(), name="two")
        )

    assert world.result(body) == ["one", "two"]


def test_waiting_for_two_promises_and_a_timer_ends_with_whoever_is_first(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        a, b, timer = ctx.promise("a"), ctx.promise("b"), ctx.after(25)
        order = [await future async for future in ctx.wait(a, b)]
        timer.cancel()
        return order

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        for name in ("b", "a"):
            await verbs.call(Script.resolve, name, key=world.key)
            await asyncio.sleep(0.03)
        return await begun.result()

    assert world.play(story) == ["value of b", "value of a"]
