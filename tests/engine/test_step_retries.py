"""When a failed step is tried again: not before its failure is durable, and never too late."""

from __future__ import annotations

import asyncio

from engine_support import (
    QUICK,
    Place,
    quiet_log,
    run,
    until,
)
from primitive_support import Primitive
from stalled_disk import StalledDisk

from perdure import WorkflowContext


def test_a_step_is_not_tried_again_before_its_failure_is_durable(resident_place: Place) -> None:
    attempts: list[int] = []
    disk = StalledDisk(resident_place.path)

    async def fail() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            disk.__enter__()
            raise ValueError("on purpose")
        return "worked"

    async def act(ctx: WorkflowContext) -> str:
        return await ctx.run("fail", fail)

    async def main() -> None:
        async with resident_place.engine(Primitive(act), default_retry=QUICK) as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until(lambda: bool(attempts))
            try:
                await asyncio.sleep(0.1)
                assert len(attempts) == 1
            finally:
                disk.release()
            assert await handle.result() == "worked"

    quiet_log()
    run(main())
