"""P2: how long does a step take in a lone workflow, fsync on?

From the start of one step to the start of the next: its result, the activation that takes it and
issues the next step, and the commit before that may start. Raw: one LMDB commit of a row of the
same size. Both are measured in turns, because a virtual disk has moods.
"""

from __future__ import annotations

import itertools
import time

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

GOAL = 2.0
TURNS = 10


class Lone(perdure.Workflow):
    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.starts: list[float] = []

    async def step(self) -> dict[str, int | float | str]:
        self.starts.append(time.perf_counter())
        return {"order": 4711, "state": "paid", "amount": 99.5}

    async def run(self, ctx: WorkflowContext) -> None:
        for _ in range(self.steps):
            await ctx.run("charge", self.step)


def measure(setting: Setting) -> Result:
    workflow = Lone(setting.size(200))
    lasting: list[float] = []
    commits: list[float] = []
    with setting.directory() as directory:

        async def turn(key: str) -> None:
            async with perdure.Engine(directory / "engine", [workflow]) as engine:
                workflow.starts.clear()
                await engine.submit(Lone.run, key=key)
                lasting.extend(b - a for a, b in itertools.pairwise(workflow.starts[5:]))

        run(lambda: turn("warm up"))
        lasting.clear()
        _, row_bytes = mean_journal_row(directory / "engine")
        for number in range(TURNS):
            commits += raw_commits(directory / "raw", bytes(row_bytes), workflow.steps)
            run(lambda number=number: turn(str(number)))  # type: ignore[misc]
    value, raw = percentile(lasting, 50), percentile(commits, 50)
    return Result(
        "P2",
        milliseconds(value),
        "ms/step p50",
        milliseconds(raw),
        round(value / raw, 3),
        f"<= {GOAL} x a raw commit",
        value <= GOAL * raw,
        {
            "steps": len(lasting),
            "payload": "a dict of 3 entries",
            "journal_row_bytes": row_bytes,
            "ms_p50": milliseconds(value),
            "ms_p99": milliseconds(percentile(lasting, 99)),
            "raw_ms_p50": milliseconds(raw),
            "raw_ms_p99": milliseconds(percentile(commits, 99)),
        },
    )
