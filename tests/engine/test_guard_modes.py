"""What becomes of a hit of the guard: the modes, the journal, and what is never looked at."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_idle, until_status
from primitive_support import Primitive

from perdure import (
    Engine,
    NondeterministicOperationError,
    RetryPolicy,
    Status,
    Verdict,
    Workflow,
    WorkflowContext,
)
from perdure._core._machine import Machine

Body = Callable[[WorkflowContext], Awaitable[Any]]
Log = pytest.LogCaptureFixture

ONCE = RetryPolicy(max_attempts=1)


def lines_of(log: Log) -> list[str]:
    """What the guard has logged."""
    return [text for text in log.messages if "can not be replayed" in text]


def submitted(place: Place, body: Body, *keys: str, **options: Any) -> list[Any]:
    """The results of *body* on each of *keys*, one after the other."""

    async def main() -> list[Any]:
        async with place.engine(Primitive(body), **options) as engine:
            return [await engine.submit(Primitive.run, key=key) for key in keys or ("k",)]

    return run(main())


async def reads_the_clock(ctx: WorkflowContext) -> str:
    await ctx.sleep(0.001)
    time.time()
    return "done"


# ---- modes ----------------------------------------------------------------------------------


def test_unless_it_is_asked_for_nothing_is_looked_for(resident_place: Place, caplog: Log) -> None:
    assert submitted(resident_place, reads_the_clock) == ["done"]
    assert lines_of(caplog) == []


def test_a_warning_is_logged_once_for_each_line_and_the_handler_goes_on(
    place: Place, caplog: Log
) -> None:
    async def body(ctx: WorkflowContext) -> str:
        for _ in "ab":
            time.time()
        time.monotonic()
        return "done"

    assert submitted(place, body, "one", "two", guard="warn") == ["done", "done"]
    first, second = lines_of(caplog)
    assert first.startswith("inv_")
    assert ": time.time() can not be replayed, at " in first
    assert ": time.monotonic() can not be replayed, at " in second


def test_an_error_reaches_the_caller_and_is_logged(place: Place, caplog: Log) -> None:
    with pytest.raises(
        NondeterministicOperationError, match=r"^time\.time\(\) can not be replayed"
    ):
        submitted(place, reads_the_clock, guard="raise")
    assert len(lines_of(caplog)) == 1


def test_what_logs_a_hit_finds_the_loop_of_the_program(resident_place: Place) -> None:
    found: list[asyncio.AbstractEventLoop] = []

    class Ship(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(asyncio.get_running_loop())

    async def main() -> None:
        async with resident_place.engine(Primitive(reads_the_clock), guard="warn") as engine:
            await engine.submit(Primitive.run, key="k")
        assert found == [asyncio.get_running_loop()]

    log, ship = logging.getLogger("perdure"), Ship()
    log.addHandler(ship)
    try:
        run(main())
    finally:
        log.removeHandler(ship)


@pytest.mark.parametrize("mode", ["on", "", None, True])
def test_another_mode_is_refused(tmp_path: Path, mode: Any) -> None:
    with pytest.raises(ValueError, match="guard must be 'off', 'warn' or 'raise', not "):
        Engine(tmp_path, [Primitive(reads_the_clock)], guard=mode)


# ---- what was caught ------------------------------------------------------------------------


async def catches(ctx: WorkflowContext) -> None:
    try:
        time.time()
    except Exception:
        await ctx.run("fall back", str)


async def answers_otherwise(ctx: WorkflowContext) -> str:
    try:
        time.time()
    except NondeterministicOperationError:
        return "caught"
    return "not caught"


async def fails_otherwise(ctx: WorkflowContext) -> None:
    try:
        time.time()
    except NondeterministicOperationError as error:
        raise ZeroDivisionError from error


async def collects(ctx: WorkflowContext) -> None:
    async def child() -> None:
        time.time()

    await asyncio.gather(child(), return_exceptions=True)
    await ctx.promise("word")


async def calls_back(ctx: WorkflowContext) -> None:
    def read() -> None:
        time.time()

    asyncio.get_running_loop().call_soon(read)
    await ctx.promise("word")


@pytest.mark.parametrize(
    "body", [catches, answers_otherwise, fails_otherwise, collects, calls_back]
)
def test_a_handler_that_goes_on_after_a_hit_has_failed(place: Place, body: Body) -> None:
    """Each attempt, as any other failure: its policy says what follows."""
    quiet_log()

    async def main() -> None:
        async with place.engine(Primitive(body), guard="raise") as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            found = await engine.describe(handle.id)
            assert found.last_failure is not None
            assert "NondeterministicOperationError: time.time() can not be" in found.last_failure
            assert found.journal_length == 0

    run(main())


def test_nothing_of_what_follows_a_hit_is_in_the_journal(place: Place) -> None:
    """So the engine can be opened again in another mode, and goes on; no step runs again."""
    quiet_log()
    ran: list[str] = []

    async def body(ctx: WorkflowContext) -> str:
        await ctx.run("before", ran.append, "before")
        try:
            time.time()
        except Exception:
            await ctx.run("instead", ran.append, "instead")
        await ctx.run("after", ran.append, "after")
        return "done"

    async def main() -> None:
        async with place.engine(Primitive(body), guard="raise") as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
        assert ran == ["before"]
        async with place.engine(Primitive(body), guard="off") as engine:
            assert await engine.resume(handle.id)
            assert await engine.attach(handle.id) == "done"
        assert ran == ["before", "after"]

    run(main())


def test_files_are_still_guarded_after_an_error_was_caught(
    resident_place: Place, tmp_path: Path
) -> None:
    """Python drops a profile function that raises; the audit hook stays."""
    quiet_log()

    async def body(ctx: WorkflowContext) -> None:
        with contextlib.suppress(NondeterministicOperationError):
            time.time()
        (tmp_path / "made").write_text("a word", "utf-8")

    async def main() -> None:
        async with resident_place.engine(Primitive(body), guard="raise") as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_status(engine, handle, Status.PAUSED)

    run(main())
    assert not (tmp_path / "made").exists()


# ---- replay ---------------------------------------------------------------------------------


async def reads_and_waits(ctx: WorkflowContext) -> str:
    time.time()
    await ctx.run("work", str)
    return await ctx.promise("word", str)


def test_a_journal_that_was_written_without_it_is_paused_with_the_line_and_unchanged(
    resident_place: Place,
) -> None:
    quiet_log()
    engine_of = functools.partial(resident_place.engine, Primitive(reads_and_waits))

    async def main() -> None:
        async with engine_of() as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_idle(engine)
            before = await engine.describe(handle.id)
        async with engine_of(guard="raise") as engine:
            await engine.call(Primitive.resolve, "word", key="k")
            await until_status(engine, handle, Status.PAUSED)
            found = await engine.describe(handle.id)
            assert "time.time() can not be replayed" in str(found.last_failure)
            assert found.journal == before.journal
        async with engine_of(guard="warn") as engine:
            assert await engine.resume(handle.id)
            assert await engine.attach(handle.id) == "value of word"

    run(main())


def test_a_replay_warns_as_the_first_run_did(resident_place: Place, caplog: Log) -> None:
    engine_of = functools.partial(resident_place.engine, Primitive(reads_and_waits))

    async def main() -> None:
        async with engine_of() as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_idle(engine)
        async with engine_of(guard="warn") as engine:
            await engine.call(Primitive.resolve, "word", key="k")
            await engine.attach(handle.id)

    run(main())
    assert len(lines_of(caplog)) == 1


def test_a_check_says_which_invocations_it_would_fail(resident_place: Place) -> None:
    engine_of = functools.partial(resident_place.engine, Primitive(reads_and_waits))

    async def main() -> None:
        async with engine_of() as engine:
            await engine.send(Primitive.run, key="k")
            await until_idle(engine)
            assert (await engine.check()).ok
        async with engine_of(guard="raise") as engine:
            (problem,) = (await engine.check()).problems
            assert problem.verdict is Verdict.FAILS
            assert "time.time() can not be replayed" in problem.reason

    run(main())


# ---- what is never looked at ----------------------------------------------------------------


def test_steps_do_what_they_like(place: Place) -> None:
    async def in_the_loop() -> float:
        await asyncio.sleep(0)
        return time.time()

    def in_a_thread() -> str:
        return Path(__file__).read_text("utf-8")[:3]

    async def body(ctx: WorkflowContext) -> list[Any]:
        waiting = ctx.run("in the loop", in_the_loop), ctx.run("in a thread", in_a_thread)
        lambdas = ctx.run("a lambda", lambda: time.time() > 0, returns=bool)
        return [await lambdas, *[type(await each).__name__ for each in waiting]]

    assert submitted(place, body, guard="raise") == [[True, "float", "str"]]


def test_other_threads_do_what_they_like_while_a_handler_runs(resident_place: Place) -> None:
    go_on, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def other() -> None:
        go_on.wait()
        try:
            time.time()
            Path(__file__).read_text("utf-8")
        except BaseException as error:
            failures.append(error)
        done.set()

    async def body(ctx: WorkflowContext) -> bool:
        go_on.set()
        return done.wait(5)

    thread = threading.Thread(target=other)
    thread.start()
    assert submitted(resident_place, body, guard="raise") == [True]
    thread.join()
    assert failures == []


def test_the_program_around_the_engine_does_what_it_likes(resident_place: Place) -> None:
    class Clocked(Workflow):
        def __init__(self) -> None:
            self.made = time.time()

        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.sleep(0.001)

    async def main() -> None:
        async with resident_place.engine(Clocked(), guard="raise") as engine:
            handle = await engine.send(Clocked.run, key="k")
            while (await engine.describe(handle.id)).status is not Status.COMPLETED:
                time.time()
                os.listdir(".")
                assert sys.getprofile() is None
                await asyncio.sleep(0)

    run(main())


def test_a_profiler_that_is_active_is_left_alone_and_files_are_guarded(
    resident_place: Place, caplog: Log
) -> None:
    events: set[str] = set()

    def profiler(frame: FrameType, event: str, arg: Any) -> None:
        events.add(event)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.sleep(0.001)
        time.time()
        assert sys.getprofile() is profiler
        os.listdir(".")

    sys.setprofile(profiler)
    try:
        with pytest.raises(NondeterministicOperationError, match=r"^os\.listdir\(\)"):
            submitted(resident_place, body, guard="raise")
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert "c_call" in events
    assert len([text for text in caplog.messages if "another profiler is active" in text]) == 1


def test_a_debugger_goes_on_tracing(resident_place: Place) -> None:
    traced: list[str] = []

    def tracer(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename == __file__:
            traced.append(f"{frame.f_code.co_name} {event}")
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with pytest.raises(NondeterministicOperationError):
            submitted(resident_place, reads_the_clock, guard="raise")
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert {"reads_the_clock line", "reads_the_clock exception"} <= set(traced)


def machines() -> list[Machine]:
    return [each for each in gc.get_objects() if isinstance(each, Machine)]


def test_a_hit_leaves_nothing_to_the_garbage_collector(resident_place: Place) -> None:
    quiet_log()

    async def main() -> None:
        async with resident_place.engine(
            Primitive(catches), guard="raise", default_retry=ONCE
        ) as engine:
            gc.collect()
            gc.disable()
            others = machines()  # of tests before this one, whose failures pytest keeps
            try:
                handle = await engine.send(Primitive.run, key="k")
                await until_status(engine, handle, Status.PAUSED)
                left = [each for each in machines() if each not in others]
            finally:
                gc.enable()
            assert left == []

    run(main())


PROGRAM = """
import asyncio, tempfile
import perdure

class Opens:
    def __del__(self, open=open):
        open("/dev/null").close()

asyncio.kept = Opens()  # it goes among the last

class Greeter(perdure.Service):
    @perdure.handler
    async def greet(self, ctx: perdure.Context) -> str:
        return "hello"

async def main():
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, [Greeter()], guard="raise") as engine:
            print(await engine.call(Greeter.greet))

asyncio.run(main())
"""


def test_a_program_that_had_a_guard_ends_in_silence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "", 0)
