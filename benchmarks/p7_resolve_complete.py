"""P7: how long from the answer of a person to the end of the workflow, fsync on?

From the call of a shared handler, which resolves the promise, to the result of ``run``, which waits
for it. Raw: one LMDB commit of a row as large as what that writes to the journal.
"""

from __future__ import annotations

import asyncio
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
from perdure import WorkflowContext, WorkflowSharedContext

GOAL = 2.0
TURNS = 10


class Waiting(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        return await ctx.promise("answer", str)

    @perdure.handler
    async def answer(self, ctx: WorkflowSharedContext, text: str) -> None:
        await ctx.promise("answer", str).resolve(text)


async def turn(engine: perdure.Engine, keys: list[str]) -> tuple[list[float], list[float]]:
    """Seconds until the result, and until the handler's own answer, for each of *keys*."""
    results: list[float] = []
    answers: list[float] = []
    for key in keys:
        started = await engine.send(Waiting.run, key=key)
        waiting = asyncio.ensure_future(started.result())
        await asyncio.sleep(0)
        begin = time.perf_counter()
        await engine.call(Waiting.answer, "approved", key=key)
        answers.append(time.perf_counter() - begin)
        await waiting
        results.append(time.perf_counter() - begin)
    return results, answers


def measure(setting: Setting) -> Result:
    count = setting.size(100)
    results: list[float] = []
    answers: list[float] = []
    commits: list[float] = []
    with setting.directory() as directory:

        async def work() -> None:
            async with perdure.Engine(directory / "engine", [Waiting()]) as engine:
                await turn(engine, [f"warm up {number}" for number in range(20)])
                for number in range(TURNS):
                    commits.extend(raw_commits(directory / "raw", bytes(80), count))
                    lasting, answered = await turn(engine, [f"{number}-{n}" for n in range(count)])
                    results.extend(lasting)
                    answers.extend(answered)

        run(work)
        _, row_bytes = mean_journal_row(directory / "engine")
    value, raw = percentile(results, 50), percentile(commits, 50)
    return Result(
        "P7",
        milliseconds(value),
        "ms p50",
        milliseconds(raw),
        round(value / raw, 3),
        f"<= {GOAL} x a raw commit",
        value <= GOAL * raw,
        {
            "workflows": len(results),
            "payload": "a str of 8 characters",
            "journal_row_bytes": row_bytes,
            "raw_row_bytes": 80,
            "ms_p50": milliseconds(value),
            "ms_p99": milliseconds(percentile(results, 99)),
            "handler_answer_ms_p50": milliseconds(percentile(answers, 50)),
            "raw_ms_p50": milliseconds(raw),
            "raw_ms_p99": milliseconds(percentile(commits, 99)),
        },
    )
