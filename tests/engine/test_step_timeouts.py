"""Steps bounded by asyncio's timeouts are cancelled durably, before what compensates for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    run,
    scheduler_of,
    until,
    until_idle,
)
from primitive_support import Primitive
from stalled_disk import StalledDisk

from perdure import WorkflowContext


class Charging:
    """A body that bounds a step by a timeout and compensates for it; counts what happens."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def charge(self) -> None:
        self.log.append("charge")
        try:
            await asyncio.Event().wait()
        finally:
            self.log.append("charge ended")

    async def refund(self) -> None:
        self.log.append("refund")

    async def body(self, ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(10):
                await ctx.run("charge", self.charge)
        except TimeoutError:
            await ctx.run("refund", self.refund)
            return "refunded"
        return "charged"


def test_a_timeout_cancels_its_step_and_what_compensates_comes_after(place: Place) -> None:
    charging = Charging()
    clock = ManualClock()

    async def main() -> list[str]:
        async with place.engine(Primitive(charging.body), clock=clock) as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until(lambda: charging.log == ["charge"])
            clock.advance(10)
            assert await handle.result() == "refunded"
            journal = (await engine.describe(handle.id)).journal
            return [entry.text for entry in journal if entry.is_command]

    timer, *others = run(main())
    assert timer.startswith("timer due")
    assert others[:3] == ["step 'charge'", "cancel of entry 2", "step 'refund'"]
    assert charging.log == ["charge", "charge ended", "refund"]


def test_a_step_whose_timeout_passed_while_the_engine_was_down_never_starts_again(
    place: Place,
) -> None:
    charging = Charging()
    clock = ManualClock()

    async def main() -> Any:
        first = place.engine(Primitive(charging.body), clock=clock, drain_timeout=0)
        async with first as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until(lambda: charging.log == ["charge"])
        clock.advance(10)
        async with place.engine(Primitive(charging.body), clock=clock) as engine:
            return await engine.attach(handle.id)

    quiet_log()
    assert run(main()) == "refunded"
    assert charging.log == ["charge", "charge ended", "refund"]


def test_a_step_that_was_cancelled_does_not_fail_when_its_time_is_up(place: Place) -> None:
    clock = ManualClock()
    begun, released = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        released.wait(10)

    async def body(ctx: WorkflowContext) -> str:
        ctx.run("block", block, timeout=0.3)
        await ctx.sleep(10)
        return "done"

    async def main() -> str:
        async with place.engine(Primitive(body), clock=clock) as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until(begun.is_set)
            store = scheduler_of(engine).store
            await until(lambda: store.committed == store.sealed)
            with StalledDisk(place.path):
                clock.advance(10)  # it returns, which cancels the step, but no commit lands
                await asyncio.sleep(0.5)
            released.set()
            result = await handle.result()
            await asyncio.sleep(0.05)  # a retry would be due
            await until_idle(engine)
            return str(result)

    quiet_log()
    assert run(main()) == "done"
