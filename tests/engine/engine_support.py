"""What the engine's tests share: a place, a clock turned by hand, waiting for events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from perdure import Engine, InvocationHandle, RetryPolicy, Status
from perdure._runtime._scheduler import Scheduler
from perdure._store import Db, Store

T = TypeVar("T")

QUICK = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=3)
"""Three attempts, a millisecond apart."""

HANG_S = 10.0
"""A test that takes longer hangs."""


@dataclass(frozen=True)
class Place:
    """Where an engine of a test keeps its data, and how many invocations it keeps in memory."""

    path: Path
    max_resident: int

    def engine(self, *services: Any, **options: Any) -> Engine:
        options = {
            "durability": "os",
            "max_resident": self.max_resident,
            "default_retry": QUICK,
            "drain_timeout": 5.0,
            **options,
        }
        return Engine(self.path, services, **options)


class ManualClock:
    """A clock that stands still until it is turned."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._waiting: list[tuple[int, asyncio.Handle, asyncio.AbstractEventLoop]] = []

    def now_ms(self) -> int:
        return self._now_ms

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        if when_ms <= self._now_ms:
            return loop.call_soon(callback)
        handle = asyncio.Handle(callback, (), loop)
        self._waiting.append((when_ms, handle, loop))
        return handle

    def advance(self, delay: timedelta | float) -> None:
        """Turn the clock on; what is due is called soon."""
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        self._now_ms += round(seconds * 1000)
        due = [item for item in self._waiting if item[0] <= self._now_ms]
        self._waiting = [item for item in self._waiting if item[0] > self._now_ms]
        for _, handle, loop in due:
            if not handle.cancelled():  # its engine, and perhaps its loop, are closed
                loop.call_soon(_run_handle, handle)


def _run_handle(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on a loop of its own; it fails, rather than hangs."""

    async def bounded() -> T:
        async with asyncio.timeout(HANG_S):
            return await main

    return asyncio.run(bounded())


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait until *condition* holds; fail after some seconds."""
    deadline = asyncio.get_running_loop().time() + 5
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} never came"
        await asyncio.sleep(0.001)


async def until_status(
    engine: Engine, handle: InvocationHandle[Any] | str, *statuses: Status
) -> None:
    """Wait until the invocation has one of *statuses*."""
    invocation_id = handle if isinstance(handle, str) else handle.id
    deadline = asyncio.get_running_loop().time() + 5
    while True:
        description = await engine.describe(invocation_id)
        if description.status in statuses:
            return
        assert asyncio.get_running_loop().time() < deadline, description
        await asyncio.sleep(0.001)


def scheduler_of(engine: Engine) -> Scheduler:
    """The inside of *engine*, for what its public face does not show."""
    scheduler = engine._scheduler
    assert scheduler is not None
    return scheduler


async def until_idle(engine: Engine) -> None:
    """Wait until nothing runs and all is committed."""
    scheduler = scheduler_of(engine)
    for _ in range(3):  # what a turned clock calls soon, and what follows, comes first
        await asyncio.sleep(0)
    await until(
        lambda: (
            scheduler.is_quiet()
            and not scheduler.residents.recovering
            and scheduler.store.committed == scheduler.store.sealed
            and not scheduler.gate.holds()
            and scheduler.cleaner.is_idle()
        ),
        "an idle engine",
    )


def rows_left(path: Path) -> dict[str, int]:
    """How many rows each database of a closed directory has, those aside that always stay."""
    store = Store(path, durability="os")
    try:
        counts = {db.name: store.count_committed(db) for db in Db if db not in (Db.META, Db.SITES)}
    finally:
        store.close()
    return {name: count for name, count in counts.items() if count}


def quiet_log() -> None:
    """Failures on purpose need not be printed."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
