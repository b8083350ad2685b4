"""What an engine keeps in memory for what is over: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from engine_support import (
    Place,
    quiet_log,
    run,
    scheduler_of,
    until_idle,
    until_status,
)

from perdure import (
    Context,
    Engine,
    RetryPolicy,
    Service,
    Status,
    Workflow,
    WorkflowContext,
    handler,
)
from perdure._ids import parse_id

ONCE = RetryPolicy(max_attempts=1)


class Count(Service):
    """Counts how often its handler runs."""

    def __init__(self) -> None:
        self.runs = 0

    @handler
    async def go(self, ctx: Context) -> int:
        self.runs += 1
        return self.runs


class Fail(Workflow):
    """Fails whenever it runs."""

    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.sleep(0)
        raise ValueError("on purpose")


def kept_by(engine: Engine) -> dict[str, int]:
    """The sizes of what the engine has by invocation."""
    scheduler = scheduler_of(engine)
    kept: dict[str, Any] = {
        "residents": scheduler.residents.by_id,
        "dropped": scheduler.residents._dropped,
        "starting": scheduler._starting,
        "waiters": scheduler.answers._waiters,
        "running": scheduler.running.all(),
        "held": [scheduler.gate] if scheduler.gate.holds() else [],
        "overlay": [row for rows in scheduler.store._rows for row in rows],
    }
    return {what: len(items) for what, items in kept.items() if items}


def test_nothing_is_kept_of_what_has_completed(resident_place: Place) -> None:
    async def main() -> dict[str, int]:
        async with resident_place.engine(Count()) as engine:
            await asyncio.gather(*(engine.call(Count.go) for _ in range(200)))
            await asyncio.gather(*(engine.send(Count.go) for _ in range(200)))
            await until_idle(engine)
            return kept_by(engine)

    assert run(main()) == {}


def test_nothing_is_kept_of_what_has_failed_and_is_paused(resident_place: Place) -> None:
    quiet_log()

    async def main() -> dict[str, int]:
        async with resident_place.engine(Fail(), default_retry=ONCE) as engine:
            handles = [await engine.send(Fail.run, key=str(number)) for number in range(20)]
            for handle in handles:
                await until_status(engine, handle, Status.PAUSED)
            await until_idle(engine)
            return kept_by(engine)

    assert run(main()) == {}


def test_what_has_completed_is_never_loaded_again(resident_place: Place) -> None:
    count = Count()

    async def main() -> None:
        async with resident_place.engine(count) as engine:
            handle = await engine.send(Count.go)
            assert await handle.result() == 1
            scheduler = scheduler_of(engine)
            scheduler.residents.wake(parse_id(handle.id))
            await until_idle(engine)
            assert count.runs == 1
            assert not scheduler.residents.by_id

    run(main())
