"""Leaving the engine: what runs may end, what was acknowledged is kept, nothing hangs."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until, until_idle, until_status

from perdure import (
    Accepted,
    Engine,
    NotReady,
    Status,
    StoreClosed,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Work(Workflow):
    """Runs one step, then another, then waits for a promise if there is one to wait for."""

    def __init__(self, first: Any, second: Any = None, waits: bool = False) -> None:
        self.first = first
        self.second = second
        self.waits = waits

    async def run(self, ctx: WorkflowContext) -> Any:
        result = await ctx.run("first", self.first)
        if self.second is not None:
            result = await ctx.run("second", self.second)
        if self.waits:
            await ctx.promise("go")
        return result

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(None)


class Gated:
    """A step that ends when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.calls: list[str] = []

    async def __call__(self) -> str:
        self.calls.append("begun")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.calls.append("cancelled")
            raise
        self.calls.append("ended")
        return "worked"


async def begun(step: Gated) -> None:
    await until(lambda: bool(step.calls), "the step's start")


def test_a_running_step_may_end_and_its_result_is_kept(place: Place) -> None:
    async def main() -> None:
        step = Gated()
        async with place.engine(Work(step, waits=True)) as engine:
            handle = await engine.send(Work.run, key="k")
            await begun(step)
            asyncio.get_running_loop().call_later(0.02, step.gate.set)
        assert step.calls == ["begun", "ended"]
        async with place.engine(Work(step, waits=True)) as engine:
            await until_status(engine, handle.id, Status.SUSPENDED)
            await engine.call(Work.go, key="k")
            assert await engine.attach(handle.id) == "worked"
        assert step.calls == ["begun", "ended"]  # not a second time

    run(main())


def test_no_new_step_starts_while_the_engine_drains(place: Place) -> None:
    async def main() -> None:
        first, second = Gated(), Gated()
        async with place.engine(Work(first, second)) as engine:
            handle = await engine.send(Work.run, key="k")
            await begun(first)
            asyncio.get_running_loop().call_later(0.02, first.gate.set)
        assert first.calls == ["begun", "ended"]
        assert second.calls == []
        second.gate.set()
        async with place.engine(Work(first, second)) as engine:
            assert await engine.attach(handle.id) == "worked"
        assert (first.calls, second.calls) == (["begun", "ended"], ["begun", "ended"])

    run(main())


def test_a_step_that_does_not_end_is_cancelled_after_drain_timeout_and_starts_anew(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        step = Gated()
        async with place.engine(Work(step), drain_timeout=0.05) as engine:
            handle = await engine.send(Work.run, key="k")
            await begun(step)
        assert step.calls == ["begun", "cancelled"]
        step.gate.set()
        async with place.engine(Work(step)) as engine:
            assert await engine.attach(handle.id) == "worked"
        assert step.calls == ["begun", "cancelled", "begun", "ended"]

    with caplog.at_level(logging.WARNING, "perdure"):
        run(main())
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "perdure"]
    assert warning == (
        "1 steps still run after 0.1 s; they start anew when the directory is opened again"
    )


def test_a_step_that_will_not_be_cancelled_does_not_keep_the_engine_open(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        release = asyncio.Event()
        calls: list[str] = []

        async def stubborn() -> str:
            calls.append("begun")
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    calls.append("refused")
            return "too late"

        async with place.engine(Work(stubborn), drain_timeout=0) as engine:
            handle = await engine.send(Work.run, key="k")
            await until(lambda: bool(calls))
        assert calls == ["begun", "refused"]
        release.set()
        await asyncio.sleep(0)  # what it returns is dropped
        async with place.engine(Work(stubborn)) as engine:
            assert await engine.attach(handle.id) == "too late"
        assert calls == ["begun", "refused", "begun"]

    run(main())


def test_a_thread_step_that_never_ends_does_not_keep_the_engine_open(place: Place) -> None:
    quiet_log()
    release = threading.Event()
    calls: list[str] = []

    def blocks() -> str:
        calls.append("begun")
        release.wait(60)
        return "worked"

    async def main() -> None:
        began = time.monotonic()
        async with place.engine(Work(blocks), drain_timeout=0.02) as engine:
            handle = await engine.send(Work.run, key="k")
            await until(lambda: bool(calls))
        assert time.monotonic() - began < 5
        release.set()
        async with place.engine(Work(blocks)) as engine:
            assert await engine.attach(handle.id) == "worked"
        assert calls == ["begun", "begun"]

    run(main())


def test_an_exception_inside_the_block_comes_out_and_nothing_acknowledged_is_lost(
    place: Place,
) -> None:
    async def main() -> None:
        step = Gated()
        step.gate.set()
        ids: list[str] = []

        async def fails() -> None:
            async with place.engine(Work(step, waits=True)) as engine:
                ids.append((await engine.send(Work.run, key="k")).id)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fails()
        async with place.engine(Work(step, waits=True)) as engine:
            await engine.call(Work.go, key="k")
            assert await engine.attach(ids[0]) == "worked"

    run(main())


async def hold(engine: Engine, opened: asyncio.Event) -> None:
    async with engine:
        opened.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("again", [False, True], ids=["once", "again while it drains"])
def test_the_task_that_holds_the_engine_may_be_cancelled(place: Place, again: bool) -> None:
    async def main() -> None:
        step = Gated()
        opened = asyncio.Event()
        engine = place.engine(Work(step))
        holder = asyncio.create_task(hold(engine, opened))
        await opened.wait()
        handle = await engine.send(Work.run, key="k")
        await begun(step)
        holder.cancel()
        if again:
            await asyncio.sleep(0)  # it drains
            holder.cancel()
        else:
            step.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await holder
        await asyncio.sleep(0)
        assert step.calls == ["begun", "cancelled" if again else "ended"]
        with pytest.raises(StoreClosed):
            await engine.describe(handle.id)
        step.gate.set()
        async with place.engine(Work(step)) as engine:
            assert await engine.attach(handle.id) == "worked"

    run(main())


def test_ctrl_c_drains_and_closes(place: Place) -> None:
    ids: list[str] = []
    calls: list[str] = []

    async def work() -> str:
        calls.append("begun")
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0.02)
        calls.append("ended")
        return "worked"

    async def first() -> None:
        async with place.engine(Work(work)) as engine:
            ids.append((await engine.send(Work.run, key="k")).id)
            await asyncio.Event().wait()

    async def second() -> None:
        async with place.engine(Work(work)) as engine:
            assert await engine.attach(ids[0]) == "worked"

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    assert calls == ["begun", "ended"]
    run(second())
    assert calls == ["begun", "ended"]


@pytest.mark.parametrize(
    "wait",
    [
        lambda engine, handle: handle.result(),
        lambda engine, handle: engine.attach(handle.id),
        lambda engine, handle: engine.submit(Work.run, key="k"),
    ],
    ids=["result", "attach", "submit"],
)
def test_a_waiting_client_that_is_cancelled_does_not_cancel_the_invocation(
    place: Place, wait: Callable[[Engine, Any], Awaitable[Any]]
) -> None:
    async def main() -> None:
        step = Gated()
        async with place.engine(Work(step)) as engine:
            handle = await engine.send(Work.run, key="k")
            await begun(step)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await wait(engine, handle)
            with pytest.raises(NotReady):
                await handle.output()
            step.gate.set()
            assert await handle.result() == "worked"
        assert step.calls == ["begun", "ended"]

    run(main())


def test_a_call_that_is_cancelled_at_once_is_still_made(place: Place) -> None:
    async def main() -> None:
        step = Gated()
        step.gate.set()
        async with place.engine(Work(step)) as engine:
            client = asyncio.create_task(engine.call(Work.run, key="k"))
            await asyncio.sleep(0)
            client.cancel()
            assert await engine.submit(Work.run, key="k") == "worked"
            assert (await engine.send(Work.run, key="k")).accepted is Accepted.EXISTING

    run(main())


def test_who_waits_when_the_engine_closes_is_told_that_it_goes_on_later(place: Place) -> None:
    async def main() -> None:
        step = Gated()
        step.gate.set()
        async with place.engine(Work(step, waits=True)) as engine:
            handle = await engine.send(Work.run, key="k")
            waiting = [
                asyncio.ensure_future(handle.result()),
                asyncio.ensure_future(engine.attach(handle.id)),
                asyncio.ensure_future(engine.submit(Work.run, key="k")),
                asyncio.ensure_future(engine.call(Work.run, key="another")),
            ]
            await until_idle(engine)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreClosed)
            assert "goes on when the directory is opened again" in str(outcome)

    run(main())


def test_what_was_sent_right_before_the_end_is_acknowledged(place: Place) -> None:
    async def main() -> None:
        step = Gated()
        step.gate.set()
        async with place.engine(Work(step)) as engine:
            sending = [
                asyncio.create_task(engine.send(Work.run, key=str(number))) for number in range(50)
            ]
            await asyncio.sleep(0)
        handles = await asyncio.gather(*sending)
        async with place.engine(Work(step)) as engine:
            for handle in handles:
                assert await engine.attach(handle.id) == "worked"

    run(main())


@pytest.mark.parametrize(
    "use",
    [
        lambda engine: engine.call(Work.go, key="k"),
        lambda engine: engine.send(Work.run, key="k"),
        lambda engine: engine.submit(Work.run, key="k"),
        lambda engine: engine.attach("inv_06d3pdls0000f7hnf6snuijs2k"),
        lambda engine: engine.output("inv_06d3pdls0000f7hnf6snuijs2k"),
        lambda engine: engine.describe("inv_06d3pdls0000f7hnf6snuijs2k"),
        lambda engine: engine.resume("inv_06d3pdls0000f7hnf6snuijs2k"),
        lambda engine: engine.invocations(),
        lambda engine: anext(engine.all_invocations()),
        lambda engine: engine.state(Work, "k"),
        lambda engine: engine.set_state(Work, "k", {}),
        lambda engine: engine.promises(Work, "k"),
    ],
    ids=[
        *("call", "send", "submit", "attach", "output", "describe", "resume", "invocations"),
        *("all_invocations", "state", "set_state", "promises"),
    ],
)
def test_an_engine_used_before_and_after_says_so(
    resident_place: Place, use: Callable[[Engine], Awaitable[Any]]
) -> None:
    async def main() -> None:
        engine = resident_place.engine(Work(None))
        with pytest.raises(StoreClosed, match="not open; use it inside `async with engine:`"):
            await use(engine)
        async with engine:
            pass
        with pytest.raises(StoreClosed, match="is closed; make another Engine"):
            await use(engine)

    run(main())


def test_closing_twice_and_at_once_is_fine(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Work(None)) as engine:
            await asyncio.gather(engine.close(), engine.close())
            await engine.close()

    run(main())


def test_closing_what_was_never_opened_is_fine(resident_place: Place) -> None:
    run(resident_place.engine(Work(None)).close())
