"""Failures and interventions at bad moments: none of them stops the engine or is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_status

from perdure import (
    Context,
    RetryableError,
    RetryPolicy,
    Service,
    Status,
    StoreClosed,
    handler,
)


class NoBase(RetryableError):
    """Forgot to call its base."""

    def __init__(self) -> None:
        pass


def text_delay() -> RetryableError:
    delay: Any = "5"  # as a header has it
    return RetryableError("busy", delay)


BAD: list[Callable[[], Exception]] = [
    NoBase,
    text_delay,
    lambda: RetryableError("before 1970", -1e12),
    lambda: RetryableError("after 9999", timedelta.max),
    lambda: StoreClosed("another engine's"),
]
RAISES: list[Callable[[], Exception]] = []
GO: list[asyncio.Event] = []


def act() -> str:
    if RAISES:
        failure = RAISES[0]()
        raise failure
    return "done"


async def fail_when_told() -> None:
    await GO[0].wait()
    raise ValueError("failed for good")


class Job(Service, journal_retention=3600):
    @handler
    async def in_handler(self, ctx: Context) -> str:
        return act()

    @handler
    async def in_step(self, ctx: Context) -> str:
        return await ctx.run("act", act)

    @handler
    async def waits(self, ctx: Context) -> None:
        await ctx.run("fail", fail_when_told)

    @handler
    async def other(self, ctx: Context) -> str:
        return "other"


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("target", [Job.in_handler, Job.in_step])
def test_an_error_that_misleads_about_its_retry_does_not_stop_the_engine(
    place: Place, bad: Callable[[], Exception], target: Any
) -> None:
    quiet_log()

    async def main() -> None:
        RAISES[:] = [bad]
        try:
            async with place.engine(Job()) as engine:
                handle = await engine.send(target)
                await until_status(engine, handle, Status.BACKING_OFF, Status.PAUSED)
                assert await engine.call(Job.other) == "other"
                await engine.kill(handle.id)
        finally:
            RAISES.clear()

    run(main())


def test_the_longest_policy_retries(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        RAISES[:] = [ValueError]
        longest = RetryPolicy(timedelta.max, 1, timedelta.max, None, timedelta.max)
        try:
            async with place.engine(Job(), default_retry=longest) as engine:
                handle = await engine.send(Job.in_step)
                await until_status(engine, handle, Status.BACKING_OFF)
                await engine.kill(handle.id)
        finally:
            RAISES.clear()

    run(main())


def test_a_cancellation_goes_before_the_pause_for_a_step_that_failed_for_good(
    place: Place,
) -> None:
    quiet_log()

    async def main() -> None:
        GO[:] = [asyncio.Event()]
        once = RetryPolicy(max_attempts=1)
        async with place.engine(Job(), default_retry=once) as engine:
            handle = await engine.send(Job.waits)
            await until_status(engine, handle, Status.RUNNING)
            GO[0].set()  # it fails before the pump can tell its handler
            assert await engine.cancel(handle.id)
            await until_status(engine, handle, Status.COMPLETED)

    run(main())
