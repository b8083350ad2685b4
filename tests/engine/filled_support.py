"""A closed data directory that has rows of every kind, for what damages them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_support import ManualClock, Place, quiet_log, run, until_idle, until_status
from introspection_support import Counter, Echo, Gate

from perdure import Context, RetryPolicy, Service, Status, handler
from perdure._store import Db, Store

SLOW = RetryPolicy(initial=60, max_attempts=5)


class Waits(Service):
    """Waits for one thing of each kind, all at once."""

    @handler
    async def wait(self, ctx: Context) -> None:
        awaited = (
            ctx.after(1000),
            ctx.awakeable(int),
            ctx.signal("go", int),
            ctx.call(Gate.run, 1, key=ctx.invocation_id),
        )
        await ctx.wait_first(*awaited)


def services() -> tuple[Any, ...]:
    """Those whose rows are there."""
    return Waits(), Gate(), Echo(), Counter()


def fill(path: Path) -> Path:
    """Make it; every database has a row."""
    quiet_log()
    counter = Counter()

    async def main() -> None:
        engine = Place(path, 10_000).engine(
            *(Waits(), Gate(), Echo(), counter),
            clock=ManualClock(),
            default_retry=SLOW,
            drain_timeout=0.01,
        )
        async with engine:
            await engine.send(Waits.wait, idempotency_key="once")
            paused = await engine.send(Gate.run, 1, key="paused")
            await until_idle(engine)
            await engine.pause(paused.id)
            await engine.call(Gate.go, 1, key="paused")  # pending
            await engine.resolve("Gate.go", 1, key="early")
            await engine.send(Echo.say, 1, delay=1000)
            failing = await engine.send(Echo.fail)
            await until_status(engine, failing, Status.BACKING_OFF)
            waits = await engine.send(Waits.wait)
            await engine.signal(waits.id, "other", 1)
            await engine.call(Counter.add, 1, key="k")
            done = await engine.send(Gate.run, 1, key="done")
            await engine.call(Gate.go, 1, key="done")
            await done.result()
            said = await engine.send(Echo.say, 1)
            await said.result()
            await engine.send(Counter.hold, key="k")
            await counter.holding.wait()
            await engine.send(Counter.add, 1, key="k")

    run(main())
    return path


def rows_of(path: Path, db: Db) -> list[tuple[bytes, bytes]]:
    """All rows of a database, in key order."""
    store = Store(path, durability="os")
    try:
        return store.scan_committed(db)
    finally:
        store.close()


def change(path: Path, write: Callable[[Store], None]) -> None:
    """Let *write* change rows, with the checksums that perdure would give them."""
    store = Store(path, durability="os")
    try:
        write(store)
        store.seal()
    finally:
        store.close()
