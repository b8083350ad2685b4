"""Invocations whose service, handler or version is not registered: left alone, and said so."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until_idle, until_status

from perdure import (
    Engine,
    InvalidInput,
    NotFound,
    Status,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._store import Store


class Order(Workflow):
    """Waits for an hour, or for a promise."""

    async def run(self, ctx: WorkflowContext) -> str:
        timer = ctx.after(3600)
        paid = ctx.promise("paid")
        return "late" if await ctx.wait_first(paid, timer) is timer else "paid"

    @handler
    async def pay(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("paid").resolve(None)

    @handler
    async def watch(self, ctx: WorkflowSharedContext) -> str:
        await ctx.promise("paid")
        return "seen"


class Other(Workflow):
    async def run(self, ctx: WorkflowContext) -> None: ...


def order_of_version(version: int, without: tuple[str, ...] = ()) -> Any:
    """The class as another release of the program has it."""
    names = dict.fromkeys(without)
    return type("Order", (Order,), names, version=version)


def rows(place: Place) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that the closed directory holds, but for what says how it was closed."""
    from perdure._store import Db

    store = Store(place.path, durability="os")
    try:
        return {db.name: store.scan(db, b"") for db in Db if db.name != "META"}
    finally:
        store.close()


GONE: list[tuple[str, Any, str]] = [
    ("service", Other, "service 'Order' is not registered here"),
    ("version", order_of_version(2), "version 1 of service 'Order' is not registered here, but 2"),
]


@pytest.mark.parametrize(("what", "here", "why"), GONE, ids=[gone[0] for gone in GONE])
def test_it_is_blocked_and_describe_says_why(
    resident_place: Place, what: str, here: Any, why: str
) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            handle = await engine.send(Order.run, key="k")
        async with resident_place.engine(here()) as engine:
            description = await engine.describe(handle.id)
            assert description.status is Status.BLOCKED
            assert str(description.waiting_on[0]) == why
            assert "promise 'paid'" in [str(each) for each in description.waiting_on]

    run(main())


def test_a_handler_that_is_gone_blocks_its_invocations_alone(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            runs = await engine.send(Order.run, key="k")
            watches = await engine.send(Order.watch, key="k")
            await until_idle(engine)
        async with resident_place.engine(order_of_version(1, without=("watch",))()) as engine:
            description = await engine.describe(watches.id)
            assert description.status is Status.BLOCKED
            assert str(description.waiting_on[0]) == "service 'Order' has no handler 'watch' here"
            assert (await engine.describe(runs.id)).status is Status.SUSPENDED
            await engine.call("Order.pay", key="k")
            assert await engine.attach(runs.id) == "paid"
            assert (await engine.describe(watches.id)).status is Status.BLOCKED
        async with resident_place.engine(Order()) as engine:
            assert await engine.attach(watches.id) == "seen"

    run(main())


@pytest.mark.parametrize("here", [Other, order_of_version(2)])
def test_no_row_of_it_changes_also_when_its_timer_is_due(resident_place: Place, here: Any) -> None:
    quiet_log()
    clock = ManualClock()

    async def send() -> None:
        async with resident_place.engine(Order(), clock=clock) as engine:
            await engine.send(Order.run, key="k")

    async def pass_by() -> None:
        async with resident_place.engine(here(), clock=clock) as engine:
            await until_idle(engine)
            clock.advance(7200)
            await until_idle(engine)

    run(send())
    before = rows(resident_place)
    run(pass_by())
    clock.advance(7200)
    run(pass_by())
    assert rows(resident_place) == before


def test_its_due_timer_waits_and_fires_when_the_service_is_back(resident_place: Place) -> None:
    quiet_log()
    clock = ManualClock()

    async def main() -> None:
        async with resident_place.engine(Order(), clock=clock) as engine:
            handle = await engine.send(Order.run, key="k")
        clock.advance(7200)
        async with resident_place.engine(Other(), clock=clock) as engine:
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.BLOCKED
        async with resident_place.engine(Order(), clock=clock) as engine:
            assert await engine.attach(handle.id) == "late"

    run(main())


def test_a_promise_completed_for_it_waits_until_it_goes_on(resident_place: Place) -> None:
    quiet_log()

    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            handle = await engine.send(Order.run, key="k")
        newer = order_of_version(2)
        async with resident_place.engine(newer()) as engine:
            await engine.call("Order.pay", key="k")
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.BLOCKED
        async with resident_place.engine(newer()) as engine:
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.BLOCKED
        async with resident_place.engine(Order()) as engine:
            assert await engine.attach(handle.id) == "paid"

    run(main())


def warnings_at_start(place: Place, caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    async def main() -> None:
        async with place.engine(Other(), **options) as engine:
            await until_idle(engine)
            await asyncio.sleep(0)

    caplog.clear()
    with caplog.at_level(logging.WARNING, "perdure"):
        run(main())
    return [record.getMessage() for record in caplog.records if record.name == "perdure"]


async def send_and_leave(engine: Engine, clock: ManualClock) -> None:
    """Three suspended for an hour, and one that is ready besides."""
    for key in "abc":
        await engine.send(Order.run, key=key)
    await until_idle(engine)


def test_one_warning_at_start_counts_the_due_and_the_ready_once_each(
    resident_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with resident_place.engine(Order(), clock=clock) as engine:
            await send_and_leave(engine, clock)
        async with resident_place.engine(order_of_version(2)(), clock=clock) as engine:
            await engine.call("Order.pay", key="a")  # ready now, and its timer still stands

    run(main())
    text = (
        "{} invocations have something to do, but belong to services, handlers or versions that "
        "are not registered here; they are left alone and go on when an engine has them"
    )
    assert warnings_at_start(resident_place, caplog, clock=clock) == [text.format(1)]
    clock.advance(7200)
    assert warnings_at_start(resident_place, caplog, clock=clock) == [text.format(3)]


def test_nothing_is_said_of_those_that_only_wait(
    resident_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with resident_place.engine(Order(), clock=clock) as engine:
            await send_and_leave(engine, clock)

    run(main())
    assert warnings_at_start(resident_place, caplog, clock=clock) == []


def test_its_back_off_waits_too(resident_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    attempts: list[int] = []

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            attempts.append(1)
            if len(attempts) == 1:
                raise ValueError("once")
            return "done"

    async def first() -> str:
        async with resident_place.engine(Flaky(), clock=clock) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
            return handle.id

    async def second(invocation_id: str) -> None:
        async with resident_place.engine(Flaky(), clock=clock) as engine:
            assert await engine.attach(invocation_id) == "done"

    with caplog.at_level(logging.CRITICAL, "perdure"):
        invocation_id = run(first())
    clock.advance(60)
    assert len(warnings_at_start(resident_place, caplog, clock=clock)) == 1
    run(second(invocation_id))


def test_its_result_needs_a_type_but_can_be_waited_for(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Order()) as engine:
            handle = await engine.send(Order.run, key="k")
            await engine.call(Order.pay, key="k")
            assert await handle.result() == "paid"
        async with resident_place.engine(Other()) as engine:
            with pytest.raises(InvalidInput, match=r"Order\.run is not registered here: pass ret"):
                await engine.output(handle.id)
            assert await engine.output(handle.id, str) == "paid"
            assert (await engine.describe(handle.id)).status is Status.COMPLETED
            with pytest.raises(NotFound, match="service 'Order' is not registered here"):
                await engine.submit(Order.run, key="k")

    run(main())
