"""Durable promises."""

from __future__ import annotations

from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_idle, until_status

from perdure import (
    AlreadyCompleted,
    InvalidInput,
    Pending,
    PromiseNameError,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Gate(Workflow):
    """Waits for one promise; its handlers complete and look at it."""

    async def run(self, ctx: WorkflowContext) -> Any:
        return await ctx.promise("gate")

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, value: Any) -> None:
        await ctx.promise("gate").resolve(value)

    @handler
    async def reject(self, ctx: WorkflowSharedContext, reason: str) -> None:
        await ctx.promise("gate").reject(reason, 403)

    @handler
    async def peek(self, ctx: WorkflowSharedContext) -> list[Any]:
        value = await ctx.promise("gate").peek()
        return ["pending"] if value is Pending else ["value", value]

    @handler
    async def wait(self, ctx: WorkflowSharedContext) -> Any:
        return await ctx.promise("gate")


@pytest.mark.parametrize("value", [None, False, 7, "text", [1, {"a": b"x"}], {}])
def test_who_waits_gets_the_value(place: Place, value: Any) -> None:
    async def main() -> Any:
        async with place.engine(Gate()) as engine:
            handle = await engine.send(Gate.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await engine.call(Gate.resolve, value, key="k")
            return await handle.result()

    assert run(main()) == value


def test_a_rejected_promise_raises_the_reason(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            handle = await engine.send(Gate.run, key="k")
            await engine.call(Gate.reject, "too late", key="k")
            with pytest.raises(TerminalError, match=r"^too late$") as caught:
                await handle.result()
            assert caught.value.code == 403
            with pytest.raises(TerminalError, match=r"^too late$"):
                await engine.call(Gate.peek, key="k")

    run(main())


def test_peek_tells_pending_from_none(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            assert await engine.call(Gate.peek, key="k") == ["pending"]
            await engine.call(Gate.resolve, None, key="k")
            assert await engine.call(Gate.peek, key="k") == ["value", None]

    run(main())


def test_a_promise_may_be_resolved_before_the_run_starts(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            await engine.call(Gate.resolve, "early", key="k")
        async with place.engine(Gate()) as engine:
            assert await engine.submit(Gate.run, key="k") == "early"

    run(main())


@pytest.mark.parametrize("second", [Gate.resolve, Gate.reject])
def test_the_second_completion_is_refused_and_the_first_stands(place: Place, second: Any) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            await engine.call(Gate.resolve, "first", key="k")
            with pytest.raises(AlreadyCompleted, match="promise 'gate' was already") as caught:
                await engine.call(second, "second", key="k")
            assert caught.value.code == 409
            assert await engine.submit(Gate.run, key="k") == "first"

    run(main())


def test_the_second_completion_in_one_handler_is_refused_too(place: Place) -> None:
    class Twice(Workflow):
        async def run(self, ctx: WorkflowContext) -> list[Any]:
            promise = ctx.promise("p", int)
            await promise.resolve(1)
            try:
                await promise.resolve(2)
            except AlreadyCompleted:
                await ctx.run("note", lambda: None)
            return [await promise.peek(), await promise]

    async def main() -> Any:
        async with place.engine(Twice()) as engine:
            return await engine.submit(Twice.run, key="k")

    assert run(main()) == [1, 1]


def test_run_may_not_ask_twice_for_one_name(place: Place) -> None:
    class Twice(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            ctx.promise("approval")
            ctx.promise("approval")

    async def main() -> None:
        async with place.engine(Twice()) as engine:
            await engine.submit(Twice.run, key="k")

    with pytest.raises(PromiseNameError, match="asked twice for the promise 'approval'") as caught:
        run(main())
    assert caught.value.code == 400


def test_a_shared_handler_may_ask_twice_for_one_name(place: Place) -> None:
    class Twice(Gate):
        @handler
        async def twice(self, ctx: WorkflowSharedContext) -> list[Any]:
            await ctx.promise("gate").resolve(1)
            return [await ctx.promise("gate").peek(), await ctx.promise("gate")]

    async def main() -> Any:
        async with place.engine(Twice()) as engine:
            return await engine.call(Twice.twice, key="k")

    assert run(main()) == [1, 1]


def test_all_who_wait_get_the_value(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            handles = [await engine.send(Gate.run, key="k")]
            handles += [await engine.send(Gate.wait, key="k") for _ in range(3)]
            await until_idle(engine)
            await engine.call(Gate.resolve, 5, key="k")
            assert [await handle.result() for handle in handles] == [5] * 4

    run(main())


def test_a_promise_can_be_awaited_again_and_by_several_tasks(place: Place) -> None:
    import asyncio

    class Many(Gate):
        async def run(self, ctx: WorkflowContext) -> Any:
            promise = ctx.promise("gate")

            async def wait() -> Any:
                return await promise

            got = await asyncio.gather(wait(), wait(), promise)
            return [*got, await promise]

    async def main() -> Any:
        async with place.engine(Many()) as engine:
            handle = await engine.send(Many.run, key="k")
            await until_idle(engine)
            await engine.call(Many.resolve, 5, key="k")
            return await handle.result()

    assert run(main()) == [5, 5, 5, 5]


def test_keys_do_not_share_promises(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            a = await engine.send(Gate.run, key="a")
            b = await engine.send(Gate.run, key="b")
            await engine.call(Gate.resolve, 1, key="a")
            assert await a.result() == 1
            assert (await engine.describe(b.id)).status is Status.SUSPENDED
            assert [str(each) for each in (await engine.describe(b.id)).waiting_on] == [
                "promise 'gate'"
            ]

    run(main())


def test_promises_stay_readable_after_completion_and_reopening(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            await engine.call(Gate.resolve, "kept", key="k")
            await engine.submit(Gate.run, key="k")
            assert await engine.call(Gate.peek, key="k") == ["value", "kept"]
        async with place.engine(Gate()) as engine:
            assert await engine.call(Gate.peek, key="k") == ["value", "kept"]
            assert await engine.call(Gate.wait, key="k") == "kept"

    run(main())


class Numbers(Workflow):
    async def run(self, ctx: WorkflowContext) -> int:
        return await ctx.promise("number", int)

    @handler
    async def give(self, ctx: WorkflowSharedContext, value: Any) -> None:
        await ctx.promise("number", int).resolve(value)

    @handler
    async def give_anything(self, ctx: WorkflowSharedContext, value: Any) -> None:
        await ctx.promise("number").resolve(value)


def test_a_value_of_the_wrong_type_is_refused_at_resolve(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Numbers()) as engine:
            with pytest.raises(InvalidInput, match=r"value of promise 'number'.*`int`.*`str`"):
                await engine.call(Numbers.give, "seven", key="k")
            await engine.call(Numbers.give, 7, key="k")
            assert await engine.submit(Numbers.run, key="k") == 7

    run(main())


def test_a_value_of_the_wrong_type_from_an_untyped_resolver_is_an_error_of_who_awaits(
    place: Place,
) -> None:
    quiet_log()

    async def main() -> None:
        async with place.engine(Numbers()) as engine:
            await engine.call(Numbers.give_anything, "seven", key="k")
            with pytest.raises(InvalidInput, match=r"value of promise 'number'.*`int`.*`str`"):
                await engine.submit(Numbers.run, key="k")

    run(main())


def test_an_outcome_that_comes_to_a_run_that_has_ended_leaves_no_trace(place: Place) -> None:
    class Hasty(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            promise = ctx.promise("p", int)
            await promise.resolve(1)
            assert not promise.done()  # issues the wait; the value is there, but not delivered
            return "left"

    async def main() -> None:
        async with place.engine(Hasty()) as engine:
            handle = await engine.send(Hasty.run, key="k")
            assert await handle.result() == "left"
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.COMPLETED

    run(main())


@pytest.mark.parametrize("reason", [None, 7, ValueError("x")])
def test_a_promise_is_rejected_with_a_text_or_a_terminal_error(
    resident_place: Place, reason: Any
) -> None:
    class Rejects(Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.promise("p").reject(reason)

    async def main() -> None:
        async with resident_place.engine(Rejects()) as engine:
            await engine.submit(Rejects.run, key="k")

    with pytest.raises(InvalidInput, match="rejected with a text or a TerminalError, not"):
        run(main())
