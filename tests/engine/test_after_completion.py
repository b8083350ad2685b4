"""State, promises and result of a workflow stay readable after it ended, well or badly."""

from __future__ import annotations

from typing import Any

import pytest
from engine_support import QUICK, Place, quiet_log, run, until_status

from perdure import (
    AlreadyCompleted,
    InvocationHandle,
    Killed,
    NotReady,
    Pending,
    RetryPolicy,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Loan(Workflow, retry=RetryPolicy(max_attempts=1, on_exhausted="kill")):
    """Ends as its argument says, with state set and one of its promises completed."""

    async def run(self, ctx: WorkflowContext, how: str) -> str:
        ctx.set("how", how)
        await ctx.promise("decided").resolve(how)
        await ctx.run("step", lambda: None)
        if how == "fails":
            raise TerminalError("no money", 402, {"missing": "5"})
        if how == "is killed":
            raise ValueError("again and again")
        return how

    @handler
    async def how(self, ctx: WorkflowSharedContext) -> str | None:
        return await ctx.get("how", str)

    @handler
    async def names(self, ctx: WorkflowSharedContext) -> list[str]:
        return await ctx.state_keys()

    @handler
    async def decided(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.promise("decided", str)

    @handler
    async def peek(self, ctx: WorkflowSharedContext, name: str) -> list[Any]:
        value = await ctx.promise(name).peek()
        return ["pending"] if value is Pending else ["value", value]

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name).resolve(None)


HOW = {"returns": None, "fails": "no money", "is killed": "killed after its last attempt failed"}


async def end_of(handle: InvocationHandle[str]) -> TerminalError | str:
    try:
        return await handle.result()
    except TerminalError as failure:
        return failure


@pytest.mark.parametrize("how", HOW)
def test_all_of_it_stays_readable_also_after_reopening(place: Place, how: str) -> None:
    quiet_log()

    async def main() -> None:
        async with place.engine(Loan()) as engine:
            handle = await engine.send(Loan.run, how, key="k")
            first = await end_of(handle)
            assert isinstance(first, str) == (how == "returns")
        for _ in range(2):
            async with place.engine(Loan()) as engine:
                assert await engine.call(Loan.how, key="k") == how
                assert await engine.call(Loan.names, key="k") == ["how"]
                assert await engine.call(Loan.decided, key="k") == how
                assert await engine.call(Loan.peek, "decided", key="k") == ["value", how]
                assert await engine.call(Loan.peek, "other", key="k") == ["pending"]
                description = await engine.describe(handle.id)
                assert description.status is Status.COMPLETED
                assert description.waiting_on == []
                assert description.journal[0].kind == "start"
                again = await engine.send(Loan.run, "again", key="k")
                assert again.id == handle.id
                outcome = await end_of(again)
                assert str(outcome) == str(first)
                if isinstance(outcome, TerminalError):
                    with pytest.raises(TerminalError, match=str(HOW[how])) as caught:
                        await engine.output(handle.id)
                    assert isinstance(caught.value, Killed) == (how == "is killed")

    run(main())


def test_a_failure_keeps_code_and_metadata(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Loan()) as engine:
            handle = await engine.send(Loan.run, "fails", key="k")
            await until_status(engine, handle, Status.COMPLETED)
        async with place.engine(Loan()) as engine:
            for ask in (engine.output, engine.attach):
                with pytest.raises(TerminalError) as caught:
                    await ask(handle.id)
                failure = caught.value
                assert (failure.message, failure.code) == ("no money", 402)
                assert failure.metadata == {"missing": "5"}

    run(main())


def test_a_promise_may_be_completed_once_also_after_the_end(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Loan()) as engine:
            await engine.submit(Loan.run, "returns", key="k")
            await engine.call(Loan.resolve, "late", key="k")
            assert await engine.call(Loan.peek, "late", key="k") == ["value", None]
            for name in ("late", "decided"):
                with pytest.raises(AlreadyCompleted, match=f"promise '{name}' was") as caught:
                    await engine.call(Loan.resolve, name, key="k")
                assert caught.value.code == 409

    run(main())


def test_a_key_that_never_ran_has_nothing(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Loan()) as engine:
            assert await engine.call(Loan.how, key="nobody") is None
            assert await engine.call(Loan.names, key="nobody") == []
            assert await engine.call(Loan.peek, "decided", key="nobody") == ["pending"]

    run(main())


def test_output_before_the_end_is_not_ready(place: Place) -> None:
    class Waits(Loan):
        async def run(self, ctx: WorkflowContext, how: str) -> str:
            return await ctx.promise("go", str)

    async def main() -> None:
        async with place.engine(Waits(), default_retry=QUICK) as engine:
            handle = await engine.send(Waits.run, "x", key="k")
            for ask in (handle.output, lambda: engine.output(handle.id)):
                with pytest.raises(NotReady, match="exists but has not completed yet") as caught:
                    await ask()
                assert caught.value.code == 470

    run(main())
