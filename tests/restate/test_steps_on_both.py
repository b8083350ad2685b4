"""Steps mean the same whoever drives the handler."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from engine_support import until
from scripted import Script, named
from worlds import World

import perdure
from perdure import RetryableError, RetryPolicy, TerminalError, WorkflowContext

THRICE = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=3)


class Attempts:
    """A step that fails some times, and counts."""

    def __init__(self, failures: int, error: Callable[[str], Exception] = ValueError) -> None:
        self.failures = failures
        self.error = error
        self.count = 0
        self.tokens: list[str] = []

    def __call__(self) -> str:
        self.count += 1
        self.tokens.append(perdure.step_token())
        if self.count <= self.failures:
            raise self.error(f"failure {self.count}")
        return f"attempt {self.count}"


def test_a_step_runs_once_and_its_result_is_awaited_as_often_as_one_likes(world: World) -> None:
    ran: list[str] = []

    def sync(what: str) -> str:
        ran.append(what)
        return threading.current_thread().name.partition("-")[0] and what

    async def on_the_loop(what: str) -> str:
        ran.append(what)
        await asyncio.sleep(0)
        return what

    async def body(ctx: WorkflowContext) -> Any:
        first = ctx.run("sync", sync, "a")
        results = [await first, await ctx.run("async", on_the_loop, "b")]
        await ctx.sleep(0.001)
        return [*results, await first]

    assert world.result(body) == ["a", "b", "a"]
    assert ran == ["a", "b"]


def test_steps_made_together_run_together(world: World) -> None:
    barrier = threading.Barrier(3, timeout=10)

    async def body(ctx: WorkflowContext) -> Any:
        steps = [ctx.run(f"step {i}", lambda: barrier.wait() >= 0) for i in range(3)]
        return [await step for step in steps]

    assert world.result(body) == [True, True, True]


def test_a_hundred_steps_made_together_each_have_their_own_result(world: World) -> None:
    async def value(number: int) -> int:
        return number * number

    async def body(ctx: WorkflowContext) -> Any:
        return await asyncio.gather(*(ctx.run(f"step {i}", value, i) for i in range(100)))

    assert world.result(body) == [i * i for i in range(100)]


def test_a_loop_of_steps_goes_through_each_of_them_once(world: World) -> None:
    ran: list[int] = []
    count = 50 if world.on_restate and world.suspends else 200

    async def body(ctx: WorkflowContext) -> Any:
        total = 0
        for number in range(count):
            total += await ctx.run("add", _kept, ran, number)
        return total

    assert world.result(body) == sum(range(count))
    assert ran == list(range(count))


def _kept(ran: list[int], number: int) -> int:
    ran.append(number)
    return number


def test_a_step_with_a_policy_succeeds_after_failures_and_has_one_token(world: World) -> None:
    step = Attempts(2)
    other = Attempts(0)

    async def body(ctx: WorkflowContext) -> Any:
        result = await ctx.run("flaky", step, retry=THRICE)
        return [result, await ctx.run("other", other)]

    assert world.result(body) == ["attempt 3", "attempt 1"]
    assert len(set(step.tokens)) == 1
    assert set(step.tokens).isdisjoint(other.tokens)


def test_a_step_with_a_policy_that_is_used_up_raises_and_says_so(world: World) -> None:
    step = Attempts(99)

    async def body(ctx: WorkflowContext) -> Any:
        try:
            await ctx.run("flaky", step, retry=THRICE)
        except TerminalError as failure:
            return [str(failure), failure.code]

    assert world.result(body) == [
        "step 'flaky' failed after 3 attempts: ValueError: failure 3",
        500,
    ]
    assert step.count == 3


def test_a_step_without_a_policy_is_retried_as_its_invocation(world: World) -> None:
    step = Attempts(2)

    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.run("flaky", step)

    assert world.result(body) == "attempt 3"


def test_a_terminal_error_of_a_step_is_not_retried_and_keeps_code_and_metadata(
    world: World,
) -> None:
    ran: list[str] = []

    def refuse() -> None:
        ran.append("refuse")
        raise TerminalError("declined", 402, {"card": "4711"})

    async def body(ctx: WorkflowContext) -> Any:
        step = ctx.run("charge", refuse, retry=THRICE)
        caught = []
        for _ in range(2):
            try:
                await step
            except TerminalError as failure:
                caught.append([str(failure), failure.code, failure.metadata])
        return caught

    assert world.result(body) == [["declined", 402, {"card": "4711"}]] * 2
    assert ran == ["refuse"]


def test_a_retryable_error_sets_its_own_delay(world: World) -> None:
    def in_a_moment(text: str) -> Exception:
        return RetryableError(text, retry_after=0.01)

    step = Attempts(1, in_a_moment)

    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.run("flaky", step, retry=THRICE)

    assert world.result(body) == "attempt 2"


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_timeout_bounds_each_attempt(world: World, kind: str) -> None:
    ran: list[str] = []
    release = threading.Event()

    async def slow() -> str:
        ran.append("slow")
        if len(ran) == 1:
            await asyncio.sleep(20)
        return f"attempt {len(ran)}"

    def slow_in_a_thread() -> str:
        ran.append("slow")
        if len(ran) == 1:
            release.wait(20)
        return f"attempt {len(ran)}"

    async def body(ctx: WorkflowContext) -> Any:
        step: Callable[[], Any] = slow if kind == "async" else slow_in_a_thread
        return await ctx.run("slow", step, retry=THRICE, timeout=0.05)

    assert world.result(body) == "attempt 2"
    release.set()


def test_a_step_whose_last_waiter_was_cancelled_is_stopped_and_never_starts_again(
    world: World,
) -> None:
    seen: list[str] = []

    async def slow() -> None:
        seen.append("began")
        try:
            await asyncio.sleep(world.step_s)
        except asyncio.CancelledError:
            seen.append("stopped")
            raise

    async def body(ctx: WorkflowContext) -> Any:
        step = ctx.run("slow", slow)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_awaited(step), 0.3)
        await ctx.sleep(0.02)
        await ctx.run("compensate", seen.append, "compensated")
        return [step.cancelled(), step.done()]

    assert world.result(body) == [True, True]
    overtaken = world.step_s < 1
    assert seen == (["began", "compensated"] if overtaken else ["began", "stopped", "compensated"])


async def _awaited(step: Awaitable[Any]) -> Any:
    return await step


def test_a_cancelled_step_in_a_thread_is_no_longer_heard(world: World) -> None:
    release = threading.Event()

    async def body(ctx: WorkflowContext) -> Any:
        step = ctx.run("slow", release.wait, world.step_s)
        await ctx.sleep(0.02)
        step.cancel()
        try:
            await step
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
            return "cancelled"

    assert world.result(body) == "cancelled"
    release.set()


def test_a_step_cancelled_at_once_never_starts(world: World) -> None:
    ran: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        ctx.run("never", ran.append, "never").cancel()
        await ctx.sleep(0.02)
        return await ctx.run("last", lambda: "last")

    assert world.result(body) == "last"
    assert ran == []


def test_a_step_cancelled_between_two_attempts_never_starts_again(world: World) -> None:
    step = Attempts(99)
    policy = RetryPolicy(initial=1, max_interval=1, max_attempts=99)

    async def body(ctx: WorkflowContext) -> Any:
        flaky = ctx.run("flaky", step, retry=policy)
        await ctx.sleep(0.1)
        flaky.cancel()
        await ctx.sleep(1.5)
        return flaky.cancelled()

    assert world.result(body) is True
    assert step.count <= 1


def test_a_handler_that_ends_beside_a_running_step_ends_at_once(world: World) -> None:
    seen: list[str] = []

    async def slow() -> None:
        seen.append("began")
        try:
            await asyncio.sleep(world.step_s)
        finally:
            seen.append("ended")

    async def body(ctx: WorkflowContext) -> Any:
        ctx.run("slow", slow)
        await ctx.sleep(0.3)
        return "done"

    async def story(verbs: Any) -> Any:
        result = await verbs.submit(Script.run, named(body), key=world.key)
        await until(lambda: seen == ["began", "ended"], "the end of the step")
        return result

    assert world.play(story) == "done"


def test_a_cancelled_step_does_not_keep_its_handler_from_waiting(world: World) -> None:
    """A thread can not be stopped: what waits goes on, and may suspend, beside it."""
    release = threading.Event()

    async def body(ctx: WorkflowContext) -> Any:
        step = ctx.run("slow", release.wait, world.step_s)
        await ctx.sleep(0.02)
        step.cancel()
        return await ctx.promise("released")

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await asyncio.sleep(0.1)
        await verbs.call(Script.resolve, "released", key=world.key)
        return await begun.result()

    assert world.play(story) == "value of released"
    release.set()


def test_step_tokens_differ_between_steps_and_invocations(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        tokens = [await ctx.run("same name", perdure.step_token) for _ in range(3)]
        assert all(len(token) <= 48 for token in tokens), tokens
        return tokens

    async def story(verbs: Any) -> Any:
        name = named(body)
        return [await verbs.submit(Script.run, name, key=world.key + tail) for tail in "ab"]

    first, second = world.play(story)
    assert len({*first, *second}) == 6


def test_a_failing_step_beside_a_good_one_leaves_that_ones_result(world: World) -> None:
    step = Attempts(1)
    good: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        done = await ctx.run("good", _appended, good)
        return await asyncio.gather(ctx.run("flaky", step, retry=THRICE), _value(done))

    assert world.result(body) == ["attempt 2", "good"]
    assert good == ["good"]


def _appended(good: list[str]) -> str:
    good.append("good")
    return "good"


async def _value(value: Any) -> Any:
    return value


def test_steps_that_fail_side_by_side_are_each_tried_again(world: World) -> None:
    steps = [Attempts(1), Attempts(1)]

    async def body(ctx: WorkflowContext) -> Any:
        policy = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=9)
        runs = [ctx.run(f"flaky {i}", step, retry=policy) for i, step in enumerate(steps)]
        return [(await run).partition(" ")[0] for run in runs]

    assert world.result(body) == ["attempt", "attempt"]


def test_steps_that_are_used_up_side_by_side_each_fail(world: World) -> None:
    steps = [Attempts(99), Attempts(99)]

    async def body(ctx: WorkflowContext) -> Any:
        runs = [ctx.run(f"flaky {i}", step, retry=THRICE) for i, step in enumerate(steps)]
        failures = await asyncio.gather(*runs, return_exceptions=True)
        return [type(failure).__name__ for failure in failures]

    assert world.result(body) == ["TerminalError", "TerminalError"]


def test_a_handler_whose_attempt_fails_beside_a_running_step_has_its_result_in_the_end(
    world: World,
) -> None:
    attempts: list[int] = []

    async def body(ctx: WorkflowContext) -> Any:
        step = ctx.run("slow", _slept, 0.05)
        await ctx.sleep(0.005)
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("not yet")
        return await step

    assert world.result(body) == "slept"


async def _slept(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def test_a_step_whose_result_is_not_of_its_type_fails_for_good(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        try:
            await ctx.run("text", _value, "text", returns=int)
        except TerminalError as failure:
            return failure.code

    assert world.result(body) == 400


def test_a_step_that_cancels_itself_is_tried_again(world: World) -> None:
    ran: list[int] = []

    async def cancels() -> str:
        ran.append(1)
        if len(ran) < 2:
            raise asyncio.CancelledError
        return "at last"

    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.run("cancels", cancels, retry=THRICE)

    assert world.result(body) == "at last"


def test_a_step_in_a_thread_is_never_run_twice_at_once(world: World) -> None:
    alone = threading.Lock()
    overlaps: list[bool] = []
    beside = Attempts(failures=2)

    def slow() -> int:
        is_alone = alone.acquire(blocking=False)
        overlaps.append(not is_alone)
        time.sleep(0.2)  # while the step beside it fails, and ends the attempt on Restate
        if is_alone:
            alone.release()
        return 1

    async def body(ctx: WorkflowContext) -> Any:
        return await asyncio.gather(ctx.run("slow", slow), ctx.run("beside", beside))

    assert world.result(body) == [1, "attempt 3"]
    assert not any(overlaps)
