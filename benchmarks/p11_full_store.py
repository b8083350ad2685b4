"""P11: does a step cost more when the store has a million completed workflows, fsync on?

P1's workload, in turns on an empty store and on one that holds completed workflows with their
journals. Raw: the empty store's rate.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import perdure
from benchmarks._measure import Result, Setting, run
from benchmarks._steps import STEPS, Load, TenSteps

GOAL = 0.9
COMPLETED = 1_000_000
AT_A_TIME = 5000
ROUNDS = 7


class Short(perdure.Workflow):
    async def run(self, ctx: perdure.WorkflowContext, number: int) -> int:
        return number


async def fill(directory: Path, count: int) -> float:
    """Complete *count* workflows; how many a second."""
    begin = time.perf_counter()
    async with perdure.Engine(directory, [Short(), TenSteps()]) as engine:
        for first in range(0, count, AT_A_TIME):
            numbers = range(first, min(first + AT_A_TIME, count))
            await asyncio.gather(*(engine.submit(Short.run, n, key=str(n)) for n in numbers))
    return count / (time.perf_counter() - begin)


def measure(setting: Setting) -> Result:
    count, concurrent = setting.size(COMPLETED), setting.size(1000)
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    filled = 0.0
    with setting.directory() as directory:

        async def rounds() -> None:
            nonlocal filled
            filled = await fill(directory / "full", count)
            loads = {name: Load(directory / name) for name in rates}
            async with loads["empty"].engine, loads["full"].engine:
                for load in loads.values():
                    await load.run(concurrent)  # warms up
                for _ in range(ROUNDS):
                    for name, load in loads.items():
                        seconds, _ = await load.run(concurrent)
                        rates[name].append(concurrent * STEPS / seconds)

        run(rounds)
        size = (directory / "full" / "data.mdb").stat().st_size
    value, raw = statistics.median(rates["full"]), statistics.median(rates["empty"])
    return Result(
        "P11",
        round(value),
        "steps/s",
        round(raw),
        round(value / raw, 3),
        f">= {GOAL} x an empty store's",
        value >= GOAL * raw,
        {
            "completed": count,
            "completed_per_s": round(filled),
            "file_mb": round(size / 1e6),
            "concurrent": concurrent,
            "slowest_round": round(min(rates["full"])),
            "fastest_round": round(max(rates["full"])),
        },
    )
