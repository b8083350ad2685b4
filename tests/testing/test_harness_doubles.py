"""Doubles of steps and of handlers."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta

import pytest
from harness_services import Broken, Caller, Order, Payments, Receipt

import perdure
from perdure import RetryPolicy
from perdure.testing import Harness

HarnessClass = type[Harness]


async def test_a_double_returns_in_the_place_of_the_step(perdure_harness: HarnessClass) -> None:
    order = Order()
    async with perdure_harness([order]) as h:
        h.step("charge card").returns(Receipt(77))
        assert await h.submit(Order.run, 5, key="1") == "77: nobody approved"
    assert order.charged == []


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_double_may_compute_what_it_returns(
    perdure_harness: HarnessClass, asynchronous: bool
) -> None:
    async def later(amount: int) -> Receipt:
        await asyncio.sleep(0)
        return Receipt(amount + 1)

    async with perdure_harness([Order()]) as h:
        h.step("charge card").returns(later if asynchronous else lambda amount: Receipt(amount + 1))
        assert await h.submit(Order.run, 5, key="1") == "6: nobody approved"


async def test_what_a_double_returns_is_converted_as_the_journal_does(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        receipt = Receipt(1)
        h.step("charge card").returns(receipt)
        result = asyncio.ensure_future(h.submit(Order.run, 5, key="1"))
        await h.settle()
        receipt.number = 2
        assert await result == "1: nobody approved"


async def test_a_terminal_error_of_a_double_reaches_the_handler(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        h.step("charge card").raises(perdure.TerminalError("declined", 402))
        with pytest.raises(perdure.TerminalError, match="declined") as raised:
            await h.submit(Order.run, 5, key="1")
        assert raised.value.code == 402


async def test_a_double_that_fails_some_times_is_retried_and_then_real(
    perdure_harness: HarnessClass,
) -> None:
    order = Order()
    async with perdure_harness([order]) as h:
        h.step("charge card").fails_times(2, TimeoutError("the bank sleeps"))
        assert await h.submit(Order.run, 5, key="1") == "5: nobody approved"
        records = h.step("charge card").records
        assert [record.attempt for record in records] == [1, 2, 3]
        assert [record.at - records[0].at for record in records] == [
            timedelta(0),
            timedelta(seconds=0.5),
            timedelta(seconds=1.5),
        ]
    assert order.charged == [5]


async def test_a_double_that_fails_some_times_may_return_afterwards(
    perdure_harness: HarnessClass,
) -> None:
    order = Order()
    async with perdure_harness([order]) as h:
        h.step("charge card").fails_times(1).returns(Receipt(8))
        assert await h.submit(Order.run, 5, key="1") == "8: nobody approved"
    assert order.charged == []


async def test_a_double_that_always_fails_uses_up_the_attempts(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken(), Order()], retry=RetryPolicy(max_attempts=5)) as h:
        h.step("look up").raises(TimeoutError)
        assert "failed after 3 attempts: TimeoutError" in await h.call(Broken.three_times, key="1")
        h.step("charge card").raises(ConnectionError("no network"))
        with pytest.raises(ConnectionError, match="no network"):
            await h.submit(Order.run, 5, key="1")
        assert h.step("charge card").calls == 5


async def test_records_tell_what_a_step_was_given(perdure_harness: HarnessClass) -> None:
    def pay(amount: int, *, currency: str) -> int:
        return amount

    class Shop(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> int:
            return await ctx.run("pay", functools.partial(pay, currency="EUR"), 3)

    async with perdure_harness([Shop()]) as h:
        shop = await h.send(Shop.run, key="7")
        assert await shop.result() == 3
        (record,) = h.step("pay").records
        assert (record.name, record.args, record.kwargs) == ("pay", (3,), {"currency": "EUR"})
        assert (record.service, record.handler, record.key) == ("Shop", "run", "7")
        assert (record.attempt, record.at) == (1, datetime(2026, 1, 1, tzinfo=UTC))
        assert record.invocation_id == shop.id


async def test_the_closest_double_counts_and_all_that_fit_record(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order(), Broken()]) as h:
        h.step("charge card", service=Order).returns(Receipt(3))
        h.step("charge card").returns(Receipt(2))
        h.step("*").returns(1)
        assert await h.submit(Order.run, 5, key="1") == "3: nobody approved"
        assert await h.submit(Broken.run, key="1") == 1
        assert h.step("*").calls == 2
        assert h.step("charge card").calls == 1
        assert h.step("charge *", handler=Order.run).calls == 1
        assert h.step("charge card", service="Broken").optional().calls == 0


async def test_a_double_without_a_behaviour_leaves_the_step_to_others(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        h.step("charge *").returns(Receipt(9))
        h.step("charge card").optional()
        assert await h.submit(Order.run, 5, key="1") == "9: nobody approved"


async def test_a_step_that_hangs_is_under_way_while_time_passes(
    perdure_harness: HarnessClass,
) -> None:
    class Raced(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            step = ctx.run("ask", lambda: "answer")
            timeout = ctx.after(timedelta(hours=1))
            return "timeout" if await ctx.wait_first(step, timeout) is timeout else await step

    async with perdure_harness([Raced()]) as h:
        h.step("ask").hangs()
        assert await h.submit(Raced.run, key="1") == "timeout"
        assert h.now == datetime(2026, 1, 1, 1, tzinfo=UTC)


async def test_the_time_of_a_step_that_hangs_is_the_tests(perdure_harness: HarnessClass) -> None:
    class Bounded(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            try:
                return await ctx.run(
                    "ask", lambda: "answer", timeout=600, retry=RetryPolicy(max_attempts=2)
                )
            except perdure.TerminalError as error:
                return str(error)

    async with perdure_harness([Bounded()]) as h:
        h.step("ask").hangs()
        said = await h.submit(Bounded.run, key="1")
        assert said == "step 'ask' failed after 2 attempts: TimeoutError: no result within 600.0 s"
        assert h.now == datetime(2026, 1, 1, 0, 20, 0, 500_000, tzinfo=UTC)


async def test_the_token_of_a_step_is_there_in_its_double(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Broken()]) as h:
        tokens: list[str] = []

        def look_up() -> int:
            tokens.append(perdure.step_token())
            return 5

        h.step("look up").returns(look_up)
        broken = await h.send(Broken.run, key="1")
        assert await broken.result() == 5
        assert tokens == [f"{broken.id}-1"]


# -- handlers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("registered", [False, True])
async def test_a_double_returns_in_the_place_of_a_handler(
    perdure_harness: HarnessClass, registered: bool
) -> None:
    services = [Caller(), Payments()] if registered else [Caller()]
    async with perdure_harness(services) as h:
        h.call_to(Payments.charge).returns(Receipt(12))
        assert await h.submit(Caller.run, 5, key="1") == "receipt 12"
        (record,) = h.call_to(Payments.charge).records
        assert (record.name, record.args, record.attempt) == ("Payments.charge", (5,), 1)


async def test_a_double_of_a_handler_fails_as_a_handler_does(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Caller()]) as h:
        double = h.call_to(Payments.charge).fails_times(2).returns(Receipt)
        assert await h.submit(Caller.run, 5, key="1") == "receipt 5"
        assert [record.attempt for record in double.records] == [1, 2, 3]
        double.raises(perdure.TerminalError("declined"))
        assert await h.submit(Caller.run, 5, key="2") == "failed: declined"


async def test_the_real_handler_runs_once_its_double_has_failed_enough(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Caller(), Payments()], always_replay=True) as h:
        h.call_to(Payments.charge).fails_times(1)
        h.call_to(Payments.refund).fails_times(1)
        assert await h.submit(Caller.run, 5, key="1") == "receipt 5"
        await h.call(Payments.refund, Receipt(1))
        assert h.call_to(Payments.refund).calls == 2
        assert h.step("refund").calls == 1


async def test_a_double_of_a_handler_records_once_however_often_it_is_replayed(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Caller(), Order()], always_replay=True) as h:
        double = h.call_to(Order.run)
        assert await h.call(Caller.order, 5, key="1") == "5: nobody approved"
        assert [record.key for record in double.records] == ["of 1"]


async def test_a_handler_that_hangs_waits_while_time_passes(
    perdure_harness: HarnessClass,
) -> None:
    class Patient(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            call = ctx.call(Payments.charge, 1)
            timeout = ctx.after(3600)
            return "timeout" if await ctx.wait_first(call, timeout) is timeout else "charged"

    async with perdure_harness([Patient()], always_replay=True) as h:
        h.call_to(Payments.charge).hangs()
        assert await h.submit(Patient.run, key="1") == "timeout"


async def test_handlers_known_by_name_only_have_doubles_too(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Caller()]) as h:
        h.call_to("Rates.eur").returns(lambda currency: {"usd": 9}[currency])
        log = h.call_to("Rates.log").returns(None)
        assert await h.call(Caller.by_name, key="1") == 9
        await h.settle()
        assert [record.args for record in log.records] == [(9,)]


@pytest.mark.parametrize("kind", ["object", "workflow"])
async def test_a_service_known_by_name_only_may_have_keys(
    perdure_harness: HarnessClass, kind: str
) -> None:
    class Asking(perdure.Service):
        @perdure.handler
        async def ask(self, ctx: perdure.Context) -> int:
            return await ctx.call("Stock.run", key="book", returns=int)

    async with perdure_harness([Asking()]) as h:
        h.call_to("Stock.run", kind=kind).returns(4)
        assert await h.call(Asking.ask) == 4
        assert h.call_to("Stock.run").records[0].key == "book"


async def test_a_double_may_be_called_by_the_test_itself(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([]) as h:
        h.call_to(Payments.charge).returns(Receipt(1))
        assert await h.call(Payments.charge, 5) == Receipt(1)
