"""P5: how late are 100,000 durable timers that are due within the same 5 seconds, fsync on?

1,000 workflows have 100 timers each, at times spread evenly; a timer's lateness is the wall time
when its handler goes on, less its deadline. Raw: one LMDB commit of a row of the same size.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import perdure
from benchmarks._measure import (
    Result,
    Setting,
    mean_journal_row,
    milliseconds,
    percentile,
    raw_commits,
    run,
)
from perdure import WorkflowContext

GOAL_MS = 50
WORKFLOWS = 1000
WINDOW_S = 5.0
PREPARATION_S = 30.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Alarms(perdure.Workflow):
    """Notes how late each of its timers is. (Outside the journal: a benchmark is not replayed.)"""

    def __init__(self, each: int, window_begin_s: float, workflows: int) -> None:
        self.each = each
        self.window_begin_s = window_begin_s
        self.workflows = workflows
        self.lateness: list[float] = []

    async def run(self, ctx: WorkflowContext, number: int) -> None:
        now_s = (ctx.now() - EPOCH) / timedelta(seconds=1)
        total = self.each * self.workflows

        async def alarm(position: int) -> None:
            spread_s = WINDOW_S * (position * self.workflows + number) / total
            deadline_s = self.window_begin_s + spread_s
            await ctx.sleep(max(0.0, deadline_s - now_s))
            self.lateness.append(time.time() - deadline_s)

        await asyncio.gather(*map(alarm, range(self.each)))


def measure(setting: Setting) -> Result:
    each = setting.size(100)
    commits: list[float] = []
    preparation_s = 5.0 if setting.quick else PREPARATION_S
    workflow = Alarms(each, time.time() + preparation_s, WORKFLOWS)
    spare_s = 0.0
    with setting.directory() as directory:

        async def work() -> None:
            nonlocal spare_s
            async with perdure.Engine(directory / "engine", [workflow]) as engine:
                started = await asyncio.gather(
                    *(engine.send(Alarms.run, n, key=str(n)) for n in range(WORKFLOWS))
                )
                spare_s = workflow.window_begin_s - time.time()
                await asyncio.gather(*(handle.result() for handle in started))

        commits += raw_commits(directory / "raw", bytes(80), 200)
        run(work)
        _, row_bytes = mean_journal_row(directory / "engine")
        commits += raw_commits(directory / "raw", bytes(80), 200)
    if spare_s < 0:
        raise SystemExit(f"P5: the timers were ready {-spare_s:.1f} s after the first was due")
    late = workflow.lateness
    value = percentile(late, 99) * 1000
    raw = percentile(commits, 50) * 1000
    early = sum(lateness < -1e-6 for lateness in late)  # floats: a microsecond
    return Result(
        "P5",
        round(value, 2),
        "ms late p99",
        round(raw, 4),
        round(value / raw, 2),
        f"<= {GOAL_MS} ms, none early",
        value <= GOAL_MS and not early,
        {
            "timers": len(late),
            "workflows": WORKFLOWS,
            "within_s": WINDOW_S,
            "early": early,
            "late_ms_p50": milliseconds(percentile(late, 50)),
            "late_ms_p99": milliseconds(percentile(late, 99)),
            "late_ms_max": milliseconds(max(late)),
            "prepared_before_s": round(spare_s, 1),
            "payload": None,
            "journal_row_bytes": row_bytes,
        },
    )
