"""Opening a directory: what is read, what goes on by itself, in which order."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from engine_support import ManualClock, Place, run, scheduler_of, until, until_idle

from perdure import (
    Engine,
    Status,
    StoreClosed,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._runtime._residents import Residents
from perdure._store import Db, Store

MANY = 2000


class Wait(Workflow):
    """Waits for a promise, after the delay that the test says."""

    def __init__(self, delay: float | None = None) -> None:
        self.delay = delay
        self.fired: list[str] = []

    async def run(self, ctx: WorkflowContext) -> str:
        if self.delay is not None:
            await ctx.sleep(float(ctx.key))
            self.fired.append(ctx.key)
        return await ctx.promise("go", str)

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(ctx.key)


async def start(engine: Engine, keys: list[str]) -> list[str]:
    handles = await asyncio.gather(*(engine.send(Wait.run, key=key) for key in keys))
    await until_idle(engine)
    return [handle.id for handle in handles]


class Reads:
    """Counts what is read of the store, by database, and the invocations that are loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: Counter[Db] = Counter()
        self.gets: Counter[Db] = Counter()
        self.journals = 0
        self.loads = 0
        get, scan, journal, load = Store.get, Store.scan, Store.journal, Residents.load

        def counted_get(store: Store, db: Db, group: bytes, suffix: bytes) -> bytes | None:
            self.gets[db] += 1
            return get(store, db, group, suffix)

        def counted_scan(store: Store, db: Db, group: bytes, **keys: Any) -> Any:
            found = scan(store, db, group, **keys)
            self.rows[db] += len(found)
            return found

        def counted_journal(*args: Any) -> Any:
            self.journals += 1
            return journal(*args)

        def counted_load(*args: Any) -> None:
            self.loads += 1
            load(*args)

        monkeypatch.setattr(Store, "get", counted_get)
        monkeypatch.setattr(Store, "scan", counted_scan)
        monkeypatch.setattr(Store, "journal", counted_journal)
        monkeypatch.setattr(Residents, "load", counted_load)


def test_opening_reads_nothing_of_the_suspended(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with resident_place.engine(Wait()) as engine:
            ids = await start(engine, [str(number) for number in range(MANY)])
        reads = Reads(monkeypatch)
        async with resident_place.engine(Wait()) as engine:
            await until_idle(engine)
            assert sum(reads.gets.values()) == reads.journals == reads.loads == 0
            # Not a row of theirs; only the interned call sites of the one handler.
            assert set(reads.rows) <= {Db.READY, Db.TIMERS, Db.SITES}
            assert reads.rows[Db.READY] == reads.rows[Db.TIMERS] == 0
            assert scheduler_of(engine).residents.by_id == {}
            await engine.call(Wait.go, key="1234")
            assert await engine.attach(ids[1234]) == "1234"
            assert reads.loads == 1

    run(main())


def test_opening_loads_what_is_ready_and_due_and_nothing_else(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    async def main() -> None:
        service = Wait(delay=1)
        async with resident_place.engine(service, clock=clock) as engine:
            await start(engine, [str(1000 + number) for number in range(200)] + ["1", "2", "3"])
        clock.advance(2)
        reads = Reads(monkeypatch)
        async with resident_place.engine(service, clock=clock) as engine:
            await until_idle(engine)
            assert service.fired == ["1", "2"]
            assert reads.loads == 2
            assert reads.journals == 4  # two pages each: the journal, and its end

    run(main())


def test_what_was_ready_goes_on_by_itself(place: Place) -> None:
    calls: list[str] = []

    class Steps(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            return await ctx.run("work", self.work)

        async def work(self) -> str:
            calls.append("begun")
            if len(calls) == 1:
                await asyncio.Event().wait()
            return "worked"

    async def main() -> None:
        async with place.engine(Steps(), drain_timeout=0.01) as engine:
            handle = await engine.send(Steps.run, key="k")
            await until(lambda: calls == ["begun"])
        async with place.engine(Steps()) as engine:
            assert await engine.attach(handle.id) == "worked"
            assert calls == ["begun", "begun"]

    run(main())


def test_timers_due_while_down_fire_before_the_first_call_is_accepted(place: Place) -> None:
    clock = ManualClock()
    order: list[str] = []

    class Late(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            if ctx.key != "new":
                await ctx.sleep(float(ctx.key))
            order.append(ctx.key)

    async def main() -> None:
        async with place.engine(Late(), clock=clock) as engine:
            for key in ("30", "10", "20"):
                await engine.send(Late.run, key=key)
        clock.advance(60)
        async with place.engine(Late(), clock=clock) as engine:
            await engine.call(Late.run, key="new")
            await until_idle(engine)
        assert order == ["10", "20", "30", "new"]

    run(main())


def test_an_engine_is_not_opened_twice(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Wait()) as engine:
            with pytest.raises(StoreClosed, match="was opened before; make another Engine"):
                await engine.open()
            assert (await engine.send(Wait.run, key="k")).id  # the first goes on
        with pytest.raises(StoreClosed, match="was opened before; make another Engine"):
            async with engine:
                pass

    run(main())


def test_a_workflow_goes_on_through_many_openings(place: Place) -> None:
    class Long(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[str]:
            return [await ctx.promise(f"part {number}") for number in range(5)]

        @handler
        async def part(self, ctx: WorkflowSharedContext, number: int) -> None:
            await ctx.promise(f"part {number}").resolve(f"done {number}")

    async def main() -> None:
        async with place.engine(Long()) as engine:
            handle = await engine.send(Long.run, key="k")
        for number in range(5):
            async with place.engine(Long()) as engine:
                assert (await engine.describe(handle.id)).status is Status.SUSPENDED
                await engine.call(Long.part, number, key="k")
                await until_idle(engine)
        async with place.engine(Long()) as engine:
            assert await engine.output(handle.id) == [f"done {number}" for number in range(5)]

    run(main())
