"""When a failed step is tried again: not before its failure is durable, and never too late."""

from __future__ import annotations

import asyncio

import pytest
from engine_support import (
    QUICK,
    ManualClock,
    Place,
    quiet_log,
    run,
    scheduler_of,
    until,
    until_idle,
)
from primitive_support import Primitive
from stalled_disk import StalledDisk

from perdure import (
    Killed,
    RetryPolicy,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._runtime._due import DueTimers


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


def test_a_retry_that_is_due_while_its_handler_loads_survives_a_clock_set_back(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    attempts: list[int] = []

    async def fail_once() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("on purpose")
        return "worked"

    async def act(ctx: WorkflowContext) -> str:
        return await ctx.run("fail once", fail_once, retry=RetryPolicy(initial=5))

    async def main() -> str:
        place = Place(resident_place.path, 0)
        async with place.engine(Primitive(act), clock=clock) as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_idle(engine)
            assert attempts == [1]
            scheduler = scheduler_of(engine)
            await until(lambda: not scheduler.residents.by_id)
            retry = DueTimers._retry_step

            def retry_and_set_back(due: DueTimers, invocation_id: bytes, index: int) -> None:
                retry(due, invocation_id, index)  # it begins to load
                clock.advance(-1)

            monkeypatch.setattr(DueTimers, "_retry_step", retry_and_set_back)
            clock.advance(5)
            await until_idle(engine)
            assert attempts == [1]
            monkeypatch.undo()
            clock.advance(1)
            return str(await handle.result())

    quiet_log()
    assert run(main()) == "worked"


def test_kill_ends_an_invocation_whose_replay_fails_and_leaves_no_row_of_it(place: Place) -> None:
    """The handler is what fails, so it is not run to end it; invariants look at the rows."""
    quiet_log()
    broken: list[bool] = []
    go = asyncio.Event()

    class Doomed(
        Workflow, retry=RetryPolicy(initial=0.001, factor=1, max_attempts=2, on_exhausted="kill")
    ):
        async def run(self, ctx: WorkflowContext) -> None:
            if broken:
                raise ConnectionError("as deployed today")
            ctx.after(1000)
            ctx.run("slow", go.wait)
            await ctx.promise("news")

        @handler
        async def tell(self, ctx: WorkflowSharedContext) -> None:
            await ctx.promise("news").resolve(1)

    async def main() -> None:
        async with place.engine(Doomed(), drain_timeout=0.0) as engine:
            await engine.send(Doomed.run, key="k")
            await until(scheduler_of(engine).running.any)
        broken.append(True)
        async with place.engine(Doomed()) as engine:
            with pytest.raises(Killed, match="as deployed today"):
                await engine.submit(Doomed.run, key="k")
            await engine.call(Doomed.tell, key="k")  # whoever is told of it is not run again
            await until_idle(engine)
            assert not scheduler_of(engine).running.any()

    run(main())


@pytest.mark.parametrize(
    ("retry", "follows"),
    [
        (None, "it is paused: mend the cause, then resume it"),
        (QUICK, "the step has failed for good, and its handler goes on"),
    ],
    ids=["policy of the handler", "policy of the step"],
)
def test_the_log_says_what_follows_each_attempt(
    resident_place: Place,
    caplog: pytest.LogCaptureFixture,
    retry: RetryPolicy | None,
    follows: str,
) -> None:
    caplog.set_level("WARNING", "perdure")

    async def fail() -> None:
        raise ValueError("on purpose")

    async def act(ctx: WorkflowContext) -> None:
        await ctx.run("fail", fail, retry=retry)

    async def main() -> None:
        async with resident_place.engine(Primitive(act)) as engine:
            await engine.send(Primitive.run, key="k")
            await until(lambda: len(caplog.records) == QUICK.max_attempts)

    run(main())
    *retried, last = [record.message for record in caplog.records]
    assert all("failed: ValueError: on purpose; next in 0.00 s" in text for text in retried)
    assert last.endswith(f"step 'fail', attempt 3 failed: ValueError: on purpose; {follows}")
