"""Virtual objects: exclusive handlers one at a time and in order, shared ones beside them."""

from __future__ import annotations

import asyncio

import pytest
from engine_support import Place, quiet_log, run, until, until_idle, until_status

from perdure import (
    Engine,
    InvocationHandle,
    ObjectContext,
    ObjectSharedContext,
    Status,
    TerminalError,
    VirtualObject,
    handler,
)


class Account(VirtualObject):
    """Logs when handlers run, and lets the test hold them up."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.order: list[str] = []
        self.gate = asyncio.Event()

    async def pass_gate(self, name: str) -> str:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.order.append(name)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return name

    @handler
    async def slow(self, ctx: ObjectContext, name: str) -> int:
        await ctx.run("pass", self.pass_gate, name)
        count = (await ctx.get("count", int, 0)) + 1
        ctx.set("count", count)
        return count

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", int, 0)) + amount
        ctx.set("total", total)
        return total

    @handler
    async def refuse(self, ctx: ObjectContext, amount: int) -> None:
        ctx.set("total", amount)
        raise TerminalError("refused", 418, {"why": "tea"})

    @handler
    async def total(self, ctx: ObjectSharedContext) -> int:
        return await ctx.get("total", int, 0)

    @handler
    async def nap(self, ctx: ObjectContext, seconds: float) -> str:
        await ctx.sleep(seconds)
        return "rested"


def test_exclusive_handlers_of_a_key_run_one_at_a_time_in_the_order_of_their_arrival(
    place: Place,
) -> None:
    async def main() -> None:
        account = Account()
        async with place.engine(account) as engine:
            names = [f"n{i}" for i in range(8)]
            handles = [await engine.send(Account.slow, name, key="k") for name in names]
            calls = [asyncio.create_task(engine.call(Account.slow, "last", key="k"))]
            await until(lambda: account.inside == 1)
            other = await engine.send(Account.slow, "other", key="other key")
            await until(lambda: account.inside == 2)
            account.gate.set()
            assert [await handle.result() for handle in handles] == list(range(1, 9))
            assert await calls[0] == 9
            assert await other.result() == 1
            assert [name for name in account.order if name != "other"] == [*names, "last"]
            assert account.most == 2

    run(main())


def test_who_waits_for_a_key_keeps_its_place_across_a_restart(place: Place) -> None:
    async def main() -> None:
        account = Account()
        names = [f"n{i}" for i in range(5)]
        async with place.engine(account, drain_timeout=0) as engine:
            ids = [(await engine.send(Account.slow, name, key="k")).id for name in names]
            await until(lambda: account.inside == 1)
            described = [(await engine.describe(each)).status for each in ids]
            assert described == [Status.RUNNING] + [Status.PENDING] * 4
        account = Account()
        account.gate.set()
        async with place.engine(account) as engine:
            late = await engine.send(Account.slow, "late", key="k")
            assert [await engine.attach(each) for each in ids] == [1, 2, 3, 4, 5]
            assert await late.result() == 6
            assert account.order == [*names, "late"]

    run(main())


def test_a_shared_handler_runs_beside_the_exclusive_one(place: Place) -> None:
    async def main() -> None:
        account = Account()
        async with place.engine(account) as engine:
            assert await engine.call(Account.add, 5, key="k") == 5
            held = await engine.send(Account.slow, "a", key="k")
            await until(lambda: account.inside == 1)
            assert await engine.call(Account.total, key="k") == 5
            account.gate.set()
            await held.result()

    run(main())


def test_state_set_before_a_terminal_error_is_kept_and_the_key_is_free(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Account()) as engine:
            with pytest.raises(TerminalError, match="refused") as caught:
                await engine.call(Account.refuse, 7, key="k")
            assert (caught.value.code, caught.value.metadata) == (418, {"why": "tea"})
            assert await engine.call(Account.add, 1, key="k") == 8

    run(main())


def test_a_thousand_calls_of_one_counter_lose_none(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Account()) as engine:
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(engine.call(Account.add, 1, key=f"k{i % 3}"))
                    for i in range(1000)
                ]
            assert sorted(call.result() for call in calls) == sorted(
                i // 3 + 1 for i in range(1000)
            )

    run(main())


def test_a_paused_exclusive_invocation_holds_its_key_until_it_is_resumed(place: Place) -> None:
    class Flaky(VirtualObject):
        broken = True

        @handler
        async def go(self, ctx: ObjectContext) -> str:
            if self.broken:
                raise RuntimeError("broken")
            return "done"

    async def main() -> None:
        quiet_log()
        flaky = Flaky()
        async with place.engine(flaky) as engine:
            first: InvocationHandle[str] = await engine.send(Flaky.go, key="k")
            await until_status(engine, first, Status.PAUSED)
            second = await engine.send(Flaky.go, key="k")
            await until_idle(engine)
            waiting = await engine.describe(second.id)
            assert waiting.status is Status.PENDING
            assert [str(each) for each in waiting.waiting_on] == [
                f"key 'k' of Flaky, which {first.id} has"
            ]
            assert (await engine.describe(first.id)).blocks == "key 'k' of Flaky, for which 1 waits"
            assert waiting.blocks is None
            flaky.broken = False
            assert await engine.resume(first.id)
            assert await first.result() == await second.result() == "done"

    run(main())


def test_a_delayed_send_queues_for_its_key_only_when_its_time_has_come(place: Place) -> None:
    async def main() -> None:
        account = Account()
        account.gate.set()
        async with place.engine(account) as engine:
            delayed = await engine.send(Account.slow, "delayed", key="k", delay=0.05)
            assert (await engine.describe(delayed.id)).status is Status.SCHEDULED
            assert await engine.call(Account.slow, "now", key="k") == 1
            assert await delayed.result() == 2
            assert account.order == ["now", "delayed"]

    run(main())


async def _suspended_holder(engine: Engine) -> InvocationHandle[str]:
    holder = await engine.send(Account.nap, 3600, key="k")
    await until_status(engine, holder, Status.SUSPENDED)
    return holder


def test_killing_the_holder_of_a_key_frees_it(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Account()) as engine:
            holder = await _suspended_holder(engine)
            waiting = await engine.send(Account.add, 1, key="k")
            assert await engine.kill(holder.id)
            assert await waiting.result() == 1

    run(main())
