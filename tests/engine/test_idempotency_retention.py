"""How long an idempotency key is remembered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from engine_support import ManualClock, Place, run, until_idle

from perdure import Context, NotFound, Service, Workflow, WorkflowContext, handler


class Count(Service, idempotency_retention=60):
    def __init__(self) -> None:
        self.calls = 0

    @handler
    async def next(self, ctx: Context) -> int:
        self.calls += 1
        return self.calls

    @handler(idempotency_retention=0)
    async def forgotten(self, ctx: Context) -> int:
        await ctx.sleep(1)
        self.calls += 1
        return self.calls


class Caller(Workflow):
    async def run(self, ctx: WorkflowContext) -> list[int]:
        first = await ctx.call(Count.next, idempotency_key="i")
        second = await ctx.call(Count.next, idempotency_key="i")
        await ctx.sleep(61)
        return [first, second, await ctx.call(Count.next, idempotency_key="i")]


@pytest.mark.parametrize("verb", ["call", "send"])
def test_a_key_is_remembered_as_long_as_declared(place: Place, verb: str) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Count(), clock=clock) as engine:

            async def ask() -> Any:
                if verb == "call":
                    return await engine.call(Count.next, idempotency_key="i")
                return await (await engine.send(Count.next, idempotency_key="i")).result()

            assert [await ask(), await ask()] == [1, 1]
            clock.advance(59)
            await until_idle(engine)
            assert await ask() == 1
            clock.advance(2)
            await until_idle(engine)
            assert [await ask(), await ask()] == [2, 2]

    run(main())


def test_retention_of_nothing_frees_the_key_at_completion(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Count(), clock=clock) as engine:
            handles = [await engine.send(Count.forgotten, idempotency_key="i") for _ in range(2)]
            assert handles[0].id == handles[1].id
            await until_idle(engine)
            clock.advance(timedelta(seconds=2))
            await until_idle(engine)
            with pytest.raises(NotFound):
                await handles[0].result()
            again = await engine.send(Count.forgotten, idempotency_key="i")
            assert again.id != handles[0].id

    run(main())


def test_a_handler_meets_the_same_retention(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Count(), Caller(), clock=clock) as engine:
            handle = await engine.send(Caller.run, key="k")
            await until_idle(engine)
            clock.advance(62)
            await until_idle(engine)
            assert await handle.result() == [1, 1, 2]

    run(main())
