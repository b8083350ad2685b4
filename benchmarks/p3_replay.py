"""P3: how fast is a workflow with a journal of 100,000 entries brought back?

It makes steps in groups, then waits for a promise. Its store is closed and opened again, and the
promise resolved: the time until its result, less that of a workflow without a past, is the replay.
Raw: LMDB reading the same rows through a cursor, entries counted alike.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import lmdb

import perdure
from benchmarks._measure import Result, Setting, mean_journal_row, run
from perdure import WorkflowContext, WorkflowSharedContext

GOAL = 500_000
ENTRIES_PER_STEP = 2  # the step, and its result
GROUP = 100
ROUNDS = 3


async def step() -> int:
    return 7


class LongPast(perdure.Workflow):
    def __init__(self) -> None:
        self.waits = asyncio.Event()

    async def run(self, ctx: WorkflowContext, steps: int) -> int:
        for _ in range(steps // GROUP):
            for issued in [ctx.run("step", step) for _ in range(GROUP)]:
                await issued
        self.waits.set()
        return await ctx.promise("end", int)

    @perdure.handler
    async def end(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("end", int).resolve(1)


async def make_past(directory: Path, key: str, steps: int) -> int:
    """Write the journal, until the workflow waits; the number of its entries."""
    workflow = LongPast()
    async with perdure.Engine(directory, [workflow], durability="os") as engine:
        started = await engine.send(LongPast.run, steps, key=key)
        await workflow.waits.wait()
        return (await engine.describe(started.id)).journal_length


async def bring_back(directory: Path, key: str, steps: int) -> float:
    """Seconds from the resolution of the promise to the result."""
    async with perdure.Engine(directory, [LongPast()]) as engine:
        begin = time.perf_counter()
        await engine.call(LongPast.end, key=key)
        assert await engine.submit(LongPast.run, steps, key=key) == 1
        return time.perf_counter() - begin


def raw_scan(directory: Path) -> float:
    """Seconds to read each row of the journal."""
    with lmdb.open(str(directory), readonly=True, max_dbs=32, lock=False) as environment:
        journal = environment.open_db(b"journal", create=False)
        begin = time.perf_counter()
        with environment.begin(db=journal) as transaction:
            for _ in transaction.cursor():
                pass
        return time.perf_counter() - begin


def measure(setting: Setting) -> Result:
    steps = setting.size(100_000) // ENTRIES_PER_STEP
    rates: list[float] = []
    raw = 0.0
    entries = rows = row_bytes = 0
    for _ in range(ROUNDS):
        with setting.directory() as directory:

            async def round_of(directory: Path) -> float:
                nonlocal entries
                await make_past(directory, "short", GROUP)
                entries = await make_past(directory, "long", steps)
                short = await bring_back(directory, "short", steps)
                return await bring_back(directory, "long", steps) - short

            seconds = run(lambda directory=directory: round_of(directory))  # type: ignore[misc]
            rates.append(entries / seconds)
            rows, row_bytes = mean_journal_row(directory)
            raw = entries / raw_scan(directory)
    value = sorted(rates)[ROUNDS // 2]
    return Result(
        "P3",
        round(value),
        "entries/s",
        round(raw),
        round(value / raw, 4),
        f">= {GOAL:,} entries/s",
        value >= GOAL,
        {
            "entries": entries,
            "journal_rows": rows,
            "journal_row_bytes": row_bytes,
            "payload": "an int",
            "rounds": ROUNDS,
            "slowest_round": round(min(rates)),
            "fastest_round": round(max(rates)),
        },
    )
