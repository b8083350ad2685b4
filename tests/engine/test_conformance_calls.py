"""Conformance: calls, sends, combinators over them, idempotency, retries, payloads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from engine_support import (
    QUICK,
    ManualClock,
    Place,
    quiet_log,
    run,
    until_idle,
    until_status,
)

from perdure import (
    Accepted,
    Cancelled,
    Context,
    Engine,
    InvalidInput,
    NotFound,
    ObjectContext,
    ObjectSharedContext,
    RetryableError,
    RetryPolicy,
    Service,
    Status,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
)

Body = Callable[[WorkflowContext], Awaitable[Any]]
MIB = 1024 * 1024


class Script(Workflow):
    """Runs what the test gives it."""

    def __init__(self, main: Body) -> None:
        self.main = main

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.main(ctx)


class Log(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, text: str) -> int:
        texts = [*(await ctx.get("texts", list[str], [])), text]
        ctx.set("texts", texts)
        return len(texts)

    @handler
    async def fail(self, ctx: ObjectContext, text: str) -> None:
        ctx.set("texts", [text])
        raise TerminalError(f"failed {text}", 418, {"place": ctx.key})

    @handler
    async def texts(self, ctx: ObjectSharedContext) -> list[str]:
        return await ctx.get("texts", list[str], [])

    @handler
    async def ask(self, ctx: ObjectContext, key: str) -> str:
        return await ctx.call(Named.run, key=key)


class Named(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        number = await ctx.call(Log.add, ctx.key, key="named")
        return f"{ctx.key} is number {number}"


class Echo(Service):
    @handler
    async def say(self, ctx: Context, what: Any) -> Any:
        return what

    @handler
    async def optional(self, ctx: Context, what: str | None = "absent") -> str | None:
        return what

    @handler
    async def nothing(self, ctx: Context) -> None:
        return None

    @handler
    async def blob(self, ctx: Context, blob: bytes) -> bytes:
        return blob

    @handler
    async def headers(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)

    @handler
    async def fail(self, ctx: Context, text: str) -> str:
        raise TerminalError(text, 499, {"a": "b"})

    @handler
    async def pass_on(self, ctx: Context, depth: int) -> str:
        if depth:
            return await ctx.call(Echo.pass_on, depth - 1)
        raise TerminalError("from the depth", 417, {"depth": "0"})

    @handler
    async def after(self, ctx: Context, seconds: float) -> float:
        await ctx.sleep(seconds)
        return seconds


def engine_of(place: Place, main: Body, **options: Any) -> Engine:
    return place.engine(Script(main), Log(), Named(), Echo(), **options)


def script(place: Place, main: Body) -> Any:
    async def session() -> Any:
        async with engine_of(place, main) as engine:
            return await engine.submit(Script.run, key="s")

    return run(session())


# -- order, targets, values -----------------------------------------------------------------------


def test_calls_of_one_key_from_many_handlers_lose_none_and_keep_each_ones_order(
    place: Place,
) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        calls = [ctx.call(Log.add, f"{ctx.key}-{i}", key="shared") for i in range(5)]
        return [await call for call in calls]

    async def session() -> None:
        async with engine_of(place, main) as engine:
            numbers = await asyncio.gather(
                *(engine.submit(Script.run, key=f"s{i}") for i in range(10))
            )
            assert sorted(n for each in numbers for n in each) == list(range(1, 51))
            assert all(each == sorted(each) for each in numbers)

    run(session())


def test_a_workflow_calls_an_object_and_an_object_a_workflow(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        return [await ctx.call(Log.ask, "w1", key="asker"), await ctx.call(Named.run, key="w2")]

    assert script(place, main) == ["w1 is number 1", "w2 is number 2"]


def test_what_is_called_by_name_has_the_type_that_is_asked_for(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        pair = await ctx.call("Echo.say", [1, 2], returns=tuple[int, int])
        assert isinstance(pair, tuple)
        with pytest.raises(InvalidInput):
            await ctx.call("Echo.say", "text", returns=int)
        with pytest.raises(NotFound):
            ctx.call("Echo.nobody", 1)
        return [list(pair), await ctx.call("Log.add", "x", key="k", returns=int)]

    assert script(place, main) == [[1, 2], 1]


def test_none_is_not_an_absent_argument(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        refs = [ctx.send("Echo.optional"), ctx.send("Echo.optional", None)]
        sent = [await ctx.attach(await ref.invocation_id()) for ref in refs]
        called = [
            await ctx.call("Echo.optional"),
            await ctx.call("Echo.optional", None),
            await ctx.call("Echo.nothing"),
        ]
        with pytest.raises(InvalidInput):
            ctx.call("Echo.nothing", None)
        with pytest.raises(InvalidInput):
            ctx.call("Echo.say")
        return [sent, called]

    assert script(place, main) == [["absent", None], ["absent", None, None]]


def test_headers_reach_who_is_called_and_nobody_else(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        ref = ctx.send(Echo.headers, headers={"b": "ü"})
        return [
            await ctx.call(Echo.headers, headers={"a": "1"}),
            await ctx.attach(await ref.invocation_id()),
            await ctx.call(Echo.headers),
        ]

    assert script(place, main) == [{"a": "1"}, {"b": "ü"}, {}]


def test_large_payloads_go_both_ways(place: Place) -> None:
    blob = bytes(range(256)) * (5 * MIB // 256)

    async def main(ctx: WorkflowContext) -> Any:
        first = await ctx.call(Echo.blob, blob)
        await ctx.sleep(0.001)
        assert await ctx.call(Echo.blob, first) == blob
        with pytest.raises(InvalidInput, match="the limit is 33,554,432 bytes"):
            ctx.call(Echo.blob, bytes(33 * MIB))
        return len(first)

    assert script(place, main) == 5 * MIB


def test_an_error_keeps_its_code_and_metadata_through_a_chain_of_calls(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        await ctx.call(Echo.pass_on, 5)

    async def session() -> None:
        async with engine_of(place, main) as engine:
            with pytest.raises(TerminalError, match=r"^from the depth$") as caught:
                await engine.submit(Script.run, key="s")
            assert (caught.value.code, caught.value.metadata) == (417, {"depth": "0"})

    run(session())


def test_state_set_before_a_terminal_error_is_there_for_the_next(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        try:
            await ctx.call(Log.fail, "kept", key="k")
        except TerminalError as error:
            return [error.metadata, await ctx.call(Log.add, "next", key="k")]

    assert script(place, main) == [{"place": "k"}, 2]


# -- combinators ----------------------------------------------------------------------------------


async def gathered(ctx: WorkflowContext) -> Any:
    found = await asyncio.gather(
        ctx.call(Echo.say, 1),
        ctx.call(Echo.fail, "no"),
        ctx.run("s", int, 3),
        return_exceptions=True,
    )
    return [str(each) for each in found]


async def gather_fails(ctx: WorkflowContext) -> Any:
    slow = ctx.call(Echo.after, 0.01)
    try:
        await asyncio.gather(slow, ctx.call(Echo.fail, "no"))
    except TerminalError as error:
        return [str(error), await slow]


async def first_to_come(ctx: WorkflowContext) -> Any:
    slow, quick = ctx.call(Echo.after, 0.02), ctx.call(Echo.say, "quick")
    first = await ctx.wait_first(slow, quick)
    return [first is quick, await quick, await slow]


async def first_fails(ctx: WorkflowContext) -> Any:
    awakeable, failing = ctx.awakeable(int), ctx.call(Echo.fail, "first")
    first = await ctx.wait_first(awakeable, failing)
    assert first is failing
    await ctx.resolve_awakeable(awakeable.id, 5)
    return [str(failing.exception()), await awakeable]


async def in_order(ctx: WorkflowContext) -> Any:
    calls = [ctx.call(Echo.after, seconds) for seconds in (0.03, 0.001, 0.015)]
    return [await call async for call in ctx.wait(*calls)]


async def as_completed(ctx: WorkflowContext) -> Any:
    calls = [ctx.call(Echo.after, seconds) for seconds in (0.02, 0.001)]
    return [await each for each in asyncio.as_completed(calls)]


async def task_group(ctx: WorkflowContext) -> Any:
    async def call(what: str) -> Any:
        return await ctx.call(Echo.say, what)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(text)) for text in "abc"]
    return [task.result() for task in tasks]


async def task_group_fails(ctx: WorkflowContext) -> Any:
    async def call(text: str) -> Any:
        return await ctx.call(Echo.fail, text)

    async def wait() -> Any:
        try:
            await ctx.awakeable()
        except asyncio.CancelledError:
            await ctx.call(Log.add, "undone", key="group")
            raise

    failed: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(call("no"))
    except* TerminalError as errors:
        failed = [str(error) for error in errors.exceptions]
    return [failed, await ctx.call(Log.texts, key="group")]


async def shielded(ctx: WorkflowContext) -> Any:
    call = ctx.call(Echo.after, 0.01)
    try:
        await asyncio.wait_for(asyncio.shield(call), 0.001)
    except TimeoutError:
        return ["late", await call]


async def timed(ctx: WorkflowContext) -> Any:
    assert await asyncio.wait_for(ctx.call(Echo.say, 1), 60) == 1
    with pytest.raises(TerminalError, match="no"):
        await asyncio.wait_for(ctx.call(Echo.fail, "no"), 60)
    async with asyncio.timeout(60):
        return await ctx.call(Echo.say, "in time")


async def waited(ctx: WorkflowContext) -> Any:
    good, bad = ctx.call(Echo.say, 1), ctx.call(Echo.fail, "no")
    futures: set[Any] = {good, bad, ctx.run("s", str, "x")}
    done, pending = await asyncio.wait(futures)
    assert good in done
    return [len(done), len(pending), str(bad.exception())]


COMBINED: dict[Body, Any] = {
    gathered: ["1", "no", "3"],
    gather_fails: ["no", 0.01],
    first_to_come: [True, "quick", 0.02],
    first_fails: ["first", 5],
    in_order: [0.001, 0.015, 0.03],
    as_completed: [0.001, 0.02],
    task_group: ["a", "b", "c"],
    task_group_fails: [["no"], ["undone"]],
    shielded: ["late", 0.01],
    timed: "in time",
    waited: [3, 0, "no"],
}


@pytest.mark.parametrize("body", COMBINED, ids=lambda body: body.__name__)
def test_what_asyncio_combines(place: Place, body: Body) -> None:
    assert script(place, body) == COMBINED[body]


# -- idempotency and delays -----------------------------------------------------------------------


def test_duplicates_attach_whichever_verb_comes_first(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        calls = [ctx.call(Log.add, "x", key="k", idempotency_key="i") for _ in range(3)]
        return await asyncio.gather(*calls)

    async def session() -> None:
        async with engine_of(place, main) as engine:
            slow = [
                asyncio.create_task(engine.call(Echo.after, 0.02, idempotency_key="slow"))
                for _ in range(3)
            ]
            await asyncio.sleep(0)  # they have asked
            handle = await engine.send(Echo.after, 9.0, idempotency_key="slow")
            assert handle.accepted is Accepted.EXISTING
            assert [await each for each in slow] == [0.02] * 3
            assert await engine.submit(Script.run, key="s") == [1, 1, 1]
        async with engine_of(place, main) as engine:
            again = await engine.send(Echo.after, 9.0, idempotency_key="slow")
            assert (again.id, again.accepted) == (handle.id, Accepted.EXISTING)
            assert await again.result() == 0.02
            assert await engine.call(Log.add, "y", key="k", idempotency_key="i") == 1
            assert await engine.call(Log.texts, key="k") == ["x"]
            assert await engine.call(Echo.say, 5, idempotency_key="slow") == 5

    run(session())


def test_delayed_sends_come_in_the_order_of_their_time_however_many_and_across_restarts(
    place: Place,
) -> None:
    clock = ManualClock()

    async def main(ctx: WorkflowContext) -> Any:
        for i in range(100):
            ctx.send(Log.add, f"{100 - i:03}", key="k", delay=timedelta(minutes=100 - i))

    async def session() -> None:
        async with engine_of(place, main, clock=clock) as engine:
            await engine.submit(Script.run, key="s")
            doomed = await engine.send(Log.add, "never", key="k", delay=60.0)
            assert await doomed.cancel()
            with pytest.raises(Cancelled):
                await doomed.result()
            clock.advance(30 * 60)
            await until_idle(engine)
            assert len(await engine.call(Log.texts, key="k")) == 30
        clock.advance(30 * 60)
        async with place.engine(clock=clock) as engine:  # nobody is here who could take them
            clock.advance(30 * 60)
            await until_idle(engine)
        async with engine_of(place, main, clock=clock) as engine:
            await until_idle(engine)
            texts = await engine.call(Log.texts, key="k")
            assert texts == [f"{i:03}" for i in range(1, 91)]
            clock.advance(600)
            await until_idle(engine)
            assert len(await engine.call(Log.texts, key="k")) == 100

    run(session())


def test_thousands_sleep_at_once(place: Place) -> None:
    clock = ManualClock()

    async def main(ctx: WorkflowContext) -> Any:
        await asyncio.gather(*(ctx.sleep(3600 + i % 7) for i in range(2000)))
        await asyncio.gather(*(asyncio.sleep(1) for _ in range(500)))
        return "awake"

    async def session() -> None:
        async with engine_of(place, main, clock=clock) as engine:
            handle = await engine.send(Script.run, key="s")
            sleepers = [await engine.send(Echo.after, 3600.0) for _ in range(500)]
            await until_idle(engine)
        async with engine_of(place, main, clock=clock) as engine:
            clock.advance(3610)
            await until_idle(engine)
            assert [await engine.attach(each.id, float) for each in sleepers] == [3600.0] * 500
            clock.advance(1)
            assert await engine.attach(handle.id) == "awake"

    run(session())


# -- retries --------------------------------------------------------------------------------------


class Flaky:
    """Fails so many times, then succeeds."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


@pytest.mark.parametrize("retry", [None, QUICK], ids=["inherited", "explicit"])
@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_step_is_retried_until_its_policy_is_used_up(
    place: Place, failures: int, retry: RetryPolicy | None
) -> None:
    flaky = Flaky(failures, ConnectionError("gone"))

    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.run("flaky", flaky.__call__, retry=retry)

    async def session() -> None:
        quiet_log()
        async with engine_of(place, main) as engine:
            handle = await engine.send(Script.run, key="s")
            if failures < 3:
                assert await handle.result() == failures + 1
            elif retry is not None:
                with pytest.raises(TerminalError, match="after 3 attempts"):
                    await handle.result()
            else:
                await until_status(engine, handle, Status.PAUSED)
                assert await engine.resume(handle.id)
                assert await handle.result() == 4
            assert flaky.calls == min(failures + 1, 4 if retry is None else 3)

    run(session())


def test_retry_after_is_kept_across_a_restart(place: Place) -> None:
    clock = ManualClock()
    flaky = Flaky(1, RetryableError("busy", retry_after=timedelta(hours=1)))

    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.run("flaky", flaky.__call__)

    async def session() -> None:
        quiet_log()
        async with engine_of(place, main, clock=clock) as engine:
            handle = await engine.send(Script.run, key="s")
            await until_status(engine, handle, Status.BACKING_OFF)
            clock.advance(3000)
        async with engine_of(place, main, clock=clock) as engine:
            await until_idle(engine)
            assert flaky.calls == 1
            clock.advance(601)
            assert await engine.attach(handle.id) == 2

    run(session())


def test_an_object_that_backs_off_keeps_its_key_and_its_callers_wait(place: Place) -> None:
    clock = ManualClock()

    class Moody(VirtualObject):
        moods = 1

        @handler
        async def go(self, ctx: ObjectContext, name: str) -> str:
            if name == "first" and self.moods:
                self.moods -= 1
                raise RetryableError("not now", retry_after=60.0)
            names = (await ctx.get("names", str, "")) + name
            ctx.set("names", names)
            return names

    async def main(ctx: WorkflowContext) -> Any:
        calls = [ctx.call(Moody.go, name, key="k") for name in ("first", " second")]
        return await asyncio.gather(*calls)

    async def session() -> None:
        quiet_log()
        moody = Moody()
        async with place.engine(Script(main), moody, clock=clock) as engine:
            handle = await engine.send(Script.run, key="s")
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
        async with place.engine(Script(main), moody, clock=clock) as engine:
            clock.advance(61)
            assert await engine.attach(handle.id) == ["first", "first second"]

    run(session())
