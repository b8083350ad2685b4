"""P4: what do a million suspended workflows cost, fsync on?

A process starts them; each waits for a promise. Its private memory is read, and it is killed. The
next process opens the directory: how long from its start until it has answered a call, and how long
from resolving a promise to the workflow's result, for workflows chosen at random? Raw: one LMDB
commit of 80 bytes.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time

import perdure
from benchmarks._measure import (
    Result,
    Setting,
    milliseconds,
    percentile,
    private_mb,
    raw_commits,
    run,
)
from perdure import WorkflowContext, WorkflowSharedContext

GOAL_MB, GOAL_SERVING_S, GOAL_WAKE_MS = 300, 2.0, 5.0
WORKFLOWS = 1_000_000
AT_A_TIME = 2000
WOKEN = 500


class Waiting(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, number: int) -> str:
        return await ctx.promise("answer", str)

    @perdure.handler
    async def answer(self, ctx: WorkflowSharedContext, text: str) -> None:
        await ctx.promise("answer", str).resolve(text)

    @perdure.handler
    async def ping(self, ctx: WorkflowSharedContext) -> str:
        return "here"


async def start(directory: str, count: int) -> None:
    """Start *count* workflows, say what they cost, and wait to be killed."""
    async with perdure.Engine(directory, [Waiting()]) as engine:
        begin = time.perf_counter()
        for first in range(0, count, AT_A_TIME):
            numbers = range(first, min(first + AT_A_TIME, count))
            await asyncio.gather(*(engine.send(Waiting.run, n, key=str(n)) for n in numbers))
        seconds = time.perf_counter() - begin
        print(json.dumps({"mb": private_mb(), "seconds": seconds}), flush=True)
        await asyncio.sleep(3600)


async def serve(directory: str, count: int, began: float) -> None:
    """Open the directory, and say how soon it serves and how soon workflows wake."""
    async with perdure.Engine(directory, [Waiting()]) as engine:
        assert await engine.call(Waiting.ping, key="0") == "here"
        serving_s = time.time() - began
        wakes = []
        for number in random.Random(4).sample(range(count), min(WOKEN, count)):
            begin = time.perf_counter()
            waiting = asyncio.ensure_future(engine.submit(Waiting.run, number, key=str(number)))
            await asyncio.sleep(0)
            await engine.call(Waiting.answer, "yes", key=str(number))
            assert await waiting == "yes"
            wakes.append(time.perf_counter() - begin)
        print(json.dumps({"mb": private_mb(), "serving_s": serving_s, "wakes": wakes}), flush=True)


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.p4_suspended", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answer_of(child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"P4: a process ended with {child.wait()} and no answer")
    answer: dict[str, float] = json.loads(line)
    return answer


def measure(setting: Setting) -> Result:
    count = setting.size(WORKFLOWS)
    with setting.directory() as directory:
        commits = raw_commits(directory / "raw", bytes(80), 200)
        store = str(directory / "engine")
        with process("start", store, str(count)) as first:
            started = answer_of(first)
            first.kill()
        size = (directory / "engine" / "data.mdb").stat().st_size
        with process("serve", store, str(count), str(time.time())) as second:
            served = answer_of(second)
        commits += raw_commits(directory / "raw", bytes(80), 200)
    wakes: list[float] = served.pop("wakes")  # type: ignore[assignment]
    wake_ms = percentile(wakes, 50) * 1000
    met = (
        max(started["mb"], served["mb"]) <= GOAL_MB
        and served["serving_s"] <= GOAL_SERVING_S
        and wake_ms <= GOAL_WAKE_MS
    )
    raw_ms = percentile(commits, 50) * 1000
    return Result(
        "P4",
        round(started["mb"], 1),
        "MB private",
        None,
        None,
        f"<= {GOAL_MB} MB, serving <= {GOAL_SERVING_S} s after kill -9, wake <= {GOAL_WAKE_MS} ms",
        met,
        {
            "workflows": count,
            "started_per_s": round(count / started["seconds"]),
            "private_mb_started": round(started["mb"], 1),
            "private_mb_served": round(served["mb"], 1),
            "serving_s": round(served["serving_s"], 3),
            "wake_ms_p50": round(wake_ms, 3),
            "wake_ms_p99": milliseconds(percentile(wakes, 99)),
            "raw_commit_ms_p50": round(raw_ms, 4),
            "file_mb": round(size / 1e6),
            "payload": "an int",
        },
    )


if __name__ == "__main__":
    verb, path, number, *rest = sys.argv[1:]
    if verb == "start":
        run(lambda: start(path, int(number)))
    else:
        run(lambda: serve(path, int(number), float(rest[0])))
