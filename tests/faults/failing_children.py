"""Programs that run in a child, under the library that lets its calls to the disk fail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from faults_support import COMMIT_CALLS, OPEN_CALLS, Faults, text_of
from invariants import violations

from perdure import Engine, PerdureError, RetryPolicy, Workflow, WorkflowContext

QUICK = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=3)


class Keep(Workflow):
    """Keeps a value and runs a step that says so outside."""

    def __init__(self, effects: list[str]) -> None:
        self.effects = effects

    async def run(self, ctx: WorkflowContext, value: bytes) -> str:
        ctx.set("value", value)
        await ctx.run("step", self.effects.append, ctx.key, returns=None)
        ctx.set("done", ctx.key)
        return f"{ctx.key} {len(value)}"


def engine_on(path: Path, effects: list[str], **options: Any) -> Engine:
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
    options = {"durability": "fsync", "default_retry": QUICK, "stall_warning": None, **options}
    return Engine(path, [Keep(effects)], **options)


async def work(engine: Engine, acknowledged: list[str], count: int = 100_000) -> None:
    """Work until something fails; each key whose result came goes to *acknowledged*."""
    start = len(acknowledged)
    for number in range(start, start + count):
        key = f"{number:06d}"
        assert await engine.submit(Keep.run, bytes(3000), key=key) == f"{key} 3000"
        acknowledged.append(key)


async def check_kept(path: Path, acknowledged: list[str], effects: list[str]) -> None:
    """What was acknowledged is there and does not run again; what was not, may be begun anew."""
    before = effects.count
    counts = {key: before(key) for key in acknowledged}
    async with engine_on(path, effects) as engine:
        for key in acknowledged:
            assert await engine.submit(Keep.run, b"other", key=key) == f"{key} 3000", key
            state = await engine.state(Keep, key)
            assert len(state["value"]) == 3000, key
            assert state["done"] == key
        last = f"{len(acknowledged):06d}"
        assert await engine.submit(Keep.run, bytes(3000), key=last) == f"{last} 3000"
    assert {key: before(key) for key in acknowledged} == counts
    assert violations(path) == []


def fail_each_call_of_a_commit(path: str, code: str, durability: str) -> None:
    """Fail the first call from now on, then the second, …, until work goes on without failing."""
    asyncio.run(_fail_each_call_of_a_commit(Path(path), int(code), durability))


async def _fail_each_call_of_a_commit(path: Path, code: int, durability: str) -> None:
    faults = Faults()
    outcomes: list[list[str]] = []
    for first in range(1, 100):
        shutil.rmtree(path, ignore_errors=True)
        effects: list[str] = []
        acknowledged: list[str] = []
        engine = engine_on(path, effects, durability=durability)
        await engine.open()
        await work(engine, acknowledged, 3)
        kept = len(acknowledged)
        faults.arm(COMMIT_CALLS, first, code)
        try:
            await work(engine, acknowledged, 2)
            failure = ""
        except PerdureError as error:
            failure = text_of(error)
        call, failed = faults.failed_call, faults.disarm()
        try:
            await engine.close()
        except PerdureError as error:
            failure = failure or text_of(error)
        await check_kept(path, acknowledged, effects)
        if not failed:
            assert len(acknowledged) == kept + 2
            break
        outcomes.append([call, failure])
    print(json.dumps(outcomes))


def fail_each_call_of_an_opening(path: str, code: str, existing: str, count: str) -> None:
    """The same for opening: from each call on *count* fail, then the opening is tried again."""
    asyncio.run(
        _fail_each_call_of_an_opening(Path(path), int(code), existing == "existing", int(count))
    )


async def _fail_each_call_of_an_opening(path: Path, code: int, existing: bool, count: int) -> None:
    faults = Faults()
    outcomes: list[list[str]] = []
    effects: list[str] = []
    acknowledged: list[str] = []
    descriptors = 0
    for first in range(1, 200):
        if existing and not acknowledged:
            async with engine_on(path, effects) as engine:
                await work(engine, acknowledged, 3)
        elif not existing:
            shutil.rmtree(path, ignore_errors=True)
        engine = engine_on(path, effects)
        faults.arm(OPEN_CALLS, first, code, count=count)
        try:
            await engine.open()
            failure = ""
        except Exception as error:
            failure = text_of(error)
        call, failed = faults.failed_call, faults.disarm()
        await engine.close()
        await check_kept(path, acknowledged, effects)
        open_now = len(os.listdir("/proc/self/fd"))
        descriptors = descriptors or open_now
        assert open_now == descriptors, f"after {call} {first}: {open_now}, not {descriptors}"
        if not failed:
            assert not failure
            break
        outcomes.append([call, failure])
    print(json.dumps(outcomes))
