"""Restarting what has completed: as new, and from a part of its journal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import Place, run, until_status

from perdure import (
    Conflict,
    Context,
    InvalidInput,
    InvocationHandle,
    NotFound,
    ObjectContext,
    Service,
    Status,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
)
from perdure._runtime import _purges

DONE: list[str] = []


def act(name: str) -> str:
    DONE.append(name)
    return f"{name} {len(DONE)}"


class Job(Service, journal_retention=3600):
    @handler
    async def work(self, ctx: Context, name: str) -> list[str]:
        first = await ctx.run("first", act, f"{name} first")
        await ctx.sleep(0.001)
        second = await ctx.run("second", act, f"{name} second")
        return [first, second, ctx.request.headers.get("h", "")]

    @handler
    async def ids(self, ctx: Context, log: str) -> list[str]:
        ref = ctx.send(Job.slow)
        mine = [str(ctx.uuid4()), await ref.invocation_id(), (awakeable := ctx.awakeable(str)).id]
        await ctx.call(Log.note, mine, key=log)  # compared in replay
        await ctx.resolve_awakeable(awakeable.id, "x")
        await awakeable
        await ctx.sleep(0.001)
        last = ctx.awakeable(int)
        await ctx.resolve_awakeable(last.id, 1)
        value = await last
        await ctx.sleep(0.001)
        return [*mine, str(ctx.uuid4()), str(value)]

    @handler
    async def long(self, ctx: Context) -> str:
        for _ in range(120):
            await ctx.run("act", act, "long")
        return "done"

    @handler
    async def calls(self, ctx: Context) -> str:
        return await ctx.call(Job.slow)

    @handler
    async def slow(self, ctx: Context) -> str:
        await ctx.sleep(0.001)
        return "slow"


class Counter(VirtualObject, journal_retention=3600):
    @handler
    async def add(self, ctx: ObjectContext) -> int:
        count = (await ctx.get("count", int, 0)) + 1
        await ctx.sleep(0.001)
        ctx.set("count", count)
        return count


class Log(VirtualObject):
    @handler
    async def note(self, ctx: ObjectContext, ids: list[str]) -> None:
        ctx.set("ids", ids)


class Flow(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        return "ran"


def engine_of(place: Place) -> Any:
    return place.engine(Job(), Counter(), Flow(), Log())


async def ended(engine: Any, *args: Any, **options: Any) -> InvocationHandle[Any]:
    handle: InvocationHandle[Any] = await engine.send(*args, **options)
    await handle.result()
    return handle


def test_as_new_everything_runs_again_under_another_id(place: Place) -> None:
    async def main() -> None:
        DONE.clear()
        async with engine_of(place) as engine:
            handle = await ended(engine, Job.work, "a", headers={"h": "kept"})
            again = await engine.restart(handle.id)
            assert again.id != handle.id
            assert await again.result() == ["a first 3", "a second 4", "kept"]
            assert await handle.result() == ["a first 1", "a second 2", "kept"]

    run(main())


def test_from_an_entry_what_lies_before_it_does_not_happen_again(place: Place) -> None:
    async def main() -> None:
        DONE.clear()
        async with engine_of(place) as engine:
            handle = await ended(engine, Job.work, "a")
            journal = (await engine.describe(handle.id)).journal
            second = next(e.index for e in journal if e.kind == "step" and e.name == "second")
            again = await engine.restart(handle.id, from_entry=second)
            assert await again.result() == ["a first 1", "a second 3", ""]
            whole = await engine.restart(handle.id, from_entry=journal[-2].index)
            assert await whole.result() == ["a first 1", "a second 4", ""]

    run(main())


def test_ids_and_random_numbers_that_were_recorded_stay(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            handle = await ended(engine, Job.ids, "log")
            journal = (await engine.describe(handle.id)).journal
            begun = next(e.index for e in journal if e.kind == "timer") + 1
            again = await engine.restart(handle.id, from_entry=begun)
            assert await again.result() == await handle.result()
            with pytest.raises(Conflict, match="was itself restarted"):
                await engine.restart(again.id, from_entry=len(journal) - 1)
            third = await engine.restart(again.id, from_entry=begun)
            assert await third.result() == await handle.result()
            assert (await (await engine.restart(again.id)).result()) != await handle.result()

    run(main())


def test_of_an_object_it_waits_for_the_key(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            handle = await ended(engine, Counter.add, key="k")
            journal = (await engine.describe(handle.id)).journal
            index = next(e.index for e in journal if e.kind == "timer") + 1
            numbers = [
                await engine.restart(handle.id),
                await engine.restart(handle.id, from_entry=index),
                await engine.restart(handle.id),
            ]
            assert [await each.result() for each in numbers] == [2, 1, 2]

    run(main())


def test_what_can_not_be_restarted_is_told_so(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            flow = await ended(engine, Flow.run, key="k")
            with pytest.raises(Conflict, match="purge"):
                await engine.restart(flow.id)
            job = await ended(engine, Job.work, "a")
            for bad in (-1, "1", 1.0, True, None):
                with pytest.raises(InvalidInput, match="from_entry"):
                    await engine.restart(job.id, from_entry=bad)
            with pytest.raises(InvalidInput, match="entries, or is not kept"):
                await engine.restart(job.id, from_entry=1000)
            with pytest.raises(InvalidInput, match="first activation"):
                await engine.restart(job.id, from_entry=1)
            with pytest.raises(NotFound):
                await engine.restart("inv_" + "0" * 26)
            with pytest.raises(InvalidInput):
                await engine.restart("nothing")
            calls = await ended(engine, Job.calls)
            with pytest.raises(Conflict, match=r"call 'Job\.slow'"):
                await engine.restart(calls.id, from_entry=2)
            delayed = await engine.send(Job.work, "a", delay=3600)
            with pytest.raises(Conflict, match="has not completed"):
                await engine.restart(delayed.id)

    run(main())


def test_as_new_it_needs_the_newest_version_only(place: Place) -> None:
    class JobV2(Service, name="Job", version=2, journal_retention=3600):
        @handler
        async def work(self, ctx: Context, name: str) -> str:
            await ctx.sleep(0.001)
            return f"new {name}"

    async def main() -> None:
        async with engine_of(place) as engine:
            handle = await ended(engine, Job.work, "a")
        async with place.engine(JobV2()) as engine:
            again = await engine.restart(handle.id)
            assert await again.result() == "new a"
            with pytest.raises(Conflict, match="version 1 of service 'Job' is not registered"):
                await engine.restart(handle.id, from_entry=4)
        async with place.engine(Flow()) as engine:
            with pytest.raises(Conflict, match="service 'Job' is not registered"):
                await engine.restart(handle.id)

    run(main())


def test_a_restart_is_durable_when_it_is_answered(place: Place) -> None:
    async def main() -> None:
        DONE.clear()
        async with engine_of(place) as engine:
            handle = await ended(engine, Job.work, "a")
            journal = (await engine.describe(handle.id)).journal
            second = next(e.index for e in journal if e.kind == "step" and e.name == "second")
            again = await engine.restart(handle.id, from_entry=second)
        async with engine_of(place) as engine:
            assert (await engine.attach(again.id))[0] == "a first 1"
            await until_status(engine, again.id, Status.COMPLETED)

    run(main())


def test_no_restart_takes_over_what_a_purge_has_left_of_a_journal(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_purges, "CHUNKS_PER_UNIT", 10)

    async def main() -> None:
        async with place.engine(Job()) as engine:
            handle = await engine.send(Job.long)
            await handle.result()
            purge = asyncio.create_task(engine.purge(handle.id))
            begun = []
            while not purge.done():
                try:
                    again = await engine.restart(handle.id, from_entry=230)  # some steps are left
                    begun.append(again)
                except NotFound:
                    await asyncio.sleep(0)  # where all is committed, nothing is waited for
            for again in begun:
                assert await again.result() == "done"

    run(main())
