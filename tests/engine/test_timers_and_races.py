"""Timers, and which of several things came first."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until, until_idle

from perdure import (
    DurableFuture,
    InvalidInput,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Sleeper(Workflow):
    async def run(self, ctx: WorkflowContext, seconds: float) -> float:
        before = ctx.now()
        await ctx.sleep(seconds)
        return (ctx.now() - before).total_seconds()


def test_a_timer_fires_at_its_deadline_and_not_before(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Sleeper(), clock=clock) as engine:
            handle = await engine.send(Sleeper.run, 100, key="k")
            await until_idle(engine)
            clock.advance(99.999)
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
            clock.advance(0.001)
            assert await handle.result() == 100

    run(main())


def test_the_deadline_is_fixed_when_first_issued(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Sleeper(), clock=clock) as engine:
            handle = await engine.send(Sleeper.run, 100, key="k")
            await until_idle(engine)
        clock.advance(60)
        async with place.engine(Sleeper(), clock=clock) as engine:
            await until_idle(engine)
            clock.advance(39.999)
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
            clock.advance(0.001)
            assert await engine.attach(handle.id) == 100

    run(main())


def test_a_timer_due_while_the_engine_was_down_fires_at_start(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Sleeper(), clock=clock) as engine:
            handle = await engine.send(Sleeper.run, 100, key="k")
            await until_idle(engine)
        clock.advance(1000)
        async with place.engine(Sleeper(), clock=clock) as engine:
            assert await engine.attach(handle.id) == 1000

    run(main())


def test_timers_due_while_the_engine_was_down_fire_in_deadline_order(place: Place) -> None:
    clock = ManualClock()
    woken: list[int] = []

    class Ordered(Workflow):
        async def run(self, ctx: WorkflowContext, seconds: int) -> None:
            await ctx.sleep(seconds)
            await ctx.run("note", woken.append, seconds)

    async def main() -> None:
        delays = [(7 * n) % 50 for n in range(1, 50)]
        async with place.engine(Ordered(), clock=clock, step_threads=1) as engine:
            handles = [await engine.send(Ordered.run, n, key=str(n)) for n in delays]
            await until_idle(engine)
        clock.advance(1000)
        async with place.engine(Ordered(), clock=clock, step_threads=1) as engine:
            for handle in handles:
                await engine.attach(handle.id)

    run(main())
    assert woken == sorted(woken)
    assert len(woken) == 49


def test_real_time_is_never_early(place: Place) -> None:
    async def main() -> float:
        async with place.engine(Sleeper()) as engine:
            slept: float = await engine.submit(Sleeper.run, 0.05, key="k")
            return slept

    assert 0.05 <= run(main()) < 2


def test_two_timers_one_cancelled(place: Place) -> None:
    clock = ManualClock()

    class Cancels(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[bool]:
            short, long = ctx.after(timedelta(seconds=1)), ctx.after(timedelta(days=30))
            await short
            again = long.cancel()
            return [again, long.cancelled(), long.cancel(), short.cancel()]

    async def main() -> Any:
        async with place.engine(Cancels(), clock=clock) as engine:
            handle = await engine.send(Cancels.run, key="k")
            await until_idle(engine)
            clock.advance(1)
            return await handle.result()

    assert run(main()) == [True, True, False, False]


class Promises(Workflow, abstract=True):
    """Its promises are resolved by name."""

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name, int).resolve(1)


class Race(Promises):
    """Waits for a, b or the timer, and tells which came first."""

    async def run(self, ctx: WorkflowContext) -> str:
        a, b, timeout = ctx.promise("a", int), ctx.promise("b", int), ctx.after(100)
        first = await ctx.wait_first(a, b, timeout)
        return "timeout" if first is timeout else f"{first.name}={await first}"


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_promise_that_comes_first_wins(place: Place, name: str) -> None:
    async def main() -> Any:
        async with place.engine(Race()) as engine:
            handle = await engine.send(Race.run, key="k")
            await until_idle(engine)
            await engine.call(Race.resolve, name, key="k")
            await engine.call(Race.resolve, "a" if name == "b" else "b", key="k")
            return await handle.result()

    assert run(main()) == f"{name}=1"


def test_the_timer_wins_when_nothing_comes(place: Place) -> None:
    clock = ManualClock()

    async def main() -> Any:
        async with place.engine(Race(), clock=clock) as engine:
            handle = await engine.send(Race.run, key="k")
            await until_idle(engine)
            clock.advance(100)
            return await handle.result()

    assert run(main()) == "timeout"


def test_the_first_of_several_complete_ones_is_the_first_delivered(place: Place) -> None:
    class Late(Promises):
        async def run(self, ctx: WorkflowContext) -> list[str]:
            a, b = ctx.promise("a", int), ctx.promise("b", int)
            await asyncio.gather(a, b)
            first = await ctx.wait_first(a, b)
            ordered = [future.name async for future in ctx.wait(a, b)]
            return [first.name, *ordered]

    async def main() -> Any:
        async with place.engine(Late()) as engine:
            handle = await engine.send(Late.run, key="k")
            await until_idle(engine)
            await engine.call(Late.resolve, "b", key="k")
            await engine.call(Late.resolve, "a", key="k")
            return await handle.result()

    assert run(main()) == ["b", "b", "a"]


def test_wait_gives_all_in_the_order_of_completion(place: Place) -> None:
    class Ordered(Promises):
        async def run(self, ctx: WorkflowContext) -> list[str]:
            promises = [ctx.promise(name, int) for name in "abc"]
            return [promise.name async for promise in ctx.wait(*promises)]

    async def main() -> Any:
        async with place.engine(Ordered()) as engine:
            handle = await engine.send(Ordered.run, key="k")
            await until_idle(engine)
            for name in "cab":
                await engine.call(Ordered.resolve, name, key="k")
            return await handle.result()

    assert run(main()) == ["c", "a", "b"]


def test_wait_with_nothing_ends_at_once(place: Place) -> None:
    class Nothing(Workflow):
        async def run(self, ctx: WorkflowContext) -> int:
            no_futures: list[DurableFuture[Any]] = []
            return len([future async for future in ctx.wait(*no_futures)])

    async def main() -> Any:
        async with place.engine(Nothing()) as engine:
            return await engine.submit(Nothing.run, key="k")

    assert run(main()) == 0


def test_a_failed_future_wins_a_race_too(place: Place) -> None:
    class Fails(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            def fail() -> None:
                raise TerminalError("broken")

            step, timer = ctx.run("fail", fail), ctx.after(1000)
            first = await ctx.wait_first(timer, step)
            return f"{first is step} {step.exception()}"

    async def main() -> Any:
        async with place.engine(Fails()) as engine:
            return await engine.submit(Fails.run, key="k")

    assert run(main()) == "True broken"


def test_the_loser_of_a_race_goes_on(place: Place) -> None:
    clock = ManualClock()
    go = asyncio.Event()
    lost = threading.Event()

    async def wait() -> str:
        await go.wait()
        return "late"

    class Loser(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            step, timer = ctx.run("slow", wait), ctx.after(1)
            assert await ctx.wait_first(step, timer) is timer
            await ctx.run("note", lost.set)
            return await step

    async def main() -> Any:
        async with place.engine(Loser(), clock=clock) as engine:
            handle = await engine.send(Loser.run, key="k")
            clock.advance(1)
            await until(lost.is_set)
            go.set()
            return await handle.result()

    assert run(main()) == "late"


@pytest.mark.parametrize(
    ("delay", "text"),
    [
        (-1, "delay of a timer: -1 is not between 0 and"),
        (timedelta(seconds=-1), "is not between 0 and"),
        (float("nan"), "nan is not between 0 and"),
        (1e12, "is not between 0 and 36,500 days"),
        ("10", "expected seconds or a timedelta, got '10'"),
        (True, "expected seconds or a timedelta, got True"),
        (None, "expected seconds or a timedelta, got None"),
    ],
)
def test_a_delay_must_make_sense(resident_place: Place, delay: Any, text: str) -> None:
    class Wrong(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.sleep(delay)

    async def main() -> None:
        async with resident_place.engine(Wrong()) as engine:
            await engine.submit(Wrong.run, key="k")

    with pytest.raises(InvalidInput, match=text):
        run(main())


@pytest.mark.parametrize("delay", [1e12, 1e30, float("nan")])
def test_a_delay_given_to_the_loop_must_make_sense_too(resident_place: Place, delay: float) -> None:
    class Wrong(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            asyncio.get_running_loop().call_later(delay, print)

    async def main() -> None:
        async with resident_place.engine(Wrong()) as engine:
            await engine.submit(Wrong.run, key="k")

    with pytest.raises(InvalidInput, match="is not between 0 and 36,500 days"):
        run(main())


def test_wait_first_needs_something_to_wait_for(resident_place: Place) -> None:
    class Wrong(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.wait_first()

    async def main() -> None:
        async with resident_place.engine(Wrong()) as engine:
            await engine.submit(Wrong.run, key="k")

    with pytest.raises(InvalidInput, match=r"wait_first\(\) needs at least one durable future"):
        run(main())


def test_wait_first_refuses_a_coroutine_and_names_asyncio_wait(resident_place: Place) -> None:
    class Wrong(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            made = ctx.sleep(1)
            try:
                await ctx.wait_first(made)  # type: ignore[arg-type]
            finally:
                made.close()

    async def main() -> None:
        async with resident_place.engine(Wrong()) as engine:
            await engine.submit(Wrong.run, key="k")

    with pytest.raises(InvalidInput, match=r"takes durable futures .* use asyncio\.wait"):
        run(main())


def test_a_slow_clock_behind_the_journal_does_not_take_time_back(place: Place) -> None:
    quiet_log()
    clock = ManualClock()

    class Times(Workflow):
        async def run(self, ctx: WorkflowContext) -> bool:
            first = ctx.now()
            await ctx.run("step", clock.advance, -3600)
            return ctx.now() >= first

    async def main() -> Any:
        async with place.engine(Times(), clock=clock) as engine:
            return await engine.submit(Times.run, key="k")

    assert run(main()) is True
