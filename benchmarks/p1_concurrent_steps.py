"""P1: how many steps a second do 1,000 concurrent workflows of 10 steps make, fsync on?

Raw: single LMDB commits a second of one journal row of the same size, one after the other.
"""

from __future__ import annotations

import statistics

from benchmarks._measure import (
    Result,
    Setting,
    mean_journal_row,
    milliseconds,
    percentile,
    raw_commits,
    run,
)
from benchmarks._steps import PAYLOAD, STEPS, Load

GOAL = 60_000
ROUNDS = 7


def measure(setting: Setting) -> Result:
    concurrent = setting.size(1000)
    rates: list[float] = []
    each: list[float] = []
    with setting.directory() as directory:
        load = Load(directory / "engine")

        async def rounds() -> None:
            async with load.engine:
                await load.run(concurrent)  # warms up
                for _ in range(ROUNDS):
                    seconds, lasting = await load.run(concurrent)
                    rates.append(concurrent * STEPS / seconds)
                    each.extend(lasting)

        before = raw_commits(directory / "raw", bytes(80), 200)
        run(rounds)
        _, row_bytes = mean_journal_row(directory / "engine")
        raw = 1 / statistics.median(before + raw_commits(directory / "raw", bytes(row_bytes), 200))
    value = statistics.median(rates)
    return Result(
        "P1",
        round(value),
        "steps/s",
        round(raw, 1),
        round(value / raw, 2),
        f">= {GOAL:,} steps/s",
        value >= GOAL,
        {
            "concurrent": concurrent,
            "steps_each": STEPS,
            "payload": repr(PAYLOAD),
            "journal_row_bytes": row_bytes,
            "rounds": ROUNDS,
            "slowest_round": round(min(rates)),
            "fastest_round": round(max(rates)),
            "workflow_ms_p50": milliseconds(percentile(each, 50)),
            "workflow_ms_p99": milliseconds(percentile(each, 99)),
        },
    )
