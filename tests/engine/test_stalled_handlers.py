"""Handlers that never go idle, or idle on what can never happen: paused, with the line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_status

from perdure import Status, Workflow, WorkflowContext, WorkflowSharedContext, handler


class Act(Workflow):
    """Its run does what the test says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def release(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("release").resolve(None)


async def spins(ctx: WorkflowContext) -> None:
    while True:  # noqa: ASYNC110
        await asyncio.sleep(0)  # it spins here


async def idles(ctx: WorkflowContext) -> None:
    await asyncio.Event().wait()  # it waits here


async def idles_in_a_task(ctx: WorkflowContext) -> None:
    async def part() -> None:
        await asyncio.get_running_loop().create_future()

    await asyncio.gather(part(), part())  # it waits here


async def idles_after_a_step(ctx: WorkflowContext) -> None:
    await ctx.run("step", lambda: None)
    await asyncio.Queue[int]().get()  # it waits here


async def deadlocks(ctx: WorkflowContext) -> None:
    lock = asyncio.Lock()
    async with lock, lock:  # it waits here
        pass


async def sleeps_for_ever(ctx: WorkflowContext) -> None:
    await asyncio.sleep(float("inf"))  # it waits here


def line_of(text: str, function: Any) -> int:
    """The number of the line of *function* that ends with the comment *text*."""
    code = function.__code__
    with open(code.co_filename, encoding="utf-8") as lines:
        numbered = list(enumerate(lines, 1))
    return next(
        number for number, line in numbered if number > code.co_firstlineno and text in line
    )


def failure_of(place: Place, act: Any) -> str:
    """The last failure of the paused invocation that does *act*; it goes on once mended."""
    service = Act(act)

    async def main() -> str:
        async with place.engine(service) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            description = await engine.describe(handle.id)
            assert description.attempt == 2

            async def mended(ctx: WorkflowContext) -> str:
                if act is idles_after_a_step:
                    await ctx.run("step", lambda: None)
                return "mended"

            service.act = mended
            assert await engine.resume(handle.id)
            assert await handle.result() == "mended"
            assert description.last_failure is not None
            return description.last_failure

    return run(main())


def test_a_handler_that_spins_is_paused_with_the_line(place: Place) -> None:
    quiet_log()
    failure = failure_of(place, spins)
    assert "ran 100,000 callbacks without waiting for anything; it spins at" in failure
    assert f"{__file__}:{line_of('it spins here', spins)} in spins" in failure


@pytest.mark.parametrize(
    "act", [idles, idles_in_a_task, idles_after_a_step, deadlocks, sleeps_for_ever]
)
def test_a_handler_that_waits_for_nothing_that_can_happen_is_paused_with_the_line(
    place: Place, act: Any
) -> None:
    quiet_log()
    failure = failure_of(place, act)
    assert "the handler waits for nothing that can happen" in failure
    assert f"{__file__}:{line_of('it waits here', act)} in {act.__name__}" in failure


def test_other_invocations_go_on_while_one_spins(resident_place: Place) -> None:
    quiet_log()

    async def act(ctx: WorkflowContext) -> str:
        if ctx.key == "spins":
            await spins(ctx)
        return "done"

    async def main() -> None:
        async with resident_place.engine(Act(act)) as engine:
            spinning = await engine.send(Act.run, key="spins")
            assert await engine.submit(Act.run, key="other") == "done"
            await until_status(engine, spinning, Status.PAUSED)

    run(main())


def test_a_handler_may_idle_while_anything_can_still_happen(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> str:
        event = asyncio.Event()
        promise = ctx.promise("release")
        promise.add_done_callback(lambda _: event.set())
        await event.wait()
        return "released"

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await engine.call(Act.release, key="k")
            assert await handle.result() == "released"

    run(main())


def test_a_handler_that_idles_once_all_it_waited_for_has_come_is_paused(place: Place) -> None:
    quiet_log()

    async def act(ctx: WorkflowContext) -> None:
        ctx.promise("release").done()  # issues the wait, and forgets it
        await asyncio.Event().wait()

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await engine.call(Act.release, key="k")
            await until_status(engine, handle, Status.PAUSED)
            failure = (await engine.describe(handle.id)).last_failure
            assert failure is not None
            assert "waits for nothing that can happen" in failure

    run(main())
