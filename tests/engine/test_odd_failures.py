"""Exceptions that resist being recorded, and BaseExceptions, in handlers and in steps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
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
from invariants import assert_invariants

from perdure import RetryPolicy, Status, TerminalError, Workflow, WorkflowContext
from perdure._runtime._layout import TimerKey
from perdure._runtime._timers import Timers

ONCE = RetryPolicy(max_attempts=1)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unfinished(TerminalError):
    """Forgot to call its base."""

    def __init__(self) -> None:
        pass


class Holds:
    def __repr__(self) -> str:
        return "<Holds>"


ODD: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: ValueError(Holds(), {"a": Holds()}), "<Holds>"),
    (lambda: ValueError("lone \ud800 surrogate"), r"lone \ud800 surrogate"),
    (lambda: ValueError(b"\xff\xfe"), r"b'\xff\xfe'"),
    (lambda: ValueError("x" * 3_000_000), "x" * 1000),
    (lambda: ValueError("a\0b"), "a\0b"),
    (lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "0xff"),
    (Unprintable, "its text can not be shown"),
    (ValueError, "ValueError"),
]


class Act(Workflow):
    """Its run does what the test says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)


def failure_of(place: Place, act: Any) -> str:
    """The last failure of the invocation that does *act*, paused by it, also after reopening."""

    async def main() -> str:
        async with place.engine(Act(act), default_retry=ONCE) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            before = (await engine.describe(handle.id)).last_failure
        async with place.engine(Act(act), default_retry=ONCE) as engine:
            assert (await engine.describe(handle.id)).last_failure == before
        assert before is not None
        return before

    return run(main())


@pytest.mark.parametrize(("make", "text"), ODD)
def test_whatever_a_handler_raises_is_recorded_and_shown(
    place: Place, make: Callable[[], BaseException], text: str
) -> None:
    quiet_log()

    async def act(ctx: WorkflowContext) -> None:
        raise make()

    failure = failure_of(place, act)
    assert text in failure
    assert len(failure) < 100_000


@pytest.mark.parametrize(("make", "text"), ODD)
@pytest.mark.parametrize("in_thread", [False, True])
def test_whatever_a_step_raises_is_recorded_and_shown(
    place: Place, make: Callable[[], BaseException], text: str, in_thread: bool
) -> None:
    quiet_log()

    def fail() -> None:
        raise make()

    async def fail_async() -> None:
        fail()

    async def act(ctx: WorkflowContext) -> None:
        await ctx.run("step", fail if in_thread else fail_async)

    failure = failure_of(place, act)
    assert text in failure
    assert len(failure) < 100_000


@pytest.mark.parametrize(("make", "text"), ODD)
def test_whatever_a_step_of_its_own_policy_raises_reaches_the_handler(
    place: Place, make: Callable[[], BaseException], text: str
) -> None:
    quiet_log()

    def fail() -> None:
        raise make()

    async def act(ctx: WorkflowContext) -> None:
        await ctx.run("step", fail, retry=ONCE)

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            with pytest.raises(TerminalError, match="step 'step' failed after 1 attempts") as e:
                await engine.submit(Act.run, key="k")
            assert text in e.value.message

    run(main())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TerminalError("lone \ud800"), r"lone \ud800"),
        (lambda: TerminalError("x", metadata={"\ud800": 5}), "x"),  # type: ignore[dict-item]
        (lambda: TerminalError(Holds()), "<Holds>"),  # type: ignore[arg-type]
        (lambda: TerminalError("x" * 3_000_000), "x" * 1000),
        (lambda: TerminalError("x", 10**40), "x"),
        (lambda: TerminalError("x", "4o4"), "x"),  # type: ignore[arg-type]
        (lambda: TerminalError(Unprintable()), "can not be shown"),  # type: ignore[arg-type]
        (Unfinished, ""),
    ],
)
@pytest.mark.parametrize("where", ["handler", "step", "thread"])
def test_whatever_is_in_a_terminal_error_it_reaches_the_caller(
    place: Place, make: Callable[[], TerminalError], text: str, where: str
) -> None:
    def fail() -> None:
        raise make()

    async def fail_async() -> None:
        fail()

    async def act(ctx: WorkflowContext) -> None:
        if where == "handler":
            fail()
        await ctx.run("step", fail if where == "thread" else fail_async)

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            with pytest.raises(TerminalError) as caught:
                await engine.submit(Act.run, key="k")
            assert text in caught.value.message
            assert len(caught.value.message) < 100_000
            await until_idle(engine)

    run(main())


# -- KeyboardInterrupt, and a step whose task somebody cancels ------------------------------------


def test_a_keyboard_interrupt_in_a_thread_step_is_a_failed_attempt(place: Place) -> None:
    quiet_log()

    def fail() -> None:
        raise KeyboardInterrupt

    async def act(ctx: WorkflowContext) -> None:
        await ctx.run("step", fail, retry=ONCE)

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            with pytest.raises(TerminalError, match="KeyboardInterrupt"):
                await engine.submit(Act.run, key="k")

    run(main())


@pytest.mark.parametrize("retry", [None, ONCE])
def test_a_keyboard_interrupt_in_an_async_step_ends_the_program_and_not_the_step(
    place: Place, retry: RetryPolicy | None
) -> None:
    quiet_log()
    interrupts = [KeyboardInterrupt()]

    async def work() -> str:
        await asyncio.sleep(0)
        if interrupts:
            raise interrupts.pop()
        return "worked"

    async def act(ctx: WorkflowContext) -> str:
        return await ctx.run("work", work, retry=retry)

    async def first() -> None:
        async with asyncio.timeout(5):
            async with place.engine(Act(act), default_retry=ONCE, drain_timeout=60) as engine:
                await engine.submit(Act.run, key="k")

    async def second() -> None:
        async with place.engine(Act(act), default_retry=ONCE) as engine:
            assert await engine.submit(Act.run, key="k") == "worked"

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    assert time.monotonic() - began < 5, "closing waited for what was interrupted"
    run(second())


def test_a_keyboard_interrupt_in_a_handler_ends_the_program_and_not_the_others(
    place: Place,
) -> None:
    quiet_log()
    interrupts = [KeyboardInterrupt()]

    async def act(ctx: WorkflowContext) -> str:
        if ctx.key == "b" and interrupts:
            raise interrupts.pop()
        return "done"

    async def first() -> None:
        async with asyncio.timeout(5):
            async with place.engine(Act(act), drain_timeout=60) as engine:
                await asyncio.gather(*(engine.submit(Act.run, key=key) for key in "bac"))

    async def second() -> None:
        async with place.engine(Act(act)) as engine:
            for key in "abc":
                assert await engine.submit(Act.run, key=key) == "done"

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    assert time.monotonic() - began < 5, "closing waited for what was interrupted"
    run(second())


def test_a_step_whose_task_is_cancelled_from_outside_is_tried_again(place: Place) -> None:
    quiet_log()
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if len(tasks) == 1:
            await asyncio.Event().wait()
        return "worked"

    async def act(ctx: WorkflowContext) -> str:
        return await ctx.run("work", work, retry=ONCE)

    async def main() -> None:
        async with place.engine(Act(act), default_retry=QUICK) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.RUNNING)
            await until(lambda: bool(tasks))
            tasks[0].cancel()
            assert await handle.result() == "worked"
            assert not scheduler_of(engine).running.any()

    run(main())


def test_an_interrupt_in_the_middle_of_a_write_leaves_no_half_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_log()
    begun, released = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        released.wait(5)

    async def act(ctx: WorkflowContext) -> str:
        if ctx.key == "busy":
            await ctx.run("block", block)
        ctx.set("state", 1)
        await ctx.sleep(0.001)
        return "done"

    def interrupt(timers: Timers, timer: TimerKey, value: bytes = b"") -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    async def first() -> None:
        async with place.engine(Act(act)) as engine:
            await engine.send(Act.run, key="busy")
            await until(begun.is_set)
            monkeypatch.setattr(Timers, "put", interrupt)
            try:
                await engine.send(Act.run, key="interrupted")
            finally:
                released.set()
                await asyncio.sleep(0.05)  # the step reports, which seals

    async def second() -> None:
        async with place.engine(Act(act)) as engine:
            for key in ("busy", "interrupted"):
                assert await engine.submit(Act.run, key=key) == "done"

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    assert_invariants(place.path)
    run(second())


def test_whoever_sent_what_interrupts_the_program_is_answered(resident_place: Place) -> None:
    async def act(ctx: WorkflowContext) -> str:
        raise KeyboardInterrupt

    async def done(ctx: WorkflowContext) -> str:
        return "done"

    loop = asyncio.new_event_loop()
    try:
        engine = resident_place.engine(Act(act))
        loop.run_until_complete(engine.open())
        sending = loop.create_task(engine.send(Act.run, key="k"))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(sending)
        loop.run_until_complete(engine.close())
        handle = loop.run_until_complete(asyncio.wait_for(sending, 1))
    finally:
        loop.close()

    async def second() -> None:
        async with resident_place.engine(Act(done)) as engine:
            assert await engine.attach(handle.id) == "done"

    run(second())
