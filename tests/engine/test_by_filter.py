"""The verbs that take an id take a filter too, and then do it to all that it means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import QUICK, Place, quiet_log, run, until_idle, until_status

from perdure import (
    Cancelled,
    Context,
    InvalidInput,
    InvocationFilter,
    Killed,
    Service,
    Status,
    Workflow,
    WorkflowContext,
    handler,
)

MANY = 300
"""More than are taken at a time."""


class Sleeper(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.sleep(3600)
        return "slept"


class Job(Service):
    broken = False

    @handler
    async def work(self, ctx: Context, number: int) -> int:
        if self.broken:
            raise RuntimeError("broken")
        return number


async def _sleepers(engine: Any, count: int) -> list[Any]:
    return list(
        await asyncio.gather(*(engine.send(Sleeper.run, key=f"k{n}") for n in range(count)))
    )


@pytest.mark.parametrize(("verb", "error"), [("cancel", Cancelled), ("kill", Killed)])
def test_all_that_a_filter_means_end_and_no_others(place: Place, verb: str, error: Any) -> None:
    async def main() -> None:
        async with place.engine(Sleeper(), Job()) as engine:
            handles = await _sleepers(engine, MANY)
            other = await engine.send(Job.work, 1, delay=3600)
            act = getattr(engine, verb)
            assert await act(InvocationFilter(service=Sleeper, key="k7")) == 1
            assert await act(InvocationFilter(service=Sleeper)) == MANY - 1
            assert await act(InvocationFilter(service=Sleeper)) == 0
            for handle in handles:
                with pytest.raises(error):
                    await handle.result()
            assert (await engine.describe(other.id)).status is Status.SCHEDULED

    run(main())


def test_pause_and_resume(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Sleeper(), Job()) as engine:
            handles = await _sleepers(engine, 5)
            await until_idle(engine)
            await engine.send(Job.work, 1, delay=3600)  # not begun: left out
            assert await engine.pause(InvocationFilter()) == 5
            page = await engine.invocations(InvocationFilter(status="paused"))
            assert [each.id for each in page.items] == [handle.id for handle in handles]
            assert await engine.resume(InvocationFilter(service=Sleeper)) == 5
            assert await engine.resume(InvocationFilter()) == 0

    run(main())


def test_resume_of_all_that_failed_for_one_reason(place: Place) -> None:
    async def main() -> None:
        quiet_log()
        job = Job()
        job.broken = True
        async with place.engine(job, default_retry=QUICK) as engine:
            handles = [await engine.send(Job.work, number) for number in range(10)]
            for handle in handles:
                await until_status(engine, handle, Status.PAUSED)
            job.broken = False
            assert await engine.resume(InvocationFilter(handler=Job.work)) == 10
            assert [await handle.result() for handle in handles] == list(range(10))

    run(main())


def test_restart_does_not_take_what_it_has_begun_itself(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Job()) as engine:
            for number in range(10):
                await (await engine.send(Job.work, number)).result()
            assert await engine.restart(InvocationFilter(service=Job)) == 10
            await until_idle(engine)
            page = await engine.invocations(InvocationFilter(service=Job, status="completed"))
            assert len(page.items) == 20
            restart: Any = engine.restart  # no type checker lets both through
            with pytest.raises(InvalidInput, match="from_entry"):
                await restart(InvocationFilter(), from_entry=3)

    run(main())


def test_purge_takes_only_what_has_completed(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Sleeper(), Job()) as engine:
            await _sleepers(engine, 3)
            for number in range(4):
                await (await engine.send(Job.work, number)).result()
            assert await engine.purge(InvocationFilter()) == 4
            page = await engine.invocations()
            assert [each.service for each in page.items] == ["Sleeper"] * 3
            assert await engine.purge(InvocationFilter(status="suspended")) == 0

    run(main())


@pytest.mark.parametrize("verb", ["cancel", "kill", "pause", "resume", "purge", "restart"])
@pytest.mark.parametrize("bad", [None, 7, {"service": "Job"}, ["inv_"], ""])
def test_what_is_neither_an_id_nor_a_filter_is_refused(place: Place, verb: str, bad: Any) -> None:
    async def main() -> None:
        async with place.engine(Job()) as engine:
            with pytest.raises(InvalidInput):
                await getattr(engine, verb)(bad)

    run(main())
