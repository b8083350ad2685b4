"""Removing what has completed by hand."""

from __future__ import annotations

import asyncio
from typing import Any

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
    until_status,
)
from stalled_disk import StalledDisk

from perdure import (
    Accepted,
    Conflict,
    Context,
    InvalidInput,
    NotFound,
    Pending,
    Service,
    Status,
    StoreClosed,
    StoreCorrupt,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._ids import format_id
from perdure._runtime import _purges
from perdure._runtime._layout import run_target, target_digest
from perdure._store import Db


class Order(Workflow):
    async def run(self, ctx: WorkflowContext, steps: int) -> int:
        ctx.set("steps", steps)
        for number in range(steps):
            await ctx.run(f"step {number}", lambda: None)
        await ctx.promise("done", int).resolve(steps)
        return steps

    @handler
    async def steps(self, ctx: WorkflowSharedContext) -> int | None:
        return await ctx.get("steps", int)

    @handler
    async def is_done(self, ctx: WorkflowSharedContext) -> bool:
        return await ctx.promise("done", int).peek() is not Pending

    @handler
    async def waits(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.promise("never", str)


class Late(Workflow):
    """Waits for good, or is paused."""

    async def run(self, ctx: WorkflowContext, how: str) -> str:
        if how == "paused":
            raise ValueError("again and again")
        return await ctx.promise("never", str)


class Mail(Service):
    @handler
    async def send(self, ctx: Context) -> str:
        await ctx.run("step", lambda: None)
        return "sent"


def test_all_of_a_purged_workflow_is_gone_and_its_key_is_free(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order()) as engine:
            first = await engine.send(Order.run, 3, key="k")
            await first.result()
            await engine.purge(first.id)
            for ask in (engine.output, engine.attach, engine.describe, engine.purge):
                with pytest.raises(NotFound, match=f"no invocation {first.id}"):
                    await ask(first.id)
            assert await engine.call(Order.steps, key="k") is None
            assert not await engine.call(Order.is_done, key="k")
            second = await engine.send(Order.run, 1, key="k")
            assert second.accepted is Accepted.NEW
            assert second.id != first.id
            assert await second.result() == 1
            await engine.purge(second.id)

    run(main())
    assert rows_left(place.path) == {}


def test_a_purge_is_durable_when_it_returns(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 1, key="k")
            await handle.result()
            await engine.purge(handle.id)
            store = scheduler_of(engine).store
            assert store.committed == store.sealed
            assert store.count_committed(Db.INVOCATIONS) == 0

    run(main())


def test_the_result_of_a_send_can_be_purged(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Mail()) as engine:
            handle = await engine.send(Mail.send)
            await handle.result()
            await engine.purge(handle.id)
            with pytest.raises(NotFound):
                await handle.output()

    run(main())
    assert rows_left(place.path) == {}


def test_a_purge_fails_who_waits_for_a_promise_of_the_key(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 1, key="k")
            await handle.result()
            waiting = await engine.send(Order.waits, key="k")
            await until_status(engine, waiting, Status.SUSPENDED)
            await engine.purge(handle.id)
            with pytest.raises(NotFound, match="key 'k' of workflow Order was purged"):
                await waiting.result()

    run(main())


def test_a_service_that_is_not_registered_can_be_purged(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 1, key="k")
            await handle.result()
        async with place.engine() as engine:
            await engine.purge(handle.id)

    run(main())
    assert rows_left(place.path) == {}


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.PAUSED])
def test_what_has_not_completed_is_not_purged(place: Place, status: Status) -> None:
    quiet_log()

    async def main() -> None:
        async with place.engine(Late()) as engine:
            handle = await engine.send(Late.run, status.value, key="k")
            await until_status(engine, handle, status)
            with pytest.raises(Conflict) as refused:
                await engine.purge(handle.id)
            assert str(refused.value) == (
                f"{handle.id} is {status.value}; only what has completed can be purged: wait for "
                "its result, or cancel or kill it first"
            )
            assert (await engine.describe(handle.id)).status is status

    run(main())


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("inv_00000000000000000000000000", NotFound),
        ("order-1", InvalidInput),
        (None, InvalidInput),
        (7, InvalidInput),
    ],
)
def test_what_is_no_invocation_is_not_purged(
    resident_place: Place, given: Any, error: type[Exception]
) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            with pytest.raises(error):
                await engine.purge(given)

    run(main())


def test_a_closed_engine_purges_nothing(resident_place: Place) -> None:
    async def main() -> None:
        engine = resident_place.engine(Order())
        with pytest.raises(StoreClosed, match="not open"):
            await engine.purge("inv_00000000000000000000000000")
        async with engine:
            handle = await engine.send(Order.run, 1, key="k")
            await handle.result()
        with pytest.raises(StoreClosed):
            await engine.purge(handle.id)

    run(main())
    assert rows_left(resident_place.path)["INVOCATIONS"] == 1


def test_a_purge_right_at_completion_leaves_nothing(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order()) as engine:

            async def purge(handle: Any) -> None:
                while True:  # as soon as it is possible: the last chunk may not be on the disk
                    try:
                        await engine.purge(handle.id)
                        return
                    except Conflict:
                        await asyncio.sleep(0)

            handles = [await engine.send(Order.run, 2, key=str(number)) for number in range(20)]
            await asyncio.gather(*[purge(handle) for handle in handles])

    run(main())
    assert rows_left(place.path) == {}


def test_a_purge_waits_for_the_commit_of_what_it_removes(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            sent = await engine.send(Order.run, 1, key="k")
            await sent.result()
            store = scheduler_of(engine).store
            with StalledDisk(resident_place.path):
                # What comes first is on its way to the disk; what comes now is not.
                first = asyncio.create_task(engine.send(Order.run, 0, key="first"))
                await settle()
                second = asyncio.create_task(engine.send(Order.run, 0, key="second"))
                await settle()
                second_target = target_digest(run_target("Order", "second"))
                (value,) = [value for _, value in store.scan(Db.TARGETS, second_target)]
                invocation_id = format_id(value[-16:])
                purge = asyncio.create_task(engine.purge(invocation_id))
                await settle()
                assert not purge.done()
            await asyncio.gather(first, second, purge)
            await engine.purge(sent.id)
            await engine.purge(first.result().id)

    run(main())
    assert rows_left(resident_place.path) == {}


async def settle() -> None:
    """Let the loop turn until whatever can go on has."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_two_purges_of_one_invocation_at_a_time_both_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_purges, "CHUNKS_PER_UNIT", 2)

    async def main() -> None:
        async with place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 11, key="k")
            await handle.result()
            await asyncio.gather(engine.purge(handle.id), engine.purge(handle.id))

    run(main())
    assert rows_left(place.path) == {}


def test_who_purges_what_another_purges_waits_for_the_commit_too(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 1, key="k")
            await handle.result()
            await until_idle(engine)
            store = scheduler_of(engine).store

            async def purge() -> bool:
                await engine.purge(handle.id)
                return bool(store.committed == store.sealed)

            with StalledDisk(resident_place.path):
                early = asyncio.create_task(engine.resolve("Order.done", 1, key="early"))
                await settle()
                purges = [asyncio.create_task(purge()) for _ in range(2)]
                await settle()  # both wait for the commit of what came early
            assert await asyncio.gather(*purges) == [True, True]
            await early

    run(main())


def test_the_cleaner_ends_a_purge_that_a_stop_cut_short(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_purges, "CHUNKS_PER_UNIT", 2)
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Order(), clock=clock) as engine:
            handle = await engine.send(Order.run, 11, key="k")
            await handle.result()
            purge = asyncio.create_task(engine.purge(handle.id))
            await asyncio.sleep(0)  # it has removed the first slice
            assert not purge.done()
        with pytest.raises(StoreClosed):
            await purge
        left = rows_left(place.path)
        assert left["INVOCATIONS"] == 1
        assert left["JOURNAL"] < 12
        async with place.engine(Order(), clock=clock) as engine:
            await until_idle(engine)

    run(main())
    assert rows_left(place.path) == {}


def test_a_cancelled_purge_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_purges, "CHUNKS_PER_UNIT", 2)

    async def main() -> None:
        async with place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 11, key="k")
            await handle.result()
            store = scheduler_of(engine).store
            purge = asyncio.create_task(engine.purge(handle.id))
            await asyncio.sleep(0)
            purge.cancel()
            await until(lambda: store.count_committed(Db.INVOCATIONS) == 0)

    run(main())
    assert rows_left(place.path) == {}


def test_a_damaged_row_stops_a_purge_and_nothing_else(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            handle = await engine.send(Order.run, 1, key="k")
            await handle.result()
            with monkeypatch.context() as broken:

                def fails(*_: object) -> None:
                    raise StoreCorrupt("a damaged row")

                broken.setattr(_purges, "unpack_target", fails)
                with pytest.raises(StoreCorrupt, match="a damaged row"):
                    await engine.purge(handle.id)
            assert await handle.output() == 1
            await engine.purge(handle.id)

    run(main())
    assert rows_left(resident_place.path) == {}


# -- private ------------------------------------------------------------------------------------


class Inside(Workflow, private=True):
    async def run(self, ctx: WorkflowContext) -> str:
        return "ran"

    @handler(private=False)
    async def ask(self, ctx: WorkflowSharedContext) -> str:
        return "asked"


class Partly(Service):
    @handler(private=True)
    async def hidden(self, ctx: Context) -> str:
        return "hidden"

    @handler
    async def shown(self, ctx: Context) -> str:
        return "shown"


def test_a_private_handler_is_not_called_from_outside(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Inside(), Partly()) as engine:
            for verb in (engine.call, engine.send, engine.submit):
                with pytest.raises(InvalidInput) as refused:
                    await verb(Inside.run, key="k")
                assert str(refused.value) == "Inside.run is private: only handlers may call it"
            for call in (engine.call, engine.send):
                with pytest.raises(InvalidInput, match=r"Partly\.hidden is private"):
                    await call("Partly.hidden")
            assert await engine.call(Partly.shown) == "shown"
            assert await engine.call(Inside.ask, key="k") == "asked"

    run(main())
    assert rows_left(resident_place.path) == {}
