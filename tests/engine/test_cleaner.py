"""What has expired goes a little at a time, beside live traffic."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    rows_left,
    run,
    scheduler_of,
    until,
    until_idle,
)
from stalled_disk import StalledDisk

from perdure import Context, Engine, Service, Workflow, WorkflowContext, handler
from perdure._runtime import _cleaner, _purges
from perdure._runtime._layout import unpack_target
from perdure._store import Db, Store, _store
from perdure.errors import StoreCorrupt

DAY = timedelta(days=1)


class Short(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        ctx.set("state", ctx.key)
        return await ctx.run("step", lambda: "done")


class Long(Workflow):
    """Has as many activations as it is told to, and then some."""

    async def run(self, ctx: WorkflowContext, activations: int) -> int:
        for _ in range(activations):
            await asyncio.sleep(0.001)
        return activations


class Unkept(Long, retention=0):
    pass


class JournalGoes(Long, journal_retention=0):
    pass


class Plain(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        return "done"


class Mail(Service):
    @handler
    async def send(self, ctx: Context) -> str:
        return "sent"


async def expired(place: Place, clock: ManualClock, count: int) -> None:
    """Leave *count* workflows whose time has come when the directory is opened again."""
    async with place.engine(Short(), clock=clock) as engine:
        for number in range(count):
            await engine.send(Short.run, key=str(number))
        await until_idle(engine)
    clock.advance(DAY)


async def turn_on(engine: Engine, clock: ManualClock, steps: int) -> None:
    """Let a workflow of many sleeps come to its end."""
    for _ in range(steps):
        clock.advance(0.001)
        await until_idle(engine)


def test_opening_waits_for_nothing_that_has_expired(resident_place: Place) -> None:
    clock = ManualClock()
    count = 3 * _cleaner.INVOCATIONS_PER_TURN

    async def main() -> None:
        await expired(resident_place, clock, count)
        async with resident_place.engine(Short(), clock=clock) as engine:
            store = scheduler_of(engine).store
            assert store.count_committed(Db.INVOCATIONS) == count
            assert store.sealed == store.committed
            await until_idle(engine)
            assert store.count_committed(Db.INVOCATIONS) == 0

    run(main())


def test_the_host_loop_has_its_turn_between_turns_of_the_cleaner(resident_place: Place) -> None:
    clock = ManualClock()
    count = 3 * _cleaner.INVOCATIONS_PER_TURN

    async def main() -> None:
        await expired(resident_place, clock, count)
        async with resident_place.engine(Short(), clock=clock) as engine:
            store = scheduler_of(engine).store
            removed: list[int] = []
            before = store.sealed
            while not removed or sum(removed) < count:
                await asyncio.sleep(0)
                removed.append(store.sealed - before)
                before = store.sealed
            assert max(removed) <= _cleaner.INVOCATIONS_PER_TURN
            await until_idle(engine)

    run(main())


def test_calls_are_answered_while_much_is_removed(resident_place: Place) -> None:
    clock = ManualClock()
    count = 10 * _cleaner.INVOCATIONS_PER_TURN

    async def main() -> None:
        await expired(resident_place, clock, count)
        async with resident_place.engine(Short(), Mail(), clock=clock) as engine:
            store = scheduler_of(engine).store
            assert await engine.call(Mail.send) == "sent"
            assert store.count_committed(Db.INVOCATIONS) > 0
            await until_idle(engine)

    run(main())
    assert rows_left(resident_place.path) == {}


def test_closing_in_the_middle_of_a_sweep_leaves_the_rest_to_the_next_opening(
    resident_place: Place,
) -> None:
    clock = ManualClock()
    count = 3 * _cleaner.INVOCATIONS_PER_TURN

    async def main() -> None:
        await expired(resident_place, clock, count)
        async with resident_place.engine(Short(), clock=clock) as engine:
            store = scheduler_of(engine).store
            before = store.sealed
            for _ in range(100):
                await asyncio.sleep(0)
                if store.sealed > before:
                    break
        left = rows_left(resident_place.path)["INVOCATIONS"]
        assert 0 < left < count
        async with resident_place.engine(Short(), clock=clock) as engine:
            await until_idle(engine)

    run(main())
    assert rows_left(resident_place.path) == {}


def test_nothing_is_removed_while_the_store_is_congested(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    count = 2 * _cleaner.INVOCATIONS_PER_TURN

    async def main() -> None:
        async with resident_place.engine(Short(), clock=clock) as engine:
            for number in range(count):
                await engine.send(Short.run, key=str(number))
            await until_idle(engine)
            store = scheduler_of(engine).store
            monkeypatch.setattr(_store, "UNCOMMITTED_BYTES_MAX", 1)
            with StalledDisk(resident_place.path):
                store.put(Db.SITES, b"", b"\0\0\0\x01", b"f.py:1 in f")
                before = store.seal()
                clock.advance(DAY)
                await settle()
                assert store.sealed == before
            await until(lambda: store.count_committed(Db.INVOCATIONS) == 0)
            await until_idle(engine)

    run(main())


def test_a_sweep_that_waits_for_the_disk_ends_when_the_engine_closes(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    async def main() -> None:
        await expired(resident_place, clock, 10)
        clock.advance(-DAY)
        engine = resident_place.engine(Short(), clock=clock)
        await engine.open()
        store = scheduler_of(engine).store
        monkeypatch.setattr(_store, "UNCOMMITTED_BYTES_MAX", 1)
        with StalledDisk(resident_place.path):
            store.delete(Db.SITES, b"", b"none")
            store.seal()
            clock.advance(DAY)
            await settle()
            closing = asyncio.create_task(engine.close())
            await settle()
        await closing

    run(main())
    assert rows_left(resident_place.path)["INVOCATIONS"] == 10


def test_what_completes_while_a_sweep_waits_for_the_disk_goes_in_its_time(
    resident_place: Place,
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with resident_place.engine(Short(), Plain(), clock=clock) as engine:
            await engine.submit(Short.run, key="k")
            with StalledDisk(resident_place.path):
                clock.advance(DAY)
                await settle()  # the sweep has ended, but for its commit
                sent = asyncio.create_task(engine.send(Plain.run, key="k"))
                await settle()
            # As if the commit of the sweep had come first, and what was sent not yet.
            with patch.object(Store, "scan_committed", lambda *_, **__: []):
                await sent
                await until_idle(engine)
            clock.advance(DAY)
            await until_idle(engine)

    run(main())
    assert rows_left(resident_place.path) == {}


async def settle() -> None:
    """Let the loop turn until whatever can go on has."""
    for _ in range(50):
        await asyncio.sleep(0)


class Deletes:
    """Counts what each unit deletes from the journal."""

    def __init__(self) -> None:
        self.of_units: list[int] = [0]
        self._delete, self._seal = Store.delete, Store.seal

    def __enter__(self) -> list[int]:
        def delete(store: Store, db: Db, group: bytes, suffix: bytes) -> None:
            self.of_units[-1] += db == Db.JOURNAL
            self._delete(store, db, group, suffix)

        def seal(store: Store) -> int:
            self.of_units.append(0)
            return self._seal(store)

        self._patches = patch.object(Store, "delete", delete), patch.object(Store, "seal", seal)
        for each in self._patches:
            each.start()
        return self.of_units

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()


@pytest.mark.parametrize("how", ["by time", "by hand", "at completion", "only the journal"])
def test_a_long_journal_goes_in_slices_and_its_record_last(
    resident_place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_purges, "CHUNKS_PER_UNIT", 4)
    clock = ManualClock()
    workflow = {"at completion": Unkept, "only the journal": JournalGoes}.get(how, Long)

    async def main() -> None:
        async with resident_place.engine(workflow(), clock=clock) as engine:
            with Deletes() as deletes:
                handle = await engine.send(workflow.run, 29, key="k")
                await turn_on(engine, clock, 29)
                if how == "by hand":
                    await engine.purge(handle.id)
                elif how == "by time":
                    clock.advance(DAY)
                await until_idle(engine)
            assert max(deletes) == 4
            assert sum(deletes) == 30
            store = scheduler_of(engine).store
            assert store.count_committed(Db.JOURNAL) == 0
            kept = how == "only the journal"
            assert store.count_committed(Db.INVOCATIONS) == kept
            if kept:
                assert await handle.output() == 29
                await engine.purge(handle.id)

    run(main())
    assert rows_left(resident_place.path) == {}


def test_a_run_without_retention_frees_its_key_before_its_long_journal_has_gone(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_purges, "CHUNKS_PER_UNIT", 4)
    clock = ManualClock()

    async def main() -> None:
        async with resident_place.engine(Unkept(), clock=clock) as engine:
            handle = await engine.send(Unkept.run, 29, key="k")
            with patch.object(_cleaner.Cleaner, "watch", lambda *_: None):
                await turn_on(engine, clock, 29)
            again = await engine.send(Unkept.run, 1, key="k")
            assert again.id != handle.id
        async with resident_place.engine(Unkept(), clock=clock) as engine:
            await until_idle(engine)  # the first one goes, and nothing of the second
            assert (await engine.send(Unkept.run, 1, key="k")).id == again.id

    run(main())


@pytest.mark.long
def test_a_journal_of_100_000_entries_goes_in_slices(tmp_path: Path) -> None:
    class Many(Workflow, retention=1):
        async def run(self, ctx: WorkflowContext) -> None:
            for _ in range(50_000):
                await asyncio.sleep(0)
                await ctx.run("step", lambda: None)

    async def main() -> None:
        async with Engine(tmp_path / "data", [Many()], durability="memory") as engine:
            store = scheduler_of(engine).store
            handle = await engine.send(Many.run, key="k")
            await handle.result()
            assert (await engine.describe(handle.id)).journal_length > 100_000
            with Deletes() as deletes:
                for _ in range(1000):
                    await asyncio.sleep(0.01)
                    if store.count_committed(Db.INVOCATIONS) == 0:
                        break
            assert max(deletes) == _purges.CHUNKS_PER_UNIT
            assert store.count_committed(Db.JOURNAL) == 0

    asyncio.run(main())


def test_a_damaged_invocation_does_not_keep_the_others_from_going(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_log()
    clock = ManualClock()

    def fails(value: bytes, target: bytes) -> bytes:
        if target.endswith(b"5"):
            raise StoreCorrupt("a damaged row")
        return unpack_target(value, target)

    async def main() -> None:
        await expired(resident_place, clock, 10)
        with monkeypatch.context() as broken:
            broken.setattr(_purges, "unpack_target", fails)
            async with resident_place.engine(Short(), clock=clock) as engine:
                await until_idle(engine)
            assert rows_left(resident_place.path)["INVOCATIONS"] == 1
        clock.advance(DAY)  # somebody has mended it
        async with resident_place.engine(Short(), clock=clock) as engine:
            await until_idle(engine)

    run(main())
    assert rows_left(resident_place.path) == {}


def test_an_expiry_that_comes_before_the_one_that_is_waited_for_is_not_late(
    resident_place: Place,
) -> None:
    class Soon(Short, retention=timedelta(hours=1)):
        pass

    clock = ManualClock()

    async def main() -> None:
        async with resident_place.engine(Short(), Soon(), clock=clock) as engine:
            await engine.call(Short.run, key="k")
            await until_idle(engine)
            await engine.call(Soon.run, key="k")
            clock.advance(timedelta(hours=1))
            await until_idle(engine)
            assert scheduler_of(engine).store.count_committed(Db.INVOCATIONS) == 1

    run(main())
