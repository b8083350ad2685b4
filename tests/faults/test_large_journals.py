"""A journal of 100,000 entries: written, killed, replayed, read in each way, ended and purged."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from engine_support import rows_left, until_idle
from faults_support import run_child

from perdure import (
    Engine,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._doctor import check_directory
from perdure._ids import InvocationId, format_id
from perdure._store import Db, ReadOnlyStore

ROUNDS = 100
STEPS, TIMERS, WRITES = 400, 90, 20
"""Of one round. A write is one entry; a step or a timer is two, the command and its answer."""
ENTRIES = ROUNDS * (2 * STEPS + 2 * TIMERS + WRITES)


class Long(Workflow):
    """Makes a journal of 100,000 entries, and a few."""

    async def run(self, ctx: WorkflowContext) -> int:
        total = 0
        for number in range(ROUNDS):
            steps = [ctx.run("step", _same, number, returns=int) for _ in range(STEPS)]
            timers = [ctx.after(0) for _ in range(TIMERS)]
            for name in range(WRITES):
                ctx.set(f"state {name}", number)
            total += sum(await asyncio.gather(*steps))
            await asyncio.gather(*timers)
        await ctx.promise("done", bool).resolve(True)
        return total + await ctx.promise("more", int)

    @handler
    async def until_done(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("done", bool)

    @handler
    async def end(self, ctx: WorkflowSharedContext, more: int) -> None:
        await ctx.promise("more", int).resolve(more)


RESULT = STEPS * sum(range(ROUNDS)) + 7


async def _same(number: int) -> int:
    return number


def begin_and_die(path: str) -> None:
    """In a child: write the journal, and be killed."""

    async def main() -> None:
        async with Engine(path, [Long()], durability="os") as engine:
            await engine.send(Long.run, key="k")
            await engine.call(Long.until_done, key="k")
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


class Watched:
    """What the loop's thread did at most between two turns of another task, and its memory.

    Time is that of the processor: however busy the machine is, it is what the loop was held for.
    """

    def __init__(self) -> None:
        self.held_s: dict[str, float] = {}
        self.memory_kib: dict[str, int] = {}

    async def over(self, what: str, work: Any) -> Any:
        """The outcome of *work*, an awaitable, watched."""
        self.held_s[what] = self.memory_kib[what] = 0
        before = _memory_kib()
        watching = asyncio.create_task(self._watch(what, before))
        await asyncio.sleep(0)
        try:
            return await work
        finally:
            watching.cancel()

    async def _watch(self, what: str, before: int) -> None:
        while True:
            begin = time.thread_time()
            await asyncio.sleep(0)
            self.held_s[what] = max(self.held_s[what], time.thread_time() - begin)
            self.memory_kib[what] = max(self.memory_kib[what], _memory_kib() - before)


def _memory_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return int(kib)


async def pages_of(engine: Engine, invocation_id: str) -> int:
    """How many entries there are, described a page at a time."""
    seen = 0
    position: int | None = 0
    while position is not None:
        page = await engine.describe(invocation_id, journal_from=position, journal_limit=20_000)
        seen, position = seen + len(page.journal), page.journal_next
    return seen


async def see_through(engine: Engine, invocation_id: str) -> Watched:
    watched = Watched()
    seen = await watched.over("describe", pages_of(engine, invocation_id))
    assert seen >= ENTRIES
    rows = await watched.over("query", engine.query("SELECT count(*) FROM sys_journal"))
    assert rows.rows == [(seen,)]
    history = await watched.over("export", engine.export(invocation_id))
    assert len(history.dumps()) > seen
    report = await watched.over("check", engine.check())
    assert report.ok, report
    await watched.over("end", engine.call(Long.end, 7, key="k"))
    assert await watched.over("replay", engine.attach(invocation_id)) == RESULT
    await watched.over("purge", engine.purge(invocation_id))
    await watched.over("remove", until_idle(engine))
    return watched


@pytest.mark.long
def test_a_journal_of_100_000_entries_is_seen_through_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "data"
    child = run_child("test_large_journals:begin_and_die", path)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert check_directory(path, deep=True).ok
    store = ReadOnlyStore(path)
    ((raw, _),) = store.scan(Db.INVOCATIONS, b"")
    store.close()

    async def go_on() -> Watched:
        async with Engine(path, [Long()], durability="os", max_resident=0) as engine:
            return await see_through(engine, format_id(InvocationId(raw)))

    gc.disable()  # with 100,000 entries alive, one pass of the collector takes some 60 ms
    try:
        watched = asyncio.run(go_on())
    finally:
        gc.enable()
    assert rows_left(path) == {}
    # A slice of 5 ms, and what it is at when that is over.
    assert max(watched.held_s.values()) < 0.02, watched.held_s
    assert max(watched.memory_kib.values()) < 64 * 1024, watched.memory_kib
