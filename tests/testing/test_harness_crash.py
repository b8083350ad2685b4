"""Crashes and deploys in a test: what was durable goes on, and so does who awaits a result."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from harness_services import Approval, Caller, Order, Payments, Receipt

import perdure
from perdure import Status
from perdure.testing import Harness, HarnessError

HarnessClass = type[Harness]


async def test_a_step_that_is_journalled_does_not_run_again_after_a_crash(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        await h.settle()
        await h.crash()
        await h.call(Order.approve, "bob", key="1")
        assert await order.result() == "5: approved by bob"
        assert h.step("charge card").calls == 1


async def test_a_step_that_was_under_way_runs_again_after_a_crash(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        h.step("charge card").hangs()
        order = await h.send(Order.run, 5, key="1")
        await h.settle()
        await h.crash()
        await h.settle()
        h.step("charge card").returns(Receipt(3))
        await h.crash()
        assert await order.result() == "3: nobody approved"
        assert [record.attempt for record in h.step("charge card").records] == [1, 1, 1]


async def test_who_awaits_a_result_goes_on_over_a_crash(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Order(), Approval()]) as h:
        sent = await h.send(Approval.run, key="1")
        waiting = asyncio.gather(sent.result(), h.submit(Order.run, 5, key="1"))
        await h.settle()
        await h.crash()
        await h.call(Approval.approve, "bob", key="1")
        await h.crash()
        assert tuple(await waiting) == ("bob", "5: nobody approved")


async def test_a_handle_works_after_a_crash_by_which_its_invocation_had_ended(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        assert await order.result() == "5: nobody approved"
        await h.crash()
        assert await order.output() == "5: nobody approved"


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_what_was_not_durable_is_lost_in_a_crash_and_nothing_else(
    perdure_harness: HarnessClass, turns: int
) -> None:
    async with perdure_harness([Order()]) as h:
        result = asyncio.ensure_future(h.submit(Order.run, 5, key="1"))
        for _ in range(turns):  # it is asked for; its first unit is sealed; that is on the disk
            await asyncio.sleep(0)
        assert h._scheduler is not None
        store = h._scheduler.store
        assert (store.sealed > store.committed) == (turns == 2)
        await h.crash()
        if turns == 3:
            assert await result == "5: nobody approved"
            return
        with pytest.raises(HarnessError, match="is lost"):
            await result
        assert (await h.invocations()).items == []


async def test_a_timer_due_while_nothing_ran_fires_after_the_crash(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        await h.advance(hours=47)
        await h.crash()
        await h.advance(hours=1)
        assert await order.output() == "5: nobody approved"


async def test_new_code_may_come_with_a_deploy(perdure_harness: HarnessClass) -> None:
    class Greeting(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            await ctx.sleep(timedelta(days=1))
            return "hello"

    class Better(perdure.Workflow, name="Greeting"):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            await ctx.sleep(timedelta(days=1))
            return "good day"

    async with perdure_harness([Greeting()]) as h:
        greeting = await h.send(Greeting.run, key="1")
        await h.deploy([Better()])
        assert await greeting.result() == "good day"


async def test_a_deploy_that_does_not_fit_the_journal_fails_the_test(
    perdure_harness: HarnessClass,
) -> None:
    class Changed(perdure.Workflow, name="Order"):
        async def run(self, ctx: perdure.WorkflowContext, amount: int) -> str:
            return await ctx.run("refuse", lambda: "no")

    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        await h.deploy([Changed()])
        with pytest.raises(perdure.NondeterminismError, match="refuse"):
            await order.result()


async def test_doubles_outlive_a_crash_and_make_way_for_a_service_that_comes(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Caller()]) as h:
        double = h.call_to(Payments.charge).returns(Receipt(1))
        await h.crash()
        assert await h.submit(Caller.run, 5, key="1") == "receipt 1"
        await h.crash([Caller(), Payments()])
        assert await h.submit(Caller.run, 5, key="2") == "receipt 1"
        double.fails_times(1)
        assert await h.call(Payments.charge, 9) == Receipt(1)
        await h.call(Payments.refund, Receipt(1))
        assert h.step("refund").calls == 1


async def test_what_was_left_out_of_a_deploy_is_blocked(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        await h.deploy([])
        assert (await h.describe(order.id)).status is Status.BLOCKED
        assert h.next_timer is None
        await h.deploy([Order()])
        assert await order.result() == "5: nobody approved"


@pytest.mark.parametrize("perturb", [False, True])
async def test_a_replay_at_every_wait_gives_the_same(
    perdure_harness: HarnessClass, perturb: bool
) -> None:
    async with perdure_harness([Order(), Caller()], always_replay=True, perturb=perturb) as h:
        assert await h.call(Caller.order, 5, key="1") == "5: nobody approved"
        assert h.step("charge card").calls == 1


async def test_the_journal_is_there_for_assertions_and_for_people(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        await order.result()
        kinds = [entry.kind for entry in await h.journal(order) if entry.is_command]
        assert kinds == ["step", "timer", "wait for promise", "return"]
        assert "charge card" in await h.timeline(order.id)
