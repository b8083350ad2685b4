"""A journal of 100,000 entries: written, evicted, replayed, read in each way, ended and purged."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from engine_support import rows_left, until_idle

from perdure import (
    Engine,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._doctor import check_directory

AT_A_TIME = 500
ROUNDS = 100
STEPS = AT_A_TIME * ROUNDS


class Long(Workflow):
    """50,000 steps: an entry for each, and one for each answer."""

    async def run(self, ctx: WorkflowContext) -> int:
        total = 0
        for number in range(ROUNDS):
            steps = [ctx.run("step", _same, number, returns=int) for _ in range(AT_A_TIME)]
            total += sum(await asyncio.gather(*steps))
            ctx.set("round", number)
        await ctx.promise("done", bool).resolve(True)
        return total + await ctx.promise("more", int)

    @handler
    async def until_done(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("done", bool)

    @handler
    async def end(self, ctx: WorkflowSharedContext, more: int) -> None:
        await ctx.promise("more", int).resolve(more)


async def _same(number: int) -> int:
    return number


class Pulse:
    """How long the loop was held, at most, while it is entered."""

    longest_s = 0.0

    async def __aenter__(self) -> Pulse:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, time.perf_counter() - begin)


@pytest.mark.long
def test_a_journal_of_100_000_entries_is_seen_through(tmp_path: Path) -> None:
    path = tmp_path / "data"
    expected = AT_A_TIME * sum(range(ROUNDS)) + 7

    async def begin() -> str:
        async with Engine(path, [Long()], durability="os") as engine:
            handle = await engine.send(Long.run, key="k")
            async with asyncio.timeout(120):
                await engine.call(Long.until_done, key="k")
            return handle.id

    invocation_id = asyncio.run(begin())
    assert check_directory(path, deep=True).ok

    async def go_on() -> None:
        async with Engine(path, [Long()], durability="os", max_resident=0) as engine:
            async with Pulse() as pulse:
                seen = 0
                position: int | None = 0
                while position is not None:
                    page = await engine.describe(
                        invocation_id, journal_from=position, journal_limit=20_000
                    )
                    seen, position = seen + len(page.journal), page.journal_next
                assert seen >= 2 * STEPS
                rows = await engine.query("SELECT count(*) FROM sys_journal")
                assert rows.rows == [(seen,)]
                history = await engine.export(invocation_id)
                assert len(history.dumps()) > seen
                report = await engine.check()
                assert report.ok, report
                await engine.call(Long.end, 7, key="k")
                assert await engine.attach(invocation_id) == expected
            # A second would be a hang; on a quiet machine it is some milliseconds.
            assert pulse.longest_s < 1.0
            await engine.purge(invocation_id)
            await until_idle(engine)

    asyncio.run(go_on())
    assert rows_left(path) == {}
