"""Versions of a service side by side: who begins on which, and who stays where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until_idle, until_status

from perdure import (
    Accepted,
    Conflict,
    Context,
    DefinitionError,
    InvalidInput,
    InvocationHandle,
    NotFound,
    ObjectContext,
    RetryPolicy,
    Service,
    Status,
    Verdict,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class OrderV1(Workflow, name="Order", version=1):
    async def run(self, ctx: WorkflowContext) -> str:
        ctx.set("by", "one")
        return f"one {await ctx.promise('word', str)}"

    @handler
    async def say(self, ctx: WorkflowSharedContext, word: str) -> str:
        await ctx.promise("word", str).resolve(word)
        return "said by one"

    @handler
    async def gone(self, ctx: WorkflowSharedContext) -> str:
        return f"gone of one, run by {await ctx.get('by', str)}"


class Order(Workflow, version=2):
    async def run(self, ctx: WorkflowContext) -> list[str]:
        ctx.set("by", "two")
        return ["two", await ctx.promise("word", str)]

    @handler
    async def say(self, ctx: WorkflowSharedContext, word: str) -> str:
        await ctx.promise("word", str).resolve(word)
        return "said by two"


class OrderV7(Order, name="Order", version=7):
    async def run(self, ctx: WorkflowContext) -> list[str]:
        return ["seven", await ctx.promise("word", str)]


async def begun_on_one(place: Place, key: str) -> str:
    """An order that began when there was only version 1."""
    async with place.engine(OrderV1()) as engine:
        handle = await engine.send(OrderV1.run, key=key)
        await until_status(engine, handle, Status.SUSPENDED)
        return handle.id


def test_what_is_in_flight_stays_and_what_begins_takes_the_highest(place: Place) -> None:
    async def main() -> None:
        old = await begun_on_one(place, "old")
        async with place.engine(OrderV7(), OrderV1(), Order()) as engine:
            handles: dict[str, InvocationHandle[Any]] = {
                "by one": await engine.send(OrderV1.run, key="by one"),
                "by two": await engine.send(Order.run, key="by two"),
                "by seven": await engine.send(OrderV7.run, key="by seven"),
                "by text": await engine.send("Order.run", key="by text"),
            }
            versions = [(await engine.describe(handle.id)).version for handle in handles.values()]
            assert versions == [7, 7, 7, 7]
            assert (await engine.describe(old)).version == 1
            for key in ("old", *handles):
                assert await engine.call(OrderV1.say, "hi", key=key) == "said by two"
            assert await engine.attach(old) == "one hi"
            for handle in handles.values():
                assert await engine.attach(handle.id) == ["seven", "hi"]

    run(main())


@pytest.mark.parametrize("services", [(OrderV1, Order), (Order, OrderV1)])
def test_the_order_in_which_they_are_given_is_of_no_matter(
    resident_place: Place, services: tuple[Any, ...]
) -> None:
    async def main() -> None:
        async with resident_place.engine(*(service() for service in services)) as engine:
            handle = await engine.send("Order.run", key="k")
            assert (await engine.describe(handle.id)).version == 2

    run(main())


def test_each_runs_on_the_instance_of_its_version(place: Place) -> None:
    class One(Workflow, name="Told", version=1):
        def __init__(self, text: str) -> None:
            self.text = text

        async def run(self, ctx: WorkflowContext) -> str:
            await ctx.promise("go")
            return self.text

    class Two(One, name="Told", version=2):
        @handler
        async def go(self, ctx: WorkflowSharedContext) -> None:
            await ctx.promise("go").resolve(None)

    async def main() -> None:
        async with place.engine(One("first")) as engine:
            old = await engine.send(One.run, key="old")
        async with place.engine(One("again first"), Two("second")) as engine:
            new = await engine.send(Two.run, key="new")
            for key in ("old", "new"):
                await engine.call(Two.go, key=key)
            assert await engine.attach(old.id) == "again first"
            assert await new.result() == "second"

    run(main())


def test_a_handler_of_an_older_version_alone_is_invoked_there(place: Place) -> None:
    async def main() -> None:
        await begun_on_one(place, "old")
        async with place.engine(OrderV1(), Order(), OrderV7()) as engine:
            await engine.send(Order.run, key="new")
            await until_idle(engine)
            assert await engine.call(OrderV1.gone, key="old") == "gone of one, run by one"
            sent = await engine.send("Order.gone", key="new")
            assert (await engine.describe(sent.id)).version == 1
            with pytest.raises(NotFound, match="has no handler 'never'; it has: gone, run, say"):
                await engine.call("Order.never", key="old")

    run(main())


def test_what_is_known_by_its_key_is_known_whatever_its_version(place: Place) -> None:
    async def main() -> None:
        old = await begun_on_one(place, "k")
        async with place.engine(OrderV1(), Order()) as engine:
            found = await engine.send(Order.run, key="k")
            assert (found.id, found.accepted) == (old, Accepted.EXISTING)
            with pytest.raises(Conflict):
                await engine.call(Order.run, key="k")
            await engine.call(Order.say, "hi", key="k")
            # Its result has the type of its own version, not of the one that was named.
            results: list[Any] = [
                await found.result(),
                await engine.submit(Order.run, key="k"),
            ]
            assert results == ["one hi", "one hi"]
            assert await engine.submit("Order.run", key="k", returns=str) == "one hi"

    run(main())


def test_a_run_whose_version_is_not_here_is_read_as_it_is_asked_for(place: Place) -> None:
    async def main() -> None:
        async with place.engine(OrderV1()) as engine:
            await engine.send(OrderV1.run, key="k")
            await engine.call(OrderV1.say, "hi", key="k")
            assert await engine.submit(OrderV1.run, key="k") == "one hi"
        async with place.engine(Order()) as engine:
            with pytest.raises(InvalidInput, match="result"):
                await engine.submit(Order.run, key="k")
            assert await engine.submit("Order.run", key="k", returns=str) == "one hi"

    run(main())


def test_an_argument_is_checked_by_the_version_that_will_run(resident_place: Place) -> None:
    @dataclass
    class Amount:
        euros: int

    class One(Service, name="Till", version=1):
        @handler
        async def pay(self, ctx: Context, amount: int) -> int:
            return amount

    class Two(Service, name="Till", version=2):
        @handler
        async def pay(self, ctx: Context, amount: Amount) -> int:
            return amount.euros

    async def main() -> None:
        async with resident_place.engine(One(), Two()) as engine:
            assert await engine.call(Two.pay, Amount(3)) == 3
            with pytest.raises(InvalidInput, match="argument of Till"):
                await engine.call(One.pay, 3)

    run(main())


def test_a_step_of_an_old_version_is_retried_by_the_policy_of_that_version(place: Place) -> None:
    quiet_log()
    tries: list[int] = []

    def breaks() -> None:
        tries.append(1)
        raise ValueError("broken")

    async def breaking(ctx: Context) -> None:
        await ctx.run("break", breaks)

    def policy(attempts: int) -> RetryPolicy:
        return RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=attempts)

    class One(Service, name="Job", version=1, retry=policy(2)):
        @handler
        async def work(self, ctx: Context) -> None:
            await breaking(ctx)

    class Two(Service, name="Job", version=2, retry=policy(5)):
        @handler
        async def other(self, ctx: Context) -> None: ...

    async def main() -> None:
        async with place.engine(One(), Two()) as engine:
            handle = await engine.send(One.work)
            await until_status(engine, handle, Status.PAUSED)
            assert len(tries) == 2

    run(main())


# -- blocked --------------------------------------------------------------------------------------


def test_a_version_that_is_not_among_those_here_blocks_and_names_them(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Order(), clock=clock) as engine:
            blocked = await engine.send(Order.run, key="k")
            await until_status(engine, blocked, Status.SUSPENDED)
        async with place.engine(OrderV1(), OrderV7(), clock=clock) as engine:
            await engine.call(OrderV7.say, "hi", key="k")  # the word waits for it
            description = await engine.describe(blocked.id)
            assert description.status is Status.BLOCKED
            assert str(description.waiting_on[0]) == (
                "version 2 of service 'Order' is not registered here, but 1 and 7"
            )
            running = await engine.send(OrderV7.run, key="other")
            assert (await engine.describe(running.id)).status is not Status.BLOCKED
        async with place.engine(OrderV1(), Order(), OrderV7(), clock=clock) as engine:
            assert await engine.attach(blocked.id) == ["two", "hi"]

    quiet_log()
    run(main())


def test_a_handler_that_its_version_lost_blocks_though_another_version_has_it(
    place: Place,
) -> None:
    quiet_log()

    class One(OrderV1, name="Order", version=1):
        gone = None  # type: ignore[assignment]

    class Two(Order, name="Order", version=2):
        @handler
        async def gone(self, ctx: WorkflowSharedContext) -> str:
            return "of two"

    class Waits(OrderV1, name="Order", version=1):
        @handler
        async def gone(self, ctx: WorkflowSharedContext) -> str:
            await ctx.promise("word")
            return "of one"

    async def main() -> None:
        async with place.engine(Waits()) as engine:
            handle = await engine.send(Waits.gone, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(One(), Two()) as engine:
            description = await engine.describe(handle.id)
            assert description.status is Status.BLOCKED
            assert str(description.waiting_on[0]) == (
                "version 1 of service 'Order' has no handler 'gone' here"
            )
            assert await engine.call(Two.gone, key="k") == "of two"
            await engine.call(Two.say, "hi", key="k")
        async with place.engine(Waits(), Two()) as engine:
            assert await engine.attach(handle.id) == "of one"

    run(main())


# -- code that does not fit -----------------------------------------------------------------------


class BrokenV1(OrderV1, name="Order", version=1):
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.run("new", str)  # the change: version 1 has no step
        return "broken"


def test_a_version_that_was_changed_is_mended_without_the_others(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        old = await begun_on_one(place, "old")
        async with place.engine(BrokenV1(), Order()) as engine:
            await engine.call(Order.say, "hi", key="old")
            await until_status(engine, old, Status.PAUSED)
            failure = (await engine.describe(old)).last_failure
            assert failure is not None
            assert "code:    step 'new'" in failure
            new = await engine.send(Order.run, key="new")
            await engine.call(Order.say, "ho", key="new")
            assert await engine.attach(new.id) == ["two", "ho"]
        async with place.engine(Order()) as engine:  # paused and blocked: paused it stays
            assert (await engine.describe(old)).status is Status.PAUSED
        async with place.engine(OrderV1(), Order()) as engine:
            assert await engine.resume(old)
            assert await engine.attach(old) == "one hi"

    run(main())


# -- definitions ----------------------------------------------------------------------------------


def test_two_of_one_name_and_version_are_refused(resident_place: Place) -> None:
    class Twin(Workflow, name="Order", version=2):
        async def run(self, ctx: WorkflowContext) -> None: ...

    text = "two services are called 'Order' and have version 2, at .*test_versions.*version="
    for second in (Order(), Twin()):
        with pytest.raises(DefinitionError, match=text):
            resident_place.engine(OrderV1(), Order(), OrderV7(), second)


@pytest.mark.parametrize("version", [2, 3])
def test_versions_of_different_kinds_are_refused(resident_place: Place, version: int) -> None:
    class Thing(VirtualObject, name="Order", version=version):
        @handler
        async def say(self, ctx: ObjectContext) -> None: ...

    text = (
        r"test_versions\.py:\d+: service 'Order' is declared as object here and as workflow at "
        r".*test_versions\.py:\d+;"
    )
    with pytest.raises(DefinitionError, match=text):
        resident_place.engine(OrderV1(), Order(), Thing())


# -- between handlers, and again ------------------------------------------------------------------


class TillV1(Service, name="Till", version=1):
    @handler
    async def pay(self, ctx: Context) -> str:
        return "one"


class Till(Service, version=2):
    @handler
    async def pay(self, ctx: Context) -> int:
        return 2


class BuyV1(Workflow, name="Buy", version=1):
    async def run(self, ctx: WorkflowContext) -> list[Any]:
        first = await ctx.call(TillV1.pay)
        await ctx.promise("go")
        return [first, await ctx.call(TillV1.pay)]

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(None)


class Buy(BuyV1, name="Buy", version=2): ...


async def begun_to_buy(place: Place) -> str:
    """A workflow of version 1 that has called version 1 of the till, and waits."""
    async with place.engine(TillV1(), BuyV1()) as engine:
        handle = await engine.send(BuyV1.run, key="k")
        await until_status(engine, handle, Status.SUSPENDED)
        return handle.id


def test_a_handler_of_an_old_version_calls_the_highest(place: Place) -> None:
    class SameTypes(Service, name="Till", version=3):
        @handler
        async def pay(self, ctx: Context) -> str:
            return "three"

    async def main() -> None:
        old = await begun_to_buy(place)
        async with place.engine(TillV1(), SameTypes(), BuyV1(), Buy()) as engine:
            report = await engine.check()
            assert report.counts[Verdict.SAFE] == 1
            assert report.ok
            await engine.call(Buy.go, key="k")
            assert await engine.attach(old) == ["one", "three"]

    run(main())


def test_a_result_that_callers_in_flight_can_not_read_is_found_by_a_check(place: Place) -> None:
    async def main() -> None:
        old = await begun_to_buy(place)
        async with place.engine(TillV1(), Till(), BuyV1(), Buy()) as engine:
            assert [problem.id for problem in (await engine.check()).problems] == [old]
        async with place.engine(TillV1(), BuyV1(), Buy()) as engine:
            assert (await engine.check()).ok

    run(main())


def test_an_idempotent_call_gives_the_result_as_its_version_types_it(place: Place) -> None:
    async def main() -> None:
        async with place.engine(TillV1()) as engine:
            assert await engine.call(TillV1.pay, idempotency_key="i") == "one"
        async with place.engine(TillV1(), Till()) as engine:
            results: list[Any] = [
                await engine.call(Till.pay, idempotency_key="i"),
                await (await engine.send(Till.pay, idempotency_key="i")).result(),
                await engine.call(TillV1.pay),
            ]
            assert results == ["one", "one", 2]

    run(main())


def test_a_restart_begins_on_the_highest_unless_it_takes_over_a_journal(place: Place) -> None:
    class One(Service, name="Job", version=1, journal_retention=3600):
        @handler
        async def work(self, ctx: Context) -> str:
            return f"one {await ctx.run('first', str, 'a')}"

    class Two(Service, name="Job", version=2, journal_retention=3600):
        @handler
        async def work(self, ctx: Context) -> list[str]:
            return ["two", await ctx.run("second", str, "b")]

    async def main() -> None:
        async with place.engine(One()) as engine:
            handle = await engine.send(One.work)
            assert await handle.result() == "one a"
        async with place.engine(One(), Two()) as engine:
            anew = await engine.restart(handle.id)
            assert await anew.result() == ["two", "b"]
            assert (await engine.describe(anew.id)).version == 2
            again = await engine.restart(handle.id, from_entry=2)
            assert await again.result() == "one a"
            assert (await engine.describe(again.id)).version == 1

    run(main())
