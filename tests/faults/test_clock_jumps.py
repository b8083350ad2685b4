"""A clock that jumps by hours, to and fro: nothing is early, lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until, until_idle, until_status

from perdure import (
    Accepted,
    Engine,
    NotFound,
    RetryPolicy,
    Service,
    Status,
    Workflow,
    WorkflowContext,
    handler,
)
from perdure._runtime import _clock
from perdure._runtime._clock import WallClock
from perdure.context import Context

HOUR = 3600.0
FOREVER = RetryPolicy(initial=60, factor=1, max_interval=60, max_attempts=1000)


class Ticks(Workflow, retention=timedelta(days=3650)):
    """Sleeps and steps in turn; what it has seen of the time is its result."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.latest_ms = 0  # the furthest the clock has ever been
        self.steps: list[str] = []
        self.failures = 0

    def step(self, key: str, number: int) -> int:
        self.steps.append(f"{key} {number}")
        if self.failures and number % 2:
            self.failures -= 1
            raise OSError("not yet")
        return number

    async def run(self, ctx: WorkflowContext, delays: list[float]) -> list[tuple[int, int]]:
        seen = []
        for number, delay in enumerate(delays):
            before = ctx.now()
            await ctx.sleep(delay)
            assert ctx.now() >= before + timedelta(seconds=delay), "it was early"
            seen.append((_ms(before) + round(delay * 1000), _ms(ctx.now())))
            await ctx.run("step", self.step, ctx.key, number)
            assert ctx.now() >= before
        return seen


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


@pytest.mark.parametrize("seed", range(4))
def test_under_any_jumps_timers_and_retries_keep_their_order_and_happen_once(
    place: Place, seed: int
) -> None:
    quiet_log()
    chance = random.Random(seed)
    clock = ManualClock()
    service = Ticks(clock)
    service.failures = 5
    delays = {str(k): [chance.choice([0.0, 1.0, 90.0, HOUR]) for _ in range(4)] for k in range(8)}
    latest = 0

    def engine() -> Engine:
        return place.engine(service, clock=clock, default_retry=FOREVER)

    async def jump_around(engine: Engine, jumps: int) -> None:
        nonlocal latest
        for _ in range(jumps):
            clock.advance(chance.choice([-5, -1, -0.01, 0.001, 0.02, 1, 6]) * HOUR)
            latest = max(latest, clock.now_ms())
            await until_idle(engine)

    async def main() -> None:
        nonlocal latest
        async with engine() as first:
            sent = []
            for key, times in delays.items():
                sent.append(await first.send(Ticks.run, times, key=key))
                clock.advance(chance.choice([-1, 0, 1]) * HOUR)
            ids = [handle.id for handle in sent]
            assert ids == sorted(ids), "ids of one engine ascend, whatever the clock does"
            await jump_around(first, 12)
        async with engine() as second:  # replayed, by another time
            await jump_around(second, 12)
            clock.advance(1000 * HOUR)
            results = {key: asyncio.create_task(_result(second, key)) for key in delays}
            while not all(result.done() for result in results.values()):
                latest = max(latest, clock.now_ms())
                await until_idle(second)
                clock.advance(2 * HOUR)
            for key, result in results.items():
                seen = await result
                assert len(seen) == len(delays[key])
                times = [time for _, time in seen]
                assert times == sorted(times)
                for deadline, fired in seen:
                    assert deadline <= fired <= latest + 2 * HOUR * 1000
            described = await second.describe(sent[0].id)
            assert str(described)

    run(main())
    # Once each, and once more for each failure.
    assert len(service.steps) == sum(map(len, delays.values())) + 5 - service.failures


async def _result(engine: Engine, key: str) -> list[list[int]]:
    result: Any = await engine.submit(Ticks.run, [], key=key)
    return [list(pair) for pair in result]


def test_a_jump_forward_fires_what_is_due_then_once_in_the_order_of_the_deadlines(
    place: Place,
) -> None:
    clock = ManualClock()
    order: list[str] = []

    async def note(key: str) -> None:  # in the loop: threads have no order
        order.append(key)

    class Late(Workflow):
        async def run(self, ctx: WorkflowContext, delay: float) -> None:
            await ctx.sleep(delay)
            await ctx.run("note", note, ctx.key)

    async def main() -> None:
        async with place.engine(Late(), clock=clock) as engine:
            for hours in (3, 1, 2, 30):
                await engine.send(Late.run, hours * HOUR, key=str(hours))
            await until_idle(engine)
            clock.advance(5 * HOUR)
            await until_idle(engine)
            assert order == ["1", "2", "3"]
            clock.advance(-5 * HOUR)
            await until_idle(engine)
            clock.advance(5 * HOUR)
            await until_idle(engine)
            assert order == ["1", "2", "3"]
            clock.advance(25 * HOUR)
            await until_idle(engine)
            assert order == ["1", "2", "3", "30"]

    run(main())


class Once(Service):
    @handler(idempotency_retention=timedelta(hours=24))
    async def now(self, ctx: Context) -> datetime:
        return ctx.now()


def test_an_idempotency_key_is_kept_while_the_clock_goes_back_and_goes_when_its_time_has_come(
    place: Place,
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Once(), clock=clock) as engine:
            first = await engine.send(Once.now, idempotency_key="k")
            value = await first.result()
            for jump in (-48, 24, -1, 40):  # at last 15 hours after it was made
                clock.advance(jump * HOUR)
                await until_idle(engine)
                again = await engine.send(Once.now, idempotency_key="k")
                assert (again.id, again.accepted) == (first.id, Accepted.EXISTING)
                assert await again.result() == value
            clock.advance(10 * HOUR)
            await until_idle(engine)
            with pytest.raises(NotFound):
                await engine.output(first.id)
            anew = await engine.send(Once.now, idempotency_key="k")
            assert anew.accepted is Accepted.NEW
            assert await anew.result() > value

    run(main())


def test_what_backs_off_goes_on_when_its_time_comes_however_often_the_clock_is_set_back(
    place: Place,
) -> None:
    quiet_log()
    clock = ManualClock()
    attempts: list[int] = []

    class Fails(Workflow):
        async def run(self, ctx: WorkflowContext) -> int:
            attempts.append(clock.now_ms())
            if len(attempts) < 3:
                raise OSError("not yet")
            return len(attempts)

    async def main() -> None:
        async with place.engine(Fails(), clock=clock, default_retry=FOREVER) as engine:
            handle = await engine.send(Fails.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
            clock.advance(-2 * HOUR)
            await until_idle(engine)
            assert len(attempts) == 1
            assert (await engine.describe(handle.id)).status is Status.BACKING_OFF
            clock.advance(2 * HOUR + 61)
            await until(lambda: len(attempts) == 2, "the second attempt")
            clock.advance(-HOUR)
            clock.advance(HOUR + 61)
            assert await handle.result() == 3

    run(main())


def test_the_machines_clock_set_forward_or_back_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clock, "SLEEP_MAX_S", 0.02)
    real = time.time_ns
    offset_ns = 0
    monkeypatch.setattr(time, "time_ns", lambda: real() + offset_ns)

    class Sleeps(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            await ctx.sleep(HOUR)
            return "woken"

    async def main() -> None:
        nonlocal offset_ns
        async with Engine(tmp_path, [Sleeps()], durability="os", clock=WallClock()) as engine:
            handle = await engine.send(Sleeps.run, key="k")
            offset_ns = -5 * 3600 * 10**9
            await asyncio.sleep(0.1)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
            offset_ns = 2 * 3600 * 10**9
            assert await handle.result() == "woken"

    run(main())
