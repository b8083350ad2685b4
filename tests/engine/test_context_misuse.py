"""A context used where it must not be, and handlers that wait for what is not in the journal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until, until_idle, until_status

from perdure import (
    Engine,
    InvalidInput,
    NondeterministicOperationError,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

OUTSIDE = "this context was used outside its own handler"
ENDED = "this context was used after its handler ended"


class Act(Workflow):
    """Its run does what the test says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def other(self, ctx: WorkflowSharedContext) -> Any:
        return await self.act(ctx)

    @handler
    async def release(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("release").resolve(None)


def result_of(place: Place, act: Any) -> Any:
    async def main() -> Any:
        async with place.engine(Act(act)) as engine:
            return await engine.submit(Act.run, key="k")

    return run(main())


def uses(ctx: WorkflowContext) -> list[Callable[[], object]]:
    """All that a context can be asked to do."""

    def of(make: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], object]:
        def use() -> None:
            coroutine = make()
            try:
                coroutine.send(None)
            finally:
                coroutine.close()

        return use

    return [
        lambda: ctx.run("step", lambda: None),
        lambda: ctx.after(1),
        lambda: ctx.promise("another"),
        lambda: ctx.patched("change"),
        lambda: ctx.set("a", 1),
        lambda: ctx.clear("a"),
        ctx.clear_all,
        ctx.now,
        lambda: ctx.random,
        ctx.uuid4,
        of(lambda: ctx.get("a")),
        of(ctx.state_keys),
        of(lambda: ctx.sleep(1)),
    ]


def assert_refused(ctx: WorkflowContext, match: str) -> None:
    for use in uses(ctx):
        with pytest.raises(InvalidInput, match=match):
            use()


def test_a_context_is_refused_after_its_handler_returned(place: Place) -> None:
    kept: list[WorkflowContext] = []

    async def act(ctx: WorkflowContext) -> str:
        kept.append(ctx)
        return "done"

    assert result_of(place, act) == "done"
    assert_refused(kept[-1], ENDED)


def test_a_context_is_refused_after_its_handler_failed(place: Place) -> None:
    kept: list[WorkflowContext] = []

    async def act(ctx: WorkflowContext) -> None:
        kept.append(ctx)
        raise TerminalError("over")

    with pytest.raises(TerminalError, match="over"):
        result_of(place, act)
    assert_refused(kept[-1], ENDED)


def test_the_context_of_a_failed_attempt_is_refused(place: Place) -> None:
    quiet_log()
    kept: list[WorkflowContext] = []

    async def act(ctx: WorkflowContext) -> str:
        kept.append(ctx)
        if len(kept) == 1:
            raise ValueError("once")
        return "done"

    assert result_of(place, act) == "done"
    assert_refused(kept[0], ENDED)


def test_a_context_is_refused_in_a_task_of_the_host(place: Place) -> None:
    kept: list[WorkflowContext] = []

    async def act(ctx: WorkflowContext) -> str:
        kept.append(ctx)
        await ctx.promise("release")
        return "done"

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            match = OUTSIDE if place.max_resident else ENDED
            assert_refused(kept[-1], match)
            await engine.call(Act.release, key="k")
            assert await handle.result() == "done"

    run(main())


def test_a_future_of_a_handler_is_refused_in_a_task_of_the_host(resident_place: Place) -> None:
    kept: list[Any] = []

    async def act(ctx: WorkflowContext) -> str:
        kept.append(ctx.promise("release"))
        await kept[-1]
        return "done"

    async def main() -> None:
        async with resident_place.engine(Act(act)) as engine:
            handle = await engine.send(Act.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            with pytest.raises(InvalidInput, match=OUTSIDE):
                await kept[-1]
            with pytest.raises(InvalidInput, match=OUTSIDE):
                await kept[-1].resolve(5)
            await engine.call(Act.release, key="k")
            assert await handle.result() == "done"

    run(main())


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_context_is_refused_in_a_step_and_its_handler_goes_on(
    place: Place, in_thread: bool
) -> None:
    refusals: list[str] = []

    async def act(ctx: WorkflowContext) -> Any:
        def misuse() -> str:
            for use in uses(ctx):
                try:
                    use()
                except InvalidInput as refused:
                    refusals.append(str(refused))
            return "went on"

        async def misuse_async() -> str:
            return misuse()

        return await ctx.run("misuse", misuse if in_thread else misuse_async)

    assert result_of(place, act) == "went on"
    assert len(refusals) == 13
    assert all("pass values into" in text for text in refusals)


def test_the_refusal_in_a_step_is_final_and_reaches_the_caller(place: Place) -> None:
    calls: list[int] = []

    async def act(ctx: WorkflowContext) -> Any:
        async def misuse() -> None:
            calls.append(1)
            ctx.set("a", 1)

        await ctx.run("misuse", misuse)

    with pytest.raises(InvalidInput, match="pass values into"):
        result_of(place, act)
    assert calls == [1]


def test_a_context_is_refused_in_a_thread_of_the_users(resident_place: Place) -> None:
    refusals: list[str] = []

    async def act(ctx: WorkflowContext) -> str:
        def misuse() -> None:
            with pytest.raises(InvalidInput) as caught:
                ctx.set("a", 1)
            refusals.append(str(caught.value))

        thread = threading.Thread(target=misuse)
        thread.start()
        thread.join()
        return "done"

    assert result_of(resident_place, act) == "done"
    assert "in a thread" in refusals[0]


def test_a_context_is_refused_in_another_handler_which_fails(place: Place) -> None:
    first: list[WorkflowContext] = []

    async def act(ctx: WorkflowContext) -> Any:
        if not first:
            first.append(ctx)
            await ctx.promise("release")
            return "first"
        if ctx.invocation_id == first[0].invocation_id:
            return "first"
        return first[0].set("a", 1)

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            await engine.send(Act.run, key="a")
            await until_idle(engine)
            with pytest.raises(InvalidInput, match="this context was used"):
                await engine.submit(Act.run, key="b")

    run(main())


def test_tasks_that_the_handler_starts_may_use_its_context(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> list[Any]:
        async def part(number: int) -> int:
            ctx.set(f"part {number}", number)
            await ctx.sleep(0)
            return await ctx.run(f"part {number}", lambda: number * 2)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part(number)) for number in range(3)]
        return [*(task.result() for task in tasks), await ctx.state_keys()]

    assert result_of(place, act) == [0, 2, 4, ["part 0", "part 1", "part 2"]]


def test_a_task_left_behind_by_a_handler_that_returned_does_nothing_more(place: Place) -> None:
    went_on: list[str] = []

    async def act(ctx: WorkflowContext) -> str:
        async def later() -> None:
            await asyncio.sleep(0)
            await ctx.promise("never")
            went_on.append("it did")
            ctx.set("a", 1)

        act.task = asyncio.create_task(later())  # type: ignore[attr-defined]
        await ctx.run("step", lambda: None)
        return "done"

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            handle = await engine.send(Act.run, key="k")
            assert await handle.result() == "done"
            await until_idle(engine)

    run(main())
    assert went_on == []


# -- what is not in the journal -------------------------------------------------------------------


def test_a_future_of_the_hosts_loop_is_refused_in_a_handler(place: Place) -> None:
    async def main() -> None:
        foreign = asyncio.get_running_loop().create_future()

        async def act(ctx: WorkflowContext) -> None:
            await foreign

        async with place.engine(Act(act)) as engine:
            with pytest.raises(NondeterministicOperationError, match="another event loop") as e:
                await engine.submit(Act.run, key="k")
            assert "do this in a step: use ctx.run('name', function, …)" in str(e.value)

    run(main())


def test_an_awaitable_that_is_not_asyncios_is_refused_in_a_handler(place: Place) -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "something"

    async def act(ctx: WorkflowContext) -> None:
        await Odd()

    with pytest.raises(NondeterministicOperationError, match="'something', which is not asyncio's"):
        result_of(place, act)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
)
def test_io_on_the_handlers_loop_is_refused_with_a_hint_to_use_a_step(
    place: Place, operation: Any
) -> None:
    async def act(ctx: WorkflowContext) -> None:
        await operation()

    with pytest.raises(NondeterministicOperationError, match=r"use ctx\.run"):
        result_of(place, act)


@pytest.mark.parametrize("verb", ["call", "send", "submit"])
def test_the_engine_is_refused_in_a_handler_with_a_hint_to_use_a_step(
    place: Place, verb: str
) -> None:
    engines: list[Engine] = []

    async def act(ctx: WorkflowContext) -> Any:
        if ctx.key == "inner":
            return "inner"
        return await getattr(engines[0], verb)(Act.run, key="inner")

    async def main() -> None:
        async with place.engine(Act(act)) as engine:
            engines.append(engine)
            with pytest.raises(InvalidInput, match=r"in a handler.*in a step: .*ctx\.run"):
                await engine.submit(Act.run, key="outer")
            await until_idle(engine)

    run(main())


def test_the_engine_may_be_used_in_a_step(place: Place) -> None:
    engines: list[Engine] = []

    async def act(ctx: WorkflowContext) -> Any:
        if ctx.key == "inner":
            return "inner"
        return await ctx.run("call", lambda: engines[0].submit(Act.run, key="inner"))

    async def main() -> Any:
        async with place.engine(Act(act)) as engine:
            engines.append(engine)
            return await engine.submit(Act.run, key="outer")

    assert run(main()) == "inner"


def test_the_engine_is_refused_on_another_event_loop(resident_place: Place) -> None:
    refusals: list[str] = []

    async def act(ctx: WorkflowContext) -> str:
        return "done"

    async def main() -> None:
        async with resident_place.engine(Act(act)) as engine:

            def elsewhere() -> None:
                with pytest.raises(InvalidInput) as caught:
                    asyncio.run(engine.submit(Act.run, key="k"))
                refusals.append(str(caught.value))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await until(lambda: not thread.is_alive(), "the end of the thread")

    run(main())
    assert "run_coroutine_threadsafe" in refusals[0]
