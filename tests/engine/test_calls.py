"""Calls, sends, awakeables, signals and attaching, between handlers and from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import Place, run, until_status

from perdure import (
    AlreadyCompleted,
    Conflict,
    Context,
    InvalidInput,
    NotFound,
    ObjectContext,
    Service,
    Status,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
)


class Log(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, text: str) -> int:
        texts: list[str] = await ctx.get("texts", list[str], [])
        texts.append(text)
        ctx.set("texts", texts)
        return len(texts)

    @handler
    async def texts(self, ctx: ObjectContext) -> list[str]:
        return await ctx.get("texts", list[str], [])

    @handler
    async def again(self, ctx: ObjectContext) -> int:
        return await ctx.call(Log.add, "self", key=ctx.key)

    @handler
    async def again_later(self, ctx: ObjectContext) -> str:
        ref = ctx.send(Log.add, "self", key=ctx.key)
        return await ref.invocation_id()


class Echo(Service):
    @handler
    async def say(self, ctx: Context, text: str) -> str:
        return text + ctx.request.headers.get("mark", "")

    @handler
    async def say_later(self, ctx: Context, text: str) -> str:
        await ctx.sleep(0.01)
        return text

    @handler
    async def fail(self, ctx: Context) -> str:
        raise TerminalError("no", 499, {"a": "b"})

    @handler
    async def attempt_key(self, ctx: Context) -> str | None:
        return ctx.request.idempotency_key


class Once(Workflow):
    async def run(self, ctx: WorkflowContext, text: str) -> str:
        await ctx.sleep(0.01)
        return f"ran {text}"


class Script(Workflow):
    """Runs what the test gives it."""

    def __init__(self, main: Any) -> None:
        self.main = main

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.main(ctx)


def run_script(place: Place, main: Any, *, outside: Any = None) -> Any:
    async def session() -> Any:
        async with place.engine(Script(main), Log(), Echo(), Once()) as engine:
            handle = await engine.send(Script.run, key="s")
            if outside is not None:
                await outside(engine, handle)
            return await handle.result()

    return run(session())


def test_a_call_gives_the_result_or_the_error_with_its_metadata(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        text = await ctx.call(Echo.say, "hello", headers={"mark": "!"})
        later = await ctx.call("Echo.say_later", "later")
        try:
            await ctx.call(Echo.fail)
        except TerminalError as error:
            return [text, later, error.message, error.code, error.metadata]

    assert run_script(place, main) == ["hello!", "later", "no", 499, {"a": "b"}]


def test_calls_and_sends_to_one_key_arrive_in_the_order_in_which_they_were_made(
    place: Place,
) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        calls = []
        for i in range(10):
            if i % 2:
                ctx.send(Log.add, f"t{i}", key="log")
            else:
                calls.append(ctx.call(Log.add, f"t{i}", key="log"))
        numbers = [await call for call in calls]
        return numbers, await ctx.call(Log.texts, key="log")

    assert run_script(place, main) == [[1, 3, 5, 7, 9], [f"t{i}" for i in range(10)]]


def test_a_call_of_the_key_that_the_handler_holds_is_refused(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Log()) as engine:
            with pytest.raises(InvalidInput, match="can not be called from an exclusive handler"):
                await engine.call(Log.again, key="k")
            assert (await engine.call(Log.again_later, key="k")).startswith("inv_")
            assert await engine.call(Log.texts, key="k") == ["self"]

    run(main())


def test_a_call_with_an_idempotency_key_begins_one_invocation(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        first = ctx.call(Log.add, "a", key="log", idempotency_key="i")
        second = ctx.call(Log.add, "b", key="log", idempotency_key="i")
        assert await first.invocation_id() == await second.invocation_id()
        third = ctx.send(Log.add, "c", key="log", idempotency_key="i")
        assert await third.invocation_id() == await first.invocation_id()
        await ctx.sleep(0.01)
        fourth = ctx.call(Log.add, "d", key="log", idempotency_key="i")
        return [await first, await second, await fourth, await ctx.call(Log.texts, key="log")]

    assert run_script(place, main) == [1, 1, 1, ["a"]]


def test_idempotency_from_outside(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Log(), Echo(), Once()) as engine:
            numbers = await asyncio.gather(
                *(engine.call(Log.add, "a", key="k", idempotency_key="i") for _ in range(5))
            )
            assert numbers == [1] * 5
            handle = await engine.send(Log.add, "b", key="k", idempotency_key="i")
            assert handle.accepted == "PreviouslyAccepted"
            assert await handle.result() == 1
            assert await engine.call(Echo.attempt_key, idempotency_key="mine") == "mine"
            assert await engine.call(Log.add, "c", key="other", idempotency_key="i") == 1
            with pytest.raises(InvalidInput, match="takes no idempotency key"):
                await engine.send(Once.run, "x", key="k", idempotency_key="i")

        async with place.engine(Log(), Echo(), Once()) as engine:
            assert await engine.call(Log.add, "d", key="k", idempotency_key="i") == 1
            assert await engine.call(Log.texts, key="k") == ["a"]

    run(main())


def test_run_of_a_workflow_called_twice(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        first = ctx.call(Once.run, "a", key="once")
        ref = ctx.send(Once.run, "b", key="once")
        assert await ref.invocation_id() == await first.invocation_id()
        again = ctx.call(Once.run, "c", key="once")
        with pytest.raises(Conflict):
            await again
        return await first, await ctx.attach(await ref.invocation_id(), str)

    assert run_script(place, main) == ["ran a", "ran a"]


def test_a_delayed_send_begins_when_its_time_has_come(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        before = ctx.now()
        ref = ctx.send(Echo.say, "later", delay=0.05)
        result = await ctx.attach(await ref.invocation_id(), str)
        return result, (ctx.now() - before).total_seconds() >= 0.05

    assert run_script(place, main) == ["later", True]


def test_an_awakeable_is_completed_once_from_anywhere(place: Place) -> None:
    ids: asyncio.Queue[str] = asyncio.Queue()

    async def main(ctx: WorkflowContext) -> Any:
        first, second, third = ctx.awakeable(int), ctx.awakeable(str), ctx.awakeable()
        assert len({first.id, second.id, third.id}) == 3
        await ctx.run("hand out", ids.put, first.id)
        await ctx.resolve_awakeable(second.id, "inside")
        with pytest.raises(AlreadyCompleted):
            await ctx.resolve_awakeable(second.id, "again")
        await ctx.reject_awakeable(third.id, "no", 410)
        value = await second
        with pytest.raises(TerminalError) as caught:
            await third
        return await first, value, str(caught.value), caught.value.code

    async def outside(engine: Any, handle: Any) -> None:
        awakeable_id = await ids.get()
        await engine.resolve_awakeable(awakeable_id, 7)
        with pytest.raises(AlreadyCompleted):
            await engine.resolve_awakeable(awakeable_id, 8)
        await handle.result()
        with pytest.raises(AlreadyCompleted):
            await engine.reject_awakeable(awakeable_id, "late")

    assert run_script(place, main, outside=outside) == [7, "inside", "no", 410]


@pytest.mark.parametrize("bad", ["", "awk_", "inv_" + "0" * 26, "awk_" + "z" * 32, 5, None])
def test_what_is_no_awakeable_is_refused(place: Place, bad: Any) -> None:
    async def main() -> None:
        async with place.engine(Echo()) as engine:
            with pytest.raises(InvalidInput, match="not the id of an awakeable"):
                await engine.resolve_awakeable(bad, 1)

    run(main())


def test_signals_are_kept_until_they_are_waited_for(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        first = await ctx.signal("go", int)
        await ctx.sleep(0.02)
        return [first, await ctx.signal("go", int), await ctx.signal("other", str)]

    async def outside(engine: Any, handle: Any) -> None:
        for number in (1, 2):
            await engine.signal(handle.id, "go", number)
        await engine.signal(handle.id, "other", "o")
        assert await handle.result() == [1, 2, "o"]
        with pytest.raises(Conflict):
            await engine.signal(handle.id, "go", 3)

    assert run_script(place, main, outside=outside) == [1, 2, "o"]


def test_bad_signals(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.signal("end")

    async def outside(engine: Any, handle: Any) -> None:
        with pytest.raises(InvalidInput):
            await engine.signal(handle.id, "", 1)
        with pytest.raises(InvalidInput):
            await engine.signal(handle.id, "end", object())
        with pytest.raises(InvalidInput):
            await engine.signal("nothing", "end", 1)
        with pytest.raises(NotFound):
            await engine.signal("inv_" + "0" * 26, "end", 1)
        await engine.signal(handle.id, "end", "over")

    assert run_script(place, main, outside=outside) == "over"


def test_attach_from_a_handler(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        ref = ctx.send(Echo.say_later, "sent")
        sent = await ref.invocation_id()
        first = await ctx.attach(sent, str)
        second = await ctx.attach(sent, str)
        with pytest.raises(NotFound):
            await ctx.attach("inv_" + "0" * 26)
        with pytest.raises(InvalidInput):
            ctx.attach(ctx.invocation_id)
        return [first, second]

    assert run_script(place, main) == ["sent", "sent"]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda ctx: ctx.call(Echo.say, 5), InvalidInput),
        (lambda ctx: ctx.call(Echo.say, "a", key="k"), InvalidInput),
        (lambda ctx: ctx.call(Log.add, "a"), InvalidInput),
        (lambda ctx: ctx.call("Nothing.here", "a"), NotFound),
        (lambda ctx: ctx.call("Echo.nothing", "a"), NotFound),
        (lambda ctx: ctx.call("Echo"), InvalidInput),
        (lambda ctx: ctx.call(Echo.say, "a", headers={"a": 1}), InvalidInput),
        (lambda ctx: ctx.call(Echo.say, "a", idempotency_key=""), InvalidInput),
        (lambda ctx: ctx.call(Once.run, "a", key="k", idempotency_key="i"), InvalidInput),
        (lambda ctx: ctx.send(Echo.say, "a", delay=-1), InvalidInput),
        (lambda ctx: ctx.send(Echo.say, "a", delay="soon"), InvalidInput),
        (lambda ctx: ctx.send(Echo.say), InvalidInput),
        (lambda ctx: ctx.signal(""), InvalidInput),
        (lambda ctx: ctx.cancel("x"), InvalidInput),
        (lambda ctx: ctx.attach("x"), InvalidInput),
    ],
)
def test_bad_input_is_refused_at_once_and_nothing_begins(
    place: Place, make: Any, error: Any
) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        with pytest.raises(error) as caught:
            make(ctx)
        return caught.value.code

    assert run_script(place, main) in (400, 404)


def test_a_call_survives_a_restart_of_both_sides(place: Place) -> None:

    class Slow(Service):
        @handler
        async def work(self, ctx: Context) -> str:
            return await ctx.signal("done", str)

    async def main(ctx: WorkflowContext) -> Any:
        call = ctx.call(Slow.work)
        ctx.log.info("called")
        return await call

    async def session() -> None:
        async with place.engine(Script(main), Slow()) as engine:
            handle = await engine.send(Script.run, key="s")
            await until_status(engine, handle, Status.SUSPENDED)
            entry = next(e for e in (await engine.describe(handle.id)).journal if e.kind == "call")
            assert entry.name == "Slow.work"
        async with place.engine(Script(main), Slow()) as engine:
            waiting = (await engine.describe(handle.id)).waiting_on
            assert "Slow.work" in str(waiting[0])

    run(session())


class Hidden(Service, private=True):
    @handler
    async def work(self, ctx: Context) -> str:
        return "done"


class Opening(Service):
    @handler
    async def work(self, ctx: Context) -> str:
        return await ctx.call(Hidden.work)


def test_a_private_handler_is_called_by_handlers_only(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Hidden(), Opening()) as engine:
            assert await engine.call(Opening.work) == "done"
            with pytest.raises(InvalidInput, match="private"):
                await engine.call(Hidden.work)

    run(main())
