"""Steps: what they may be, what comes back, how they fail."""

from __future__ import annotations

import asyncio
import functools
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from engine_support import (
    QUICK,
    Place,
    quiet_log,
    run,
    scheduler_of,
    until,
    until_idle,
    until_status,
)

from perdure import (
    InvalidInput,
    RetryableError,
    RetryPolicy,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    step_token,
)
from perdure._ids import parse_id
from perdure.futures import Step


@dataclass
class Receipt:
    number: int
    text: str = ""


class Once(Workflow):
    """Runs one step, as the test says."""

    def __init__(self, fn: Any, *args: Any, **options: Any) -> None:
        self.fn = fn
        self.args = args
        self.options = options

    async def run(self, ctx: WorkflowContext) -> Any:
        return await ctx.run("the step", self.fn, *self.args, **self.options)


def result_of(place: Place, fn: Any, *args: Any, **options: Any) -> Any:
    async def main() -> Any:
        async with place.engine(Once(fn, *args, **options)) as engine:
            return await engine.submit(Once.run, key="k")

    return run(main())


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def test_an_async_step_gives_its_result(place: Place) -> None:
    assert result_of(place, add, 1, 2) == 3


def test_a_sync_step_runs_in_a_thread_of_the_engine(place: Place) -> None:
    assert result_of(place, lambda: threading.current_thread().name).startswith("perdure-step-")


def test_a_lambda_that_makes_a_coroutine_is_awaited(place: Place) -> None:
    assert result_of(place, lambda: add(3, 4)) == 7


def test_an_async_step_may_be_a_partial(place: Place) -> None:
    assert result_of(place, functools.partial(add, b=5), 1) == 6


def test_a_sync_step_may_be_a_partial(place: Place) -> None:
    def join(*, left: str, right: str) -> str:
        return left + right

    assert result_of(place, functools.partial(join, left="a", right="b")) == "ab"


def test_a_step_may_be_an_instance_with_an_async_call(place: Place) -> None:
    class Caller:
        async def __call__(self, a: int) -> Receipt:
            return Receipt(a)

    assert result_of(place, Caller(), 4, returns=Receipt) == {"number": 4, "text": ""}


def test_the_result_has_the_type_that_returns_names(place: Place) -> None:
    seen: list[object] = []

    class Typed(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            seen.append(await ctx.run("a", lambda: {"number": 1, "text": "x"}, returns=Receipt))

    async def main() -> None:
        async with place.engine(Typed()) as engine:
            await engine.submit(Typed.run, key="k")

    run(main())
    assert seen[-1] == Receipt(1, "x")


def test_the_result_has_the_type_of_the_annotation_live_and_replayed(place: Place) -> None:
    seen: list[object] = []

    async def make() -> Receipt:
        return Receipt(2)

    class Annotated(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            seen.append(await ctx.run("a", make))
            await ctx.run("b", make)

    async def main() -> None:
        async with place.engine(Annotated()) as engine:
            await engine.submit(Annotated.run, key="k")

    run(main())
    assert seen
    assert all(value == Receipt(2) for value in seen)


def test_a_terminal_error_of_a_step_arrives_and_can_be_caught(place: Place) -> None:
    def refuse() -> None:
        raise TerminalError("no money", 402, {"account": "7"})

    class Catches(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[Any]:
            try:
                await ctx.run("charge", refuse)
            except TerminalError as error:
                return [str(error), error.code, error.metadata]
            return []

    async def main() -> Any:
        async with place.engine(Catches()) as engine:
            return await engine.submit(Catches.run, key="k")

    assert run(main()) == ["no money", 402, {"account": "7"}]


def test_a_terminal_error_that_is_not_caught_reaches_the_caller(place: Place) -> None:
    calls: list[int] = []

    async def refuse() -> None:
        calls.append(1)
        raise TerminalError("no money", 402)

    with pytest.raises(TerminalError, match=r"^no money$") as caught:
        result_of(place, refuse)
    assert caught.value.code == 402
    assert len(calls) == 1


class OwnError(TerminalError):
    pass


def test_a_subclass_of_terminal_error_arrives_as_terminal_error_live_too(place: Place) -> None:
    def refuse() -> None:
        raise OwnError("mine", 418)

    with pytest.raises(TerminalError, match="mine") as caught:
        result_of(place, refuse)
    assert type(caught.value) is TerminalError
    assert caught.value.code == 418


class Flaky:
    """Fails so many times, then succeeds."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionError("refused")
        self.calls = 0
        self.tokens: list[str] = []

    async def __call__(self) -> int:
        self.calls += 1
        self.tokens.append(step_token())
        if self.calls <= self.failures:
            raise self.error
        return self.calls


def test_a_step_is_retried_until_it_succeeds(place: Place) -> None:
    quiet_log()
    flaky = Flaky(2)
    assert result_of(place, flaky) == 3
    assert flaky.calls == 3


def test_the_step_token_is_one_in_all_attempts(place: Place) -> None:
    quiet_log()
    flaky = Flaky(2)
    result_of(place, flaky)
    assert len(flaky.tokens) == 3
    assert len(set(flaky.tokens)) == 1
    assert flaky.tokens[0].startswith("inv_")


def test_the_step_token_tells_steps_apart(place: Place) -> None:
    async def token() -> str:
        return step_token()

    class Two(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[str]:
            return [await ctx.run("a", token), await ctx.run("a", step_token)]

    async def main() -> Any:
        async with place.engine(Two()) as engine:
            return [await engine.submit(Two.run, key=key) for key in "ab"]

    tokens = [token for pair in run(main()) for token in pair]
    assert len(set(tokens)) == 4


def test_a_policy_of_the_step_when_used_up_raises_a_terminal_error(place: Place) -> None:
    quiet_log()
    flaky = Flaky(99)
    with pytest.raises(TerminalError, match="step 'the step' failed after 2 attempts") as caught:
        result_of(place, flaky, retry=RetryPolicy(initial=0.001, factor=1, max_attempts=2))
    assert "ConnectionError: refused" in str(caught.value)
    assert flaky.calls == 2


def test_the_default_policy_when_used_up_pauses_and_resume_goes_on(place: Place) -> None:
    quiet_log()
    flaky = Flaky(3)

    async def main() -> None:
        async with place.engine(Once(flaky)) as engine:
            handle = await engine.send(Once.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            description = await engine.describe(handle.id)
            assert description.last_failure == "ConnectionError: refused"
            assert flaky.calls == 3
            assert await engine.resume(handle.id)
            assert await handle.result() == 4
            assert not await engine.resume(handle.id)

    run(main())


def test_a_pause_outlives_the_engine(place: Place) -> None:
    quiet_log()
    flaky = Flaky(3)

    async def main() -> None:
        async with place.engine(Once(flaky)) as engine:
            handle = await engine.send(Once.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
        async with place.engine(Once(flaky)) as engine:
            await until_idle(engine)
            description = await engine.describe(handle.id)
            assert description.status is Status.PAUSED
            assert description.last_failure == "ConnectionError: refused"
            assert flaky.calls == 3
            await engine.resume(handle.id)
            assert await engine.attach(handle.id) == 4

    run(main())


def test_retry_after_wins_over_the_policy(place: Place) -> None:
    quiet_log()
    flaky = Flaky(1, RetryableError("busy", retry_after=0.002))
    slow = RetryPolicy(initial=3600, max_interval=3600)
    assert result_of(place, flaky, retry=slow) == 2


def test_an_async_attempt_ends_at_its_timeout(place: Place) -> None:
    quiet_log()
    calls: list[int] = []

    async def hang_once() -> int:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return len(calls)

    assert result_of(place, hang_once, timeout=0.01) == 2


def test_an_attempt_in_a_thread_ends_at_its_timeout_and_its_outcome_is_dropped(
    place: Place,
) -> None:
    quiet_log()
    calls: list[int] = []
    release = threading.Event()

    def hang_once() -> int:
        calls.append(1)
        mine = len(calls)
        if mine == 1:
            release.wait(5)
        return mine

    async def main() -> int:
        async with place.engine(Once(hang_once, timeout=0.01)) as engine:
            result: int = await engine.submit(Once.run, key="k")
            release.set()
            return result

    assert run(main()) == 2


def test_a_timeout_used_up_is_a_terminal_error(place: Place) -> None:
    quiet_log()
    once = RetryPolicy(max_attempts=1)
    with pytest.raises(TerminalError, match="TimeoutError"):
        result_of(place, lambda: asyncio.sleep(60), timeout=0.01, retry=once)


class Strange(BaseException):
    pass


@pytest.mark.parametrize("error", [Strange("odd"), SystemExit(3), GeneratorExit()])
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_base_exception_in_a_step_is_a_failed_attempt(
    place: Place, error: BaseException, in_thread: bool
) -> None:
    quiet_log()

    def fail() -> None:
        raise error

    async def fail_async() -> None:
        raise error

    once = RetryPolicy(max_attempts=1)
    with pytest.raises(TerminalError, match=type(error).__name__):
        result_of(place, fail if in_thread else fail_async, retry=once)


def test_a_cancelled_error_of_the_step_itself_is_a_failed_attempt(place: Place) -> None:
    quiet_log()

    async def fail() -> None:
        raise asyncio.CancelledError("my own")

    with pytest.raises(TerminalError, match="CancelledError"):
        result_of(place, fail, retry=RetryPolicy(max_attempts=1))


def test_a_step_never_awaited_is_cancelled_when_run_returns(place: Place) -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def wait() -> None:
        await started.wait()

    class Leaves(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            ctx.run("hang", hang)
            await ctx.run("wait", wait)
            return "left"

    async def main() -> None:
        async with place.engine(Leaves()) as engine:
            assert await engine.submit(Leaves.run, key="k") == "left"
            await until(lambda: bool(ended))
            await until_idle(engine)

    run(main())
    assert ended == ["cancelled"]


def test_steps_of_one_workflow_run_at_the_same_time(place: Place) -> None:
    barrier = asyncio.Barrier(3)

    async def meet(number: int) -> int:
        await barrier.wait()
        return number

    class Three(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[int]:
            return await asyncio.gather(*(ctx.run("meet", meet, n) for n in range(3)))

    async def main() -> Any:
        async with place.engine(Three()) as engine:
            return await engine.submit(Three.run, key="k")

    assert run(main()) == [0, 1, 2]


def test_a_step_cancelled_by_a_timeout_is_stopped_and_never_starts_again(place: Place) -> None:
    events: list[str] = []

    async def hang() -> None:
        events.append("start")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("stopped")

    async def undo() -> None:
        events.append("undo")

    class Compensates(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            try:
                async with asyncio.timeout(0.2):
                    await ctx.run("hang", hang)
            except TimeoutError:
                await ctx.run("undo", undo)
            return "undone"

    async def main() -> None:
        async with place.engine(Compensates()) as engine:
            assert await engine.submit(Compensates.run, key="k") == "undone"
            await until_idle(engine)
        async with place.engine(Compensates()) as engine:
            await until_idle(engine)

    run(main())
    assert events == ["start", "stopped", "undo"]


def test_a_step_that_ends_while_its_cancellation_commits_leaves_no_trace(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()

    async def wait() -> int:
        await go.wait()
        return 1

    class Leaves(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            ctx.run("wait", wait)
            await ctx.run("done", lambda: None)
            return "left"

    async def main() -> None:
        async with place.engine(Leaves()) as engine:
            scheduler = scheduler_of(engine)
            finished = scheduler.finished

            def release_step_and_finish(*args: Any) -> None:
                go.set()
                finished(*args)

            monkeypatch.setattr(scheduler, "finished", release_step_and_finish)
            assert await engine.submit(Leaves.run, key="k") == "left"
            await until_idle(engine)

    run(main())


def test_one_failing_step_does_not_lose_the_result_of_another(place: Place) -> None:
    """The result waits in the unit stream while the other step uses up its policy."""
    quiet_log()
    calls: list[str] = []
    go = asyncio.Event()

    async def good() -> str:
        calls.append("good")
        await go.wait()
        return "good"

    async def bad() -> str:
        calls.append("bad")
        await go.wait()
        if calls.count("bad") <= 1:
            raise ConnectionError("refused")
        return "bad"

    class Both(Workflow):
        async def run(self, ctx: WorkflowContext) -> tuple[str, str]:
            return await asyncio.gather(ctx.run("good", good), ctx.run("bad", bad))

    async def main() -> None:
        policy = RetryPolicy(max_attempts=1)
        async with place.engine(Both(), default_retry=policy) as engine:
            handle = await engine.send(Both.run, key="k")
            await until(lambda: len(calls) == 2)
            go.set()
            await until_status(engine, handle, Status.PAUSED)
            description = await engine.describe(handle.id)
            assert description.last_failure == "ConnectionError: refused"
            await engine.resume(handle.id)
            assert await handle.result() == ("good", "bad")

    run(main())
    assert calls.count("good") == 1


@pytest.mark.parametrize("name", ["", "x" * 97, 7, "\ud800"])
def test_a_step_needs_a_name(resident_place: Place, name: Any) -> None:
    class Named(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.run(name, add, 1, 2)

    async def main() -> None:
        async with resident_place.engine(Named()) as engine:
            await engine.submit(Named.run, key="k")

    with pytest.raises(InvalidInput, match="step name"):
        run(main())


def test_a_coroutine_in_the_place_of_a_function_is_refused(resident_place: Place) -> None:
    class Wrong(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            made = add(1, 2)
            try:
                await ctx.run("add", made)  # type: ignore[call-overload]
            finally:
                made.close()

    async def main() -> None:
        async with resident_place.engine(Wrong()) as engine:
            await engine.submit(Wrong.run, key="k")

    with pytest.raises(InvalidInput, match=r"step 'add': .* pass the function and its arguments"):
        run(main())


def test_the_policy_of_the_class_holds_for_its_steps(place: Place) -> None:
    quiet_log()
    flaky = Flaky(1)

    class Patient(Workflow, retry=RetryPolicy(initial=0.001, factor=1, max_attempts=2)):
        async def run(self, ctx: WorkflowContext) -> int:
            result: int = await ctx.run("flaky", flaky)
            return result

    async def main() -> Any:
        async with place.engine(Patient(), default_retry=RetryPolicy(max_attempts=1)) as engine:
            return await engine.submit(Patient.run, key="k")

    assert run(main()) == 2
    assert QUICK.max_attempts == 3


class TwoInThreads(Workflow):
    """Cancels a step that still waits for a thread."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.ran: list[str] = []

    def busy(self) -> None:
        self.release.wait()
        self.ran.append("busy")

    def queued(self) -> None:
        self.ran.append("queued")

    async def compensate(self) -> None:
        self.ran.append("compensation")
        self.release.set()

    def after(self) -> None:
        self.ran.append("after")

    async def run(self, ctx: WorkflowContext) -> list[str]:
        busy = ctx.run("busy", self.busy)
        queued = ctx.run("queued", self.queued)
        await ctx.sleep(0.001)
        queued.cancel()
        await ctx.run("compensate", self.compensate)
        await busy
        await ctx.run("after", self.after)
        return self.ran


def test_a_step_cancelled_while_it_waits_for_a_thread_never_runs(resident_place: Place) -> None:
    async def main() -> list[str]:
        async with resident_place.engine(TwoInThreads(), step_threads=1) as engine:
            return await engine.submit(TwoInThreads.run, key="k")

    assert run(main()) == ["compensation", "busy", "after"]


class StepThenPromise(Workflow):
    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.runs = 0

    async def step(self) -> None:
        self.runs += 1
        await self.release.wait()

    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.run("step", self.step)
        await ctx.promise("never")


def test_a_start_that_an_eviction_has_overtaken_does_not_run_the_step_again(
    resident_place: Place,
) -> None:
    async def main() -> int:
        workflow = StepThenPromise()
        async with resident_place.engine(workflow) as engine:
            scheduler = scheduler_of(engine)
            handle = await engine.send(StepThenPromise.run, key="k")
            await until(lambda: workflow.runs == 1)
            evicted = scheduler.residents.by_id.get(parse_id(handle.id))
            assert evicted is not None
            [step] = evicted.machine.outstanding.values()
            assert isinstance(step, Step)
            scheduler.residents.drop(evicted)
            workflow.release.set()
            await until_status(engine, handle, Status.SUSPENDED)
            # As when the commit it waited for is heard of only now.
            scheduler.pump.start_step(evicted, step)
            await until_idle(engine)
        return workflow.runs

    assert run(main()) == 1
