"""P6: how many calls a second do 1,000 callers make of a counter object, fsync on?

Each caller calls one key after the other, of 1,000, as a seeded generator says. A call waits for
its key, adds one to the state, and is answered when that is durable. Raw: single LMDB commits a
second of a row of the same size, one after the other.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time

import perdure
from benchmarks._measure import Result, Setting, milliseconds, percentile, raw_commits, run
from perdure import ObjectContext

GOAL = 100_000
CALLERS = 1000
KEYS = 1000
CALLS_EACH = 60
ROUNDS = 5


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", int, 0)) + amount
        ctx.set("total", total)
        return total


def measure(setting: Setting) -> Result:
    each = setting.size(CALLS_EACH)
    rates: list[float] = []
    lasting: list[float] = []
    with setting.directory() as directory:

        async def caller(engine: perdure.Engine, keys: list[str]) -> None:
            for key in keys:
                begin = time.perf_counter()
                await engine.call(Counter.add, 1, key=key)
                lasting.append(time.perf_counter() - begin)

        async def rounds() -> None:
            generator = random.Random(6)
            async with perdure.Engine(directory / "engine", [Counter()]) as engine:
                for number in range(ROUNDS + 1):
                    keys = [
                        [f"k{generator.randrange(KEYS)}" for _ in range(each)]
                        for _ in range(CALLERS)
                    ]
                    begin = time.perf_counter()
                    await asyncio.gather(*(caller(engine, own) for own in keys))
                    if number:  # the first warms up
                        rates.append(CALLERS * each / (time.perf_counter() - begin))
                    else:
                        lasting.clear()
                totals = [
                    await engine.call(Counter.add, 0, key=f"k{number}") for number in range(KEYS)
                ]
                if sum(totals) != (ROUNDS + 1) * CALLERS * each:
                    raise SystemExit(f"P6: the counters say {sum(totals):,}: calls were lost")

        before = raw_commits(directory / "raw", bytes(32), 200)
        run(rounds)
        raw = 1 / statistics.median(before + raw_commits(directory / "raw", bytes(32), 200))
    value = statistics.median(rates)
    return Result(
        "P6",
        round(value),
        "calls/s",
        round(raw, 1),
        round(value / raw, 2),
        f">= {GOAL:,} calls/s",
        value >= GOAL,
        {
            "callers": CALLERS,
            "keys": KEYS,
            "calls_each": each,
            "rounds": ROUNDS,
            "payload": "an int",
            "slowest_round": round(min(rates)),
            "fastest_round": round(max(rates)),
            "call_ms_p50": milliseconds(percentile(lasting, 50)),
            "call_ms_p99": milliseconds(percentile(lasting, 99)),
        },
    )
