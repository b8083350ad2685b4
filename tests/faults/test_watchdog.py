"""What holds up the event loop is named, with the line, once; what is idle is not looked at."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run, until, until_idle

from perdure import Engine, Workflow, WorkflowContext, WorkflowSharedContext, handler
from perdure._runtime import _watchdog

WARN_S = 0.06
HELD_S = 0.3


class Act(Workflow):
    """Its run does what the test says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(None)


def compute() -> None:
    end = time.monotonic() + HELD_S
    while time.monotonic() < end:
        pass  # it computes here


async def compute_nothing(ctx: WorkflowContext) -> None:
    pass


async def sleeps(ctx: WorkflowContext) -> None:
    time.sleep(HELD_S)  # noqa: ASYNC251  # it sleeps here


async def computes(ctx: WorkflowContext) -> None:
    compute()


async def keeps_the_gil(ctx: WorkflowContext) -> None:
    await ctx.run("watched", asyncio.sleep, WARN_S)
    sum(range(30_000_000))


async def in_a_task(ctx: WorkflowContext) -> None:
    async def part() -> None:
        time.sleep(HELD_S)  # noqa: ASYNC251  # a part sleeps here

    await asyncio.gather(part())


async def a_step_sleeps(ctx: WorkflowContext) -> None:
    async def charge() -> None:
        time.sleep(HELD_S)  # noqa: ASYNC251  # a step sleeps here

    await ctx.run("charge", charge)


async def a_step_sleeps_in_a_thread(ctx: WorkflowContext) -> None:
    await ctx.run("charge", time.sleep, HELD_S)


def line_of(text: str) -> int:
    lines = Path(__file__).read_text("utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith("# " + text))


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """What perdure logs meanwhile."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listener = Listener()
    logging.getLogger("perdure").addHandler(listener)
    try:
        yield messages
    finally:
        logging.getLogger("perdure").removeHandler(listener)


def messages_of(place: Place, act: Any, **options: Any) -> tuple[str, list[str]]:
    """The id of an invocation that does *act*, and what was logged."""

    async def main() -> str:
        async with place.engine(Act(act), **{"stall_warning": WARN_S, **options}) as engine:
            handle = await engine.send(Act.run, key="k")
            await handle.result()
            if options.get("stall_warning", WARN_S) is not None:
                await asyncio.sleep(WARN_S)  # the thread sees within half of it that all is over
            return handle.id

    with heard() as messages:
        return run(main()), messages


@pytest.mark.parametrize(
    ("act", "line", "function"),
    [
        (sleeps, "it sleeps here", "sleeps"),
        (computes, "it computes here", "compute"),
        (in_a_task, "a part sleeps here", "part"),
    ],
)
def test_a_handler_that_holds_the_loop_is_named_once_with_its_line_and_told_when_it_is_over(
    resident_place: Place, act: Any, line: str, function: str
) -> None:
    invocation_id, (held, over) = messages_of(resident_place, act)
    match = re.fullmatch(
        rf"{invocation_id} \(Act\.run\) has held the event loop for \d\.\d s "
        rf"\((\d\.\d) s of them computing\), at (\S+):(\d+) in \S*{function}: (.*)\. "
        r"Nothing else runs meanwhile: do it in a step, "
        r"await ctx\.run\('name', function\): a plain def runs in a thread",
        held,
    )
    assert match, held
    assert float(match[1]) < 0.1 or act is computes
    assert match[2] == __file__
    # Of a loop of two lines it may be either.
    assert abs(int(match[3]) - line_of(line)) <= (1 if act is computes else 0)
    assert re.fullmatch(
        rf"the event loop goes on: {invocation_id} \(Act\.run\) held it for \d\.\d s", over
    )


def test_to_be_woken_late_does_not_have_it_look_without_a_pause(resident_place: Place) -> None:
    looks = 0

    async def main() -> None:
        async def woken_late(ctx: WorkflowContext) -> None:
            nonlocal looks
            watchdog: Any = engine._watchdog
            await ctx.run("watched", asyncio.sleep, WARN_S)
            threading.Timer(HELD_S / 3, watchdog._wake.set).start()
            cpu_s = watchdog._cpu_s

            def counted() -> Any:
                nonlocal looks
                looks += 1
                return cpu_s()

            watchdog._cpu_s = counted
            time.sleep(HELD_S)  # noqa: ASYNC251

        async with resident_place.engine(Act(woken_late), stall_warning=WARN_S) as engine:
            await (await engine.send(Act.run, key="k")).result()

    run(main())
    assert 0 < looks <= 5 * HELD_S / WARN_S  # two of each interval are meant


def test_the_thread_of_an_engine_that_is_left_with_its_loop_ends(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watchdog, "SLEEP_S", 0.01)
    engine = resident_place.engine(Act(compute_nothing), stall_warning=WARN_S)

    async def main() -> None:
        await engine.open()
        await (await engine.send(Act.run, key="k")).result()
        watchdog: Any = engine._watchdog
        await until(lambda: watchdog._asleep)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    (thread,) = [each for each in threading.enumerate() if each.name == "perdure-watchdog"]
    loop.close()
    thread.join(10)
    assert not thread.is_alive()
    scheduler: Any = engine._scheduler
    scheduler.store.close()


def test_an_async_step_that_holds_the_loop_is_named_with_its_line(resident_place: Place) -> None:
    invocation_id, (held, over) = messages_of(resident_place, a_step_sleeps)
    assert held.startswith(f"the step 'charge' of {invocation_id} has held the event loop for ")
    assert f"at {__file__}:{line_of('a step sleeps here')} in " in held
    assert "make it a plain def, which runs in a thread, or await what it waits for" in held
    assert over.startswith(f"the event loop goes on: the step 'charge' of {invocation_id} held it")


def test_one_call_that_keeps_the_gil_is_named_when_it_is_over(resident_place: Place) -> None:
    invocation_id, messages = messages_of(resident_place, keeps_the_gil)
    assert len(messages) == 2, messages
    assert f"{invocation_id} (Act.run) has held the event loop for" in messages[0]
    assert "in keeps_the_gil: sum(range(30_000_000))" in messages[0]


def test_a_step_in_a_thread_may_block(resident_place: Place) -> None:
    assert messages_of(resident_place, a_step_sleeps_in_a_thread)[1] == []


def test_without_a_limit_nobody_watches(resident_place: Place) -> None:
    assert messages_of(resident_place, sleeps, stall_warning=None)[1] == []


def test_the_program_that_holds_the_loop_is_named_while_the_engine_has_something_to_do(
    resident_place: Place,
) -> None:
    async def waits(ctx: WorkflowContext) -> None:
        await ctx.run("wait", asyncio.sleep, 2 * HELD_S)

    async def main() -> None:
        async with resident_place.engine(Act(waits), stall_warning=WARN_S) as engine:
            handle = await engine.send(Act.run, key="k")
            await asyncio.sleep(WARN_S)
            time.sleep(HELD_S)  # noqa: ASYNC251  # the program sleeps here
            await handle.result()

    with heard() as messages:
        run(main())
    assert len(messages) == 2, messages
    assert messages[0].startswith("the program, outside of handlers and steps, has held the event")
    assert f"{__file__}:{line_of('the program sleeps here')} in " in messages[0]


def switches(thread: threading.Thread) -> int:
    """How often a thread has gone to sleep."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1])


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "perdure-watchdog"]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_engine_is_not_looked_at_and_work_wakes_who_watches(resident_place: Place) -> None:
    async def acts(ctx: WorkflowContext) -> None:
        await ctx.promise("go")
        time.sleep(HELD_S)  # noqa: ASYNC251

    async def main() -> None:
        before = watchdogs()
        async with resident_place.engine(Act(acts), stall_warning=WARN_S / 2) as engine:
            await until_idle(engine)
            assert watchdogs() == before, "there was nothing to do as yet"
            handle = await engine.send(Act.run, key="k")
            (watchdog,) = (thread for thread in watchdogs() if thread not in before)
            counts = [-1, 0]

            async def look() -> None:
                counts[:] = counts[1], switches(watchdog)
                await asyncio.sleep(4 * WARN_S)

            for _ in range(40):
                if counts[0] == counts[1]:
                    break
                await look()
            assert counts[0] == counts[1], "it never goes to sleep"
            await engine.call(Act.go, key="k")
            await handle.result()
        await until(lambda: not watchdog.is_alive(), "the end of the thread")

    with heard() as messages:
        run(main())
    assert any("has held the event loop" in message for message in messages)


STOPPED = """
import asyncio, logging, sys
from perdure import Engine, Workflow, WorkflowContext

class Waits(Workflow):
    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.run("wait", asyncio.sleep, 0.6)

async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    async with Engine(sys.argv[1], [Waits()], stall_warning=0.3) as engine:
        handle = await engine.send(Waits.run, key="k")
        print("waits", flush=True)
        await handle.result()

asyncio.run(main())
"""


@pytest.mark.long
def test_a_process_that_was_stopped_has_held_up_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.8)  # so long it is stopped: this is the time that is measured
        os.kill(child.pid, signal.SIGCONT)
        _, complaints = child.communicate(timeout=20)
    assert "held the event loop" not in complaints
    assert child.returncode == 0


def test_a_limit_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    make: Callable[[float], Engine] = lambda limit: Engine(  # noqa: E731
        tmp_path, [Act(sleeps)], stall_warning=limit
    )
    for limit in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="stall_warning must be positive or None, got"):
            make(limit)
