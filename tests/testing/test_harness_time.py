"""The time of a harness: it stands still, is moved, and jumps while a result is awaited."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from harness_services import Approval, Broken, Counter, Daily, Order

import perdure
from perdure import RetryPolicy, Status
from perdure.testing import Harness, HarnessError, Stuck

HarnessClass = type[Harness]


async def test_a_workflow_of_thirty_days_takes_less_than_a_second(
    perdure_harness: HarnessClass,
) -> None:
    began = time.process_time()  # whatever else the machine does
    async with perdure_harness([Daily()]) as h:
        noted = await h.submit(Daily.run, 30, key="1")
        assert len(noted) == 30
        assert h.now == datetime(2026, 1, 31, tzinfo=UTC)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("always_replay", [False, True])
async def test_each_timer_fires_at_its_own_time_in_the_course_of_one_advance(
    perdure_harness: HarnessClass, always_replay: bool
) -> None:
    start = datetime(2024, 2, 28, 12, tzinfo=UTC)
    async with perdure_harness([Daily()], start=start, always_replay=always_replay) as h:
        daily = await h.send(Daily.run, 3, key="1")
        await h.advance(days=2, hours=23)
        assert await h.state(Daily, "1") == {}
        with pytest.raises(perdure.NotReady):
            await daily.output()
        await h.advance(timedelta(hours=1))
        assert await daily.output() == ["02-29 12:00", "03-01 12:00", "03-02 12:00"]


async def test_timers_of_different_workflows_fire_in_the_order_of_their_deadlines(
    perdure_harness: HarnessClass,
) -> None:
    order: list[str] = []

    class Sleeper(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext, hours: float) -> None:
            await ctx.sleep(timedelta(hours=hours))
            order.append(f"{ctx.key} at {ctx.now():%H:%M}")

    async with perdure_harness([Sleeper()]) as h:
        for key, hours in (("c", 3), ("a", 1), ("b", 2.5)):
            await h.send(Sleeper.run, hours, key=key)
        await h.advance(hours=4)
        assert order == ["a at 01:00", "b at 02:30", "c at 03:00"]
        assert h.now == datetime(2026, 1, 1, 4, tzinfo=UTC)


async def test_advance_adds_up_what_it_is_given(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([]) as h:
        await h.advance(1.5, minutes=1, milliseconds=1)
        assert h.now == datetime(2026, 1, 1, 0, 1, 1, 501_000, tzinfo=UTC)
        with pytest.raises(ValueError, match="time does not go back"):
            await h.advance(-1)


async def test_skip_goes_to_the_next_timer_and_no_further(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Daily()]) as h:
        daily = await h.send(Daily.run, 2, key="1")
        assert await h.skip() == datetime(2026, 1, 2, tzinfo=UTC)
        assert h.next_timer == datetime(2026, 1, 3, tzinfo=UTC)
        await h.skip()
        assert await daily.output() == ["01-02 00:00", "01-03 00:00"]
        with pytest.raises(Stuck, match="no timer is due"):
            await h.skip()


async def test_a_cancelled_timer_is_not_skipped_to(perdure_harness: HarnessClass) -> None:
    class Two(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            early = ctx.after(timedelta(hours=1))
            late = ctx.after(timedelta(hours=5))
            early.cancel()
            await late
            return f"{ctx.now():%H:%M}"

    async with perdure_harness([Two()]) as h:
        two = await h.send(Two.run, key="1")
        await h.settle()
        assert await h.skip() == datetime(2026, 1, 1, 5, tzinfo=UTC)
        assert await two.output() == "05:00"


async def test_a_result_that_waits_for_the_timeout_comes_by_itself(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        assert await h.submit(Order.run, 5, key="1") == "5: nobody approved"
        assert h.now == datetime(2026, 1, 3, tzinfo=UTC)


async def test_time_stands_still_while_the_test_does_other_things(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1")
        await h.settle()
        await asyncio.sleep(0.01)
        await h.advance(hours=47)
        await h.call(Order.approve, "bob", key="1")
        assert await order.result() == "5: approved by bob"
        assert h.now == datetime(2026, 1, 2, 23, tzinfo=UTC)


async def test_a_task_that_awaits_a_result_leaves_the_time_to_a_test_that_acts(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()]) as h:
        result = asyncio.ensure_future(h.submit(Order.run, 5, key="1"))
        await asyncio.sleep(0)
        await h.advance(hours=1)
        await h.call(Order.approve, "bob", key="1")
        assert await result == "5: approved by bob"
        await h.settle()
        assert h.now == datetime(2026, 1, 1, 1, tzinfo=UTC)


async def test_time_skips_while_several_results_are_awaited_at_once(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order(), Daily()]) as h:
        both = asyncio.gather(h.submit(Order.run, 5, key="1"), h.submit(Daily.run, 3, key="1"))
        results = tuple(await both)
        assert results == ("5: nobody approved", ["01-02 00:00", "01-03 00:00", "01-04 00:00"])


async def test_time_never_skips_while_a_step_runs(perdure_harness: HarnessClass) -> None:
    class Raced(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            step = ctx.run("slow", asyncio.sleep, 0.05)
            timeout = ctx.after(timedelta(seconds=1))
            return "step" if await ctx.wait_first(step, timeout) is step else "timeout"

    async with perdure_harness([Raced()]) as h:
        assert await h.submit(Raced.run, key="1") == "step"
        assert h.now == datetime(2026, 1, 1, tzinfo=UTC)


async def test_time_never_skips_while_a_step_runs_in_a_thread(
    perdure_harness: HarnessClass,
) -> None:
    class Raced(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            step = ctx.run("slow", time.sleep, 0.05)
            timeout = ctx.after(timedelta(seconds=1))
            return "step" if await ctx.wait_first(step, timeout) is step else "timeout"

    async with perdure_harness([Raced()]) as h:
        assert await h.submit(Raced.run, key="1") == "step"


async def test_without_auto_skip_an_awaited_timer_is_told_at_once(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order()], auto_skip=False) as h:
        order = await h.send(Order.run, 5, key="1")
        with pytest.raises(Stuck, match="timer is due at 2026-01-03 00:00:00 UTC") as stuck:
            await order.result()
        assert "promise 'approval'" in str(stuck.value)
        h.auto_skip = True
        assert await order.result() == "5: nobody approved"


async def test_a_result_that_can_never_come_says_at_once_what_it_waits_for(
    perdure_harness: HarnessClass,
) -> None:
    began = time.process_time()  # whatever else the machine does
    async with perdure_harness([Approval()]) as h:
        with pytest.raises(Stuck) as stuck:
            await h.submit(Approval.run, key="7")
        assert "Approval.run of key '7' waits for promise 'approval'" in str(stuck.value)
        assert "h.call(Approval.approve, …)" in str(stuck.value)
        assert "harness_services.py" in str(stuck.value)
        assert time.process_time() - began < 0.9
        await h.call(Approval.approve, "bob", key="7")
        assert await h.submit(Approval.run, key="7") == "bob"


async def test_a_task_that_may_still_act_keeps_a_result_from_being_given_up(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Approval()]) as h:
        result = asyncio.ensure_future(h.submit(Approval.run, key="7"))
        await asyncio.sleep(0.1)
        assert not result.done()
        await h.call(Approval.approve, "bob", key="7")
        assert await result == "bob"


async def test_who_waits_for_a_child_is_told_what_the_child_waits_for(
    perdure_harness: HarnessClass,
) -> None:
    class Parent(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            return await ctx.call(Approval.run, key="of the parent")

    async with perdure_harness([Parent(), Approval()]) as h:
        with pytest.raises(Stuck, match=r"Approval\.run of key 'of the parent' waits for promise"):
            await h.submit(Parent.run, key="1")


async def test_minutes_of_back_off_are_skipped_too(perdure_harness: HarnessClass) -> None:
    policy = RetryPolicy(initial=600, max_interval=600, max_attempts=None)
    async with perdure_harness([Order()], retry=policy) as h:
        h.step("charge card").fails_times(6)
        h.auto_skip = True
        order = await h.send(Order.run, 5, key="1")
        await h.advance(minutes=59)
        assert (await h.describe(order.id)).status is Status.BACKING_OFF
        await h.advance(minutes=1)
        assert (await h.describe(order.id)).status is Status.SUSPENDED
        assert h.step("charge card").calls == 7


async def test_a_result_that_has_expired_in_the_course_of_the_time_is_gone(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Approval()]) as h:
        approval = await h.send(Approval.run, key="1")
        await h.call(Approval.approve, "bob", key="1")
        await h.advance(hours=23)
        assert await approval.result() == "bob"
        await h.advance(hours=2)
        with pytest.raises(perdure.NotFound):
            await approval.result()


async def test_objects_take_turns_over_hours(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Counter()]) as h:
        totals = await asyncio.gather(*(h.call(Counter.add, 1, key="a") for _ in range(5)))
        assert totals == [1, 2, 3, 4, 5]
        assert h.now == datetime(2026, 1, 1, 5, tzinfo=UTC)


async def test_a_delayed_send_begins_when_its_time_has_come(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Order()]) as h:
        order = await h.send(Order.run, 5, key="1", delay=timedelta(days=3))
        assert h.next_timer == datetime(2026, 1, 4, tzinfo=UTC)
        await h.advance(days=2)
        assert h.step("charge card").calls == 0
        await h.advance(days=1)
        assert h.step("charge card").calls == 1
        assert await order.result() == "5: nobody approved"


async def test_a_step_that_does_not_end_is_named_where_time_is_to_move(
    perdure_harness: HarnessClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.testing._driver._STEPS_S", 0.05)
    never = asyncio.Event()

    class Waits(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> None:
            await ctx.run("outside", never.wait)

    async with perdure_harness([Waits()]) as h:
        await h.send(Waits.run, key="1")
        with pytest.raises(HarnessError, match="step 'outside' still runs"):
            await h.advance(hours=1)
        never.set()


async def test_the_ids_are_the_same_in_each_run(perdure_harness: HarnessClass) -> None:
    ids = []
    for _ in range(2):
        async with perdure_harness([Broken()]) as h:
            ids.append([(await h.send(Broken.declines, key="1")).id for _ in range(3)])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3
