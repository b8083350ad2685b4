"""A failing handler: its attempt leaves no trace, and the next one begins where it began."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    run,
    scheduler_of,
    until,
    until_idle,
    until_status,
)

from perdure import (
    Killed,
    RetryableError,
    RetryPolicy,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Trouble:
    """Something outside that is wrong so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def strike(self) -> None:
        if self.left > 0:
            self.left -= 1
            raise ConnectionError("not now")


def test_a_handler_that_fails_is_tried_again(place: Place) -> None:
    quiet_log()
    trouble = Trouble(2)
    attempts: list[int] = []

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            attempts.append(ctx.request.attempt)
            trouble.strike()
            return "done"

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            assert await engine.submit(Flaky.run, key="k") == "done"

    run(main())
    assert attempts == [1, 2, 3]


def test_a_failed_attempt_leaves_no_state_no_promise_and_no_step(place: Place) -> None:
    quiet_log()
    trouble = Trouble(1)
    ran: list[str] = []

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> Any:
            before = [await ctx.state_keys(), await ctx.promise("p").peek() is not None]
            ctx.set("a", 1)
            if trouble.left:
                ctx.set("only the first", 1)
                ctx.run("only the first", ran.append, "first")
                await ctx.promise("other").resolve(1)
            trouble.strike()
            return [before, await ctx.state_keys()]

        @handler
        async def other(self, ctx: WorkflowSharedContext) -> bool:
            return not bool(await ctx.promise("other").peek())

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            assert await engine.submit(Flaky.run, key="k") == [[[], True], ["a"]]
            assert await engine.call(Flaky.other, key="k") is True

    run(main())
    assert ran == []


def test_a_notification_that_met_a_failing_attempt_is_delivered_again(place: Place) -> None:
    quiet_log()
    trouble = Trouble(2)
    ran: list[int] = []

    def step() -> int:
        ran.append(1)
        return len(ran)

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> int:
            number = await ctx.run("step", step)
            trouble.strike()
            return number

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            assert await engine.submit(Flaky.run, key="k") == 1

    run(main())
    assert len(ran) == 1


def test_no_notification_that_waits_behind_a_failing_one_is_lost(place: Place) -> None:
    quiet_log()
    trouble = Trouble(1)
    ran: list[str] = []
    both = asyncio.Barrier(2)

    async def step(name: str) -> str:
        ran.append(name)
        await both.wait()
        return name

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[str]:
            first, second = ctx.run("a", step, "a"), ctx.run("b", step, "b")
            done = await ctx.wait_first(first, second)
            trouble.strike()
            return sorted([await done, await (second if done is first else first)])

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            assert await engine.submit(Flaky.run, key="k") == ["a", "b"]

    run(main())
    assert sorted(ran) == ["a", "b"]


def test_timers_due_together_all_fire_when_the_first_meets_a_failing_attempt(
    place: Place,
) -> None:
    quiet_log()
    trouble = Trouble(1)
    clock = ManualClock()

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            first, second = ctx.after(10), ctx.after(10)
            await first
            trouble.strike()
            await second
            return "both"

    async def main() -> None:
        async with place.engine(Flaky(), clock=clock) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until_idle(engine)
            clock.advance(10)
            await until_status(engine, handle, Status.BACKING_OFF)
            clock.advance(10)
            assert await handle.result() == "both"

    run(main())


def test_attempts_used_up_pause_with_the_last_failure(place: Place) -> None:
    quiet_log()
    trouble = Trouble(3)

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            trouble.strike()
            return "done"

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            description = await engine.describe(handle.id)
            assert description.last_failure == "ConnectionError: not now"
            assert await engine.resume(handle.id)
            assert await handle.result() == "done"

    run(main())


def test_attempts_used_up_kill_where_the_policy_says_so(place: Place) -> None:
    quiet_log()

    class Doomed(
        Workflow,
        retry=RetryPolicy(initial=0.001, factor=1, max_attempts=2, on_exhausted="kill"),
    ):
        async def run(self, ctx: WorkflowContext) -> str:
            ctx.after(1000)
            await ctx.run("step", lambda: 1)
            raise ConnectionError("always")

    async def main() -> None:
        async with place.engine(Doomed()) as engine:
            with pytest.raises(Killed, match="ConnectionError: always"):
                await engine.submit(Doomed.run, key="k")
            await until_idle(engine)

    run(main())


def test_a_call_that_is_retried_answers_its_caller(place: Place) -> None:
    quiet_log()
    trouble = Trouble(2)

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            pass

        @handler
        async def ask(self, ctx: WorkflowSharedContext) -> str:
            trouble.strike()
            return "answer"

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            assert await engine.call(Flaky.ask, key="k") == "answer"
            await until_idle(engine)

    run(main())


def test_the_back_off_survives_a_restart(place: Place) -> None:
    quiet_log()
    trouble = Trouble(1)
    clock = ManualClock()
    policy = RetryPolicy(initial=60, max_interval=60)
    attempts: list[int] = []

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            attempts.append(ctx.request.attempt)
            trouble.strike()
            return "done"

    async def main() -> None:
        async with place.engine(Flaky(), clock=clock, default_retry=policy) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
        clock.advance(59.9)
        async with place.engine(Flaky(), clock=clock, default_retry=policy) as engine:
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.BACKING_OFF
            assert attempts == [1]
            clock.advance(0.1)
            assert await engine.attach(handle.id) == "done"
        assert attempts == [1, 2]

    run(main())


def test_the_back_off_of_a_step_survives_a_restart(place: Place) -> None:
    quiet_log()
    trouble = Trouble(1)
    clock = ManualClock()
    policy = RetryPolicy(initial=60, max_interval=60)

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            await ctx.run("step", trouble.strike)
            return "done"

    async def main() -> None:
        async with place.engine(Flaky(), clock=clock, default_retry=policy) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
            assert "attempt 2 at" in str((await engine.describe(handle.id)).waiting_on[0])
        clock.advance(59)
        async with place.engine(Flaky(), clock=clock, default_retry=policy) as engine:
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.BACKING_OFF
            assert not scheduler_of(engine).running.any()
            clock.advance(1)
            assert await engine.attach(handle.id) == "done"

    run(main())


def test_retry_after_is_never_early(place: Place) -> None:
    quiet_log()
    clock = ManualClock()
    failed: list[int] = []

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            if not failed:
                failed.append(1)
                raise RetryableError("later", retry_after=1.0005)
            return "done"

    async def main() -> None:
        async with place.engine(Flaky(), clock=clock) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
            clock.advance(1)
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.BACKING_OFF
            clock.advance(0.001)
            assert await handle.result() == "done"

    run(main())


def test_a_step_runs_on_while_its_handler_fails_and_the_next_attempt_waits_for_it(
    place: Place,
) -> None:
    quiet_log()
    trouble = Trouble(1)
    go = asyncio.Event()
    ran: list[str] = []

    async def slow() -> str:
        ran.append("slow")
        await go.wait()
        return "slow"

    class Flaky(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            step = ctx.run("slow", slow)
            await ctx.run("quick", ran.append, "quick")
            trouble.strike()
            return await step

    async def main() -> None:
        async with place.engine(Flaky()) as engine:
            handle = await engine.send(Flaky.run, key="k")
            await until(lambda: trouble.left == 0)
            await until_status(engine, handle, Status.RUNNING)
            go.set()
            assert await handle.result() == "slow"

    run(main())
    assert sorted(ran) == ["quick", "slow"]


def test_a_step_due_again_starts_although_something_else_is_delivered_first(
    place: Place,
) -> None:
    """The back-off ends while the invocation is loaded for the sake of a promise."""
    quiet_log()
    trouble = Trouble(1)
    clock = ManualClock()
    policy = RetryPolicy(initial=60, max_interval=60)

    class Waits(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[str]:
            step = ctx.run("step", trouble.strike)
            told = await ctx.promise("told", str)
            await step
            return [told]

        @handler
        async def tell(self, ctx: WorkflowSharedContext) -> None:
            await ctx.promise("told", str).resolve("yes")

    async def main() -> None:
        async with place.engine(Waits(), clock=clock, default_retry=policy) as engine:
            handle = await engine.send(Waits.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
            clock.advance(61)
            # The timer loads the invocation, and the promise is there before it is replayed.
            await engine.call(Waits.tell, key="k")
            assert await handle.result() == ["yes"]

    run(main())


def test_an_exception_of_a_task_group_is_retried_and_a_terminal_one_is_not(place: Place) -> None:
    quiet_log()
    trouble = Trouble(1)

    class Grouped(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            async def fail() -> None:
                trouble.strike()
                raise TerminalError("over", 410)

            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
            return "never"

    async def main() -> None:
        async with place.engine(Grouped()) as engine:
            with pytest.raises(TerminalError, match="over") as caught:
                await engine.submit(Grouped.run, key="k")
            assert caught.value.code == 410

    run(main())
    assert trouble.left == 0


def test_a_base_exception_of_a_handler_is_a_failed_attempt(place: Place) -> None:
    quiet_log()
    left = [1]

    class Strange(BaseException):
        pass

    class Odd(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            if left:
                left.pop()
                raise Strange("odd")
            return "done"

    async def main() -> None:
        async with place.engine(Odd()) as engine:
            assert await engine.submit(Odd.run, key="k") == "done"

    run(main())


def test_cancelled_error_that_nobody_asked_for_is_a_failed_attempt(place: Place) -> None:
    quiet_log()

    class Odd(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            raise asyncio.CancelledError

    async def main() -> None:
        async with place.engine(Odd()) as engine:
            handle = await engine.send(Odd.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            failure = (await engine.describe(handle.id)).last_failure
            assert failure is not None
            assert "CancelledError although nobody cancelled it" in failure

    run(main())


def test_an_answered_step_backs_off_no_more_although_its_answer_met_a_failing_attempt(
    place: Place,
) -> None:
    quiet_log()
    trouble = Trouble(1)
    attempts: list[str] = []
    soon = RetryPolicy(initial=0.001, factor=1, max_interval=0.001)

    class Fails(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.run("tried twice", trouble.strike, retry=soon)
            attempts.append("with the answer")
            raise ConnectionError("the handler's own")

    async def main() -> None:
        slow = RetryPolicy(initial=60)
        async with place.engine(Fails(), default_retry=slow) as engine:
            await engine.send(Fails.run, key="k")
            await until(lambda: bool(attempts))
            await until_idle(engine)

    run(main())  # the place looks for a back-off that names an answered step
