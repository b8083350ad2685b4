"""The workload of P1 and P9: many workflows at a time, each a sequence of short steps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import perdure
from perdure import WorkflowContext

STEPS = 10
PAYLOAD: dict[str, int | float | str] = {"order": 4711, "state": "paid", "amount": 99.5}


async def charge(number: int) -> dict[str, int | float | str]:
    """A step that does nothing: what is measured is all the rest."""
    return PAYLOAD


class TenSteps(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> int:
        for number in range(STEPS):
            await ctx.run("charge", charge, number)
        return STEPS


class Load:
    """Rounds of concurrent workflows on one engine."""

    def __init__(self, directory: Path) -> None:
        self.engine = perdure.Engine(directory, [TenSteps()])
        self.round = 0

    async def run(self, concurrent: int) -> tuple[float, list[float]]:
        """Run *concurrent* workflows at once; seconds for all, and for each."""
        self.round += 1
        prefix = f"{self.round}-"

        async def one(number: int) -> float:
            begin = time.perf_counter()
            await self.engine.submit(TenSteps.run, key=f"{prefix}{number}")
            return time.perf_counter() - begin

        begin = time.perf_counter()
        each = await asyncio.gather(*map(one, range(concurrent)))
        return time.perf_counter() - begin, each
