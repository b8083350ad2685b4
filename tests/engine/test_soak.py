"""Short workflows, one after the other: what they leave goes, and its place is used again."""

from __future__ import annotations

import asyncio
import gc
import os
from datetime import timedelta
from pathlib import Path

import pytest
from engine_support import QUICK, scheduler_of, until
from invariants import assert_invariants

from perdure import Engine, NotFound, Workflow, WorkflowContext, WorkflowSharedContext, handler
from perdure._store import Db

AT_A_TIME = 100

FILE_BYTES_MAX = 8 * 1024 * 1024
"""However many there were: what a moment's workflows need, and what waits to be removed."""

GROWTH_KIB_MAX = 16 * 1024
"""Of resident memory, from a tenth of the way to the end."""


class Brief(Workflow, retention=timedelta(milliseconds=50)):
    async def run(self, ctx: WorkflowContext, text: str) -> str:
        ctx.set("text", text)
        event = await ctx.promise("event", str)
        return await ctx.run("step", lambda: f"{text} {event}")

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("event", str).resolve("event")

    @handler
    async def waits(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("never", str)


def resident_kib() -> int:
    """Resident memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def purged(engine: Engine, key: str) -> None:
    """Wait for what never happens, until the key goes."""
    with pytest.raises(NotFound, match="was purged"):
        await engine.call(Brief.waits, key=key)


async def soak(path: Path, count: int) -> None:
    async with Engine(path, [Brief()], durability="os", default_retry=QUICK) as engine:
        store = scheduler_of(engine).store
        numbers = iter(range(count))
        file = path / "data.mdb"
        at_a_tenth_kib = 0

        async def client() -> None:
            nonlocal at_a_tenth_kib
            for number in numbers:
                key = f"key {number}"
                handle = await engine.send(Brief.run, "x" * 500, key=key)
                if number % 10 == 0:
                    await asyncio.gather(purged(engine, key), engine.call(Brief.go, key=key))
                else:
                    await engine.call(Brief.go, key=key)
                    assert await handle.result() == "x" * 500 + " event"
                if number % 10 == 1:
                    await engine.call(Brief.go, key=f"never run {number}")
                if number == count // 10:
                    at_a_tenth_kib = resident_kib()

        async with asyncio.TaskGroup() as clients:
            for _ in range(AT_A_TIME):
                clients.create_task(client())
        grown_kib = resident_kib() - at_a_tenth_kib
        assert file.stat().st_size <= FILE_BYTES_MAX
        assert grown_kib <= GROWTH_KIB_MAX
        await until(lambda: store.count_committed(Db.EXPIRY) == 0)
        for db in Db:
            if db not in (Db.META, Db.SITES):
                assert store.count_committed(db) == 0, db.name
    assert_invariants(path)


def test_the_file_does_not_grow_with_the_number_of_workflows(tmp_path: Path) -> None:
    asyncio.run(soak(tmp_path / "data", 4000))


@pytest.mark.long
def test_the_file_does_not_grow_with_very_many_workflows(tmp_path: Path) -> None:
    asyncio.run(soak(tmp_path / "data", 50_000))
