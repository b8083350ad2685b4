"""Suspended invocations leave memory, least recently used first, and are replayed when woken."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import pytest
from engine_support import Place, run, scheduler_of, until, until_idle, until_status
from stalled_disk import StalledDisk

from perdure import (
    Engine,
    Status,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Wait(Workflow):
    """Its run does what the test says; `touch` wakes it."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def touch(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name).resolve(name)


async def two_touches(ctx: WorkflowContext) -> list[str]:
    return [await ctx.promise("one", str), await ctx.promise("two", str)]


def resident_keys(engine: Engine) -> list[str]:
    """The keys in memory, least recently used first."""
    return [instance.record.key for instance in scheduler_of(engine).residents.by_id.values()]


async def start(engine: Engine, keys: str) -> None:
    for key in keys:
        await engine.send(Wait.run, key=key)
        await until_idle(engine)


def test_no_more_than_max_resident_stay_in_memory(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Wait(two_touches), max_resident=3) as engine:
            await start(engine, "abcdefgh")
            assert resident_keys(engine) == ["f", "g", "h"]

    run(main())


def test_the_least_recently_used_leave_first(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Wait(two_touches), max_resident=3) as engine:
            await start(engine, "abc")
            await engine.call(Wait.touch, "one", key="a")
            await until_idle(engine)
            assert resident_keys(engine) == ["b", "c", "a"]
            await start(engine, "d")
            assert resident_keys(engine) == ["c", "a", "d"]
            await engine.call(Wait.touch, "one", key="b")  # it comes back, and c leaves
            await until_idle(engine)
            assert resident_keys(engine) == ["a", "d", "b"]

    run(main())


def test_an_evicted_one_is_replayed_when_it_is_woken(resident_place: Place) -> None:
    runs: list[str] = []

    async def act(ctx: WorkflowContext) -> list[str]:
        runs.append(ctx.key)
        return await two_touches(ctx)

    async def main() -> None:
        async with resident_place.engine(Wait(act), max_resident=2) as engine:
            await start(engine, "abc")
            assert resident_keys(engine) == ["b", "c"]
            await engine.call(Wait.touch, "one", key="a")
            await until_idle(engine)
            assert resident_keys(engine) == ["c", "a"]
            await engine.call(Wait.touch, "two", key="a")
            assert await engine.submit(Wait.run, key="a") == ["one", "two"]
        assert runs == ["a", "b", "c", "a"]

    run(main())


def test_one_in_memory_is_not_replayed_when_it_is_woken(resident_place: Place) -> None:
    runs: list[str] = []

    async def act(ctx: WorkflowContext) -> list[str]:
        runs.append(ctx.key)
        return await two_touches(ctx)

    async def main() -> None:
        async with resident_place.engine(Wait(act)) as engine:
            await start(engine, "a")
            await engine.call(Wait.touch, "one", key="a")
            await engine.call(Wait.touch, "two", key="a")
            assert await engine.submit(Wait.run, key="a") == ["one", "two"]
        assert runs == ["a"]

    run(main())


def test_only_what_is_committed_is_evicted(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Wait(two_touches), max_resident=0) as engine:
            await start(engine, "a")
            assert resident_keys(engine) == []
            with StalledDisk(resident_place.path):
                pending = asyncio.create_task(engine.send(Wait.run, key="b"))
                await until(lambda: resident_keys(engine) == ["b"], "b")
                scheduler_of(engine).residents.trim()
                assert resident_keys(engine) == ["b"]
            await pending
            await until_idle(engine)
            assert resident_keys(engine) == []

    run(main())


def test_finally_runs_at_eviction_and_again_after_the_wake(resident_place: Place) -> None:
    left: list[str] = []

    async def act(ctx: WorkflowContext) -> str:
        try:
            return await ctx.promise("one", str)
        finally:
            left.append(ctx.key)

    async def main() -> None:
        async with resident_place.engine(Wait(act), max_resident=0) as engine:
            await start(engine, "a")
            assert left == ["a"]
            await engine.call(Wait.touch, "one", key="a")
            assert await engine.submit(Wait.run, key="a") == "one"
            assert left == ["a", "a"]

    run(main())


def test_finally_at_eviction_can_do_nothing_durable(resident_place: Place) -> None:
    reached: list[str] = []
    later: list[str] = []

    async def act(ctx: WorkflowContext) -> list[str]:
        async def more() -> None:
            later.append(ctx.key)

        try:
            await ctx.promise("one", str)
        finally:
            for do in (
                lambda: ctx.set("a", 1),
                lambda: ctx.run("step", lambda: later.append("step")),
                lambda: ctx.after(1),
                lambda: ctx.promise("two", str).done(),
                lambda: asyncio.create_task(more()),
            ):
                try:
                    do()
                except BaseException as refused:
                    reached.append(type(refused).__name__)
                else:
                    reached.append("done")
        return await ctx.state_keys()

    async def main() -> None:
        async with resident_place.engine(Wait(act), max_resident=0) as engine:
            handle = await engine.send(Wait.run, key="a")
            await until_idle(engine)
            assert reached == ["Halted"] * 5
            description = await engine.describe(handle.id)
            assert [entry.kind for entry in description.journal] == ["start", "wait for promise"]
            assert later == []

    run(main())


def test_an_exception_handler_that_swallows_everything_survives_eviction(
    resident_place: Place,
) -> None:
    async def act(ctx: WorkflowContext) -> str:
        while True:
            try:
                return await ctx.promise("one", str)
            except Exception:  # not what eviction is
                ctx.set("swallowed", True)

    async def main() -> None:
        async with resident_place.engine(Wait(act), max_resident=0) as engine:
            await start(engine, "a")
            await engine.call(Wait.touch, "one", key="a")
            assert await engine.submit(Wait.run, key="a") == "one"

    # The second loop asks for the same name again: only eviction could have brought it there.
    run(main())


def complaints_of(act: Any, place: Place, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says while *act* is evicted, woken, and brought to its end."""

    async def main() -> None:
        async with place.engine(Wait(act), max_resident=0) as engine:
            await start(engine, "a")
            assert await engine.submit(Wait.run, key="other") == "other"
            await engine.call(Wait.touch, "one", key="a")
            assert await engine.submit(Wait.run, key="a") == "one"

    with caplog.at_level(logging.WARNING, "perdure"):
        run(main())
    return [record.getMessage() for record in caplog.records if record.name == "perdure"]


def test_a_coroutine_that_awaits_in_finally_is_closed_without_complaint(
    resident_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(ctx: WorkflowContext) -> str:
        if ctx.key == "other":
            return "other"
        try:
            return await ctx.promise("one", str)
        finally:
            await asyncio.sleep(0)  # as it may: a replay runs it again

    assert complaints_of(act, resident_place, caplog) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_that_will_not_be_closed_at_all_does_not_hang_the_engine(
    resident_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(ctx: WorkflowContext) -> str:
        if ctx.key == "other":
            return "other"
        promise = ctx.promise("one", str)
        while not promise.done():
            try:
                await promise
            except GeneratorExit:
                while True:
                    try:
                        await asyncio.sleep(0)
                    except GeneratorExit:
                        continue
        return promise.result()

    complaints = complaints_of(act, resident_place, caplog)
    assert "could not be closed cleanly: swallows GeneratorExit and goes on" in complaints[0]
    assert f"{__file__}:" in complaints[0]


def test_a_task_group_is_evicted_without_complaint(
    resident_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(ctx: WorkflowContext) -> str:
        if ctx.key == "other":
            return "other"
        promise = ctx.promise("one", str)

        async def wait() -> None:
            await promise

        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            await promise
        return promise.result()

    assert complaints_of(act, resident_place, caplog) == []


def test_a_finally_that_raises_at_eviction_is_reported(
    resident_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    evictions: list[str] = []

    async def act(ctx: WorkflowContext) -> str:
        try:
            return await ctx.promise("one", str)
        finally:
            evictions.append("once")
            if len(evictions) == 1:
                raise ValueError("in finally")

    async def main() -> None:
        async with resident_place.engine(Wait(act), max_resident=0) as engine:
            await start(engine, "a")
            await engine.call(Wait.touch, "one", key="a")
            assert await engine.submit(Wait.run, key="a") == "one"

    with caplog.at_level(logging.WARNING, "perdure"):
        run(main())
    assert "not be closed cleanly: ValueError while being closed: in finally" in caplog.text


def test_all_tasks_of_an_evicted_handler_are_closed_each_in_its_own_context(
    resident_place: Place,
) -> None:
    name = contextvars.ContextVar[str]("name")
    closed: list[str] = []

    async def act(ctx: WorkflowContext) -> None:
        async def part(mine: str) -> None:
            name.set(mine)
            try:
                await ctx.promise(mine)
            finally:
                closed.append(name.get())

        async with asyncio.TaskGroup() as group:
            group.create_task(part("one"))
            group.create_task(part("two"))

    async def main() -> None:
        async with resident_place.engine(Wait(act), max_resident=0) as engine:
            await start(engine, "a")
            assert closed == ["two", "one"]  # last made first
            await engine.call(Wait.touch, "one", key="a")
            await engine.call(Wait.touch, "two", key="a")
            await engine.submit(Wait.run, key="a")

    run(main())


def test_an_evicted_handlers_step_goes_on_and_its_result_is_kept(resident_place: Place) -> None:
    async def main() -> None:
        release = asyncio.Event()
        calls: list[str] = []

        async def work() -> str:
            calls.append("begun")
            await release.wait()
            return "worked"

        async def act(ctx: WorkflowContext) -> str:
            return await ctx.run("work", work)

        async with resident_place.engine(Wait(act), max_resident=0) as engine:
            handle = await engine.send(Wait.run, key="a")
            await until(lambda: bool(calls) and not resident_keys(engine), "eviction")
            assert (await engine.describe(handle.id)).status is Status.RUNNING
            release.set()
            assert await handle.result() == "worked"
            assert calls == ["begun"]

    run(main())


def test_max_resident_may_not_be_negative(resident_place: Place) -> None:
    with pytest.raises(ValueError, match="max_resident must not be negative, got -1"):
        resident_place.engine(max_resident=-1)


def test_a_thousand_waiting_workflows_all_come_back(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Wait(two_touches), max_resident=10) as engine:
            keys = [str(number) for number in range(1000)]
            handles = await asyncio.gather(*(engine.send(Wait.run, key=key) for key in keys))
            await until_idle(engine)
            assert len(resident_keys(engine)) == 10
            for name in ("one", "two"):
                await asyncio.gather(*(engine.call(Wait.touch, name, key=key) for key in keys))
            results = await asyncio.gather(*(handle.result() for handle in handles))
            assert results == [["one", "two"]] * 1000
            await until_status(engine, handles[0], Status.COMPLETED)

    run(main())
