"""Every order in which what a workflow waits for could come."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import WorkflowContext, WorkflowSharedContext
from perdure.testing import Client, NoSuchOrder, OrderFound, TrialFailed, explore_orders


class Race(perdure.Workflow):
    """Tells which two of two steps, a promise and a timer came first."""

    async def run(self, ctx: WorkflowContext) -> str:
        named: dict[Any, str] = {
            ctx.run("a", str, "a"): "a",
            ctx.run("b", str, "b"): "b",
            ctx.promise("p", str): "p",
            ctx.after(timedelta(hours=48)): "t",
        }
        first = await ctx.wait_first(*named)
        second = await ctx.wait_first(*[each for each in named if each is not first])
        return named[first] + named[second]

    @perdure.handler
    async def resolve(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("p", str).resolve("p")


async def resolve(client: Client) -> None:
    await client.sleep(24 * 3600)
    await client.call(Race.resolve, key="orders")


def test_all_orders_are_run() -> None:
    report = explore_orders(Race, script=resolve)
    assert report.complete
    assert {value for value, _ in report.results} == {
        first + second for first in "abpt" for second in "abpt" if first != second
    }


def test_time_does_not_pass_a_timer_by() -> None:
    class Timers(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            order: list[str] = []

            async def note(hours: int) -> None:
                await ctx.sleep(timedelta(hours=hours))
                order.append(str(hours))

            await asyncio.gather(note(3), note(1), note(2))
            return "".join(order)

    report = explore_orders(Timers)
    assert [value for value, _ in report.results] == ["123"]
    assert report.complete


def test_one_order_that_fails_is_told_in_its_simplest_form() -> None:
    def check(result: str, _: None) -> None:
        assert result != "tp", "the promise came too late"

    with pytest.raises(OrderFound, match="the promise came too late") as found:
        explore_orders(Race, script=resolve, check=check)
    told = str(found.value)
    assert "a timer is due after 1 day, 0:00:00" in told
    assert "(before step 'a' ends, step 'b' ends)" in told
    assert f"{__file__}:" in told
    with pytest.raises(OrderFound, match="the promise came too late"):
        explore_orders(Race, script=resolve, check=check, only=found.value.choices)
    assert explore_orders(Race, script=resolve, only=found.value.choices).results[0][0] == "tp"


def test_where_there_are_too_many_a_sample_is_run_and_what_fails_is_made_simpler() -> None:
    class Many(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            steps = [ctx.run(str(number), str, number) for number in range(7)]
            return "".join([(await step) async for step in ctx.wait(*steps)])

    report = explore_orders(Many, max_runs=60)
    assert report.runs == 60
    assert not report.complete

    def check(result: str, _: None) -> None:
        assert not result.startswith("60")

    with pytest.raises(OrderFound) as found:
        explore_orders(Many, check=check, max_runs=400)
    assert found.value.choices == (6,)


def test_a_handler_whose_replay_differs_is_found() -> None:
    runs = iter(range(1000))

    class Odd(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            number = next(runs)
            await ctx.run("first", str, 1)
            await ctx.run(f"second {number}", str, 2)
            await ctx.run("third", str, 3)

    with pytest.raises(OrderFound, match=r"paused(.|\n)*second"):
        explore_orders(Odd)


def test_a_workflow_without_an_end_is_told() -> None:
    class Waits(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            return await ctx.promise("approval", str)

    with pytest.raises(OrderFound, match="waits for promise 'approval'") as found:
        explore_orders(Waits)
    assert isinstance(found.value.__cause__, TrialFailed)


def test_choices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NoSuchOrder, match="choice 0 is 9, but only 3 are possible"):
        explore_orders(Race, script=resolve, only=[9])
    with pytest.raises(ValueError, match="max_runs must be at least 1"):
        explore_orders(Race, max_runs=0)


def test_it_may_be_awaited() -> None:
    async def main() -> None:
        assert (await explore_orders(Race, script=resolve, max_runs=3)).runs == 3

    asyncio.run(main())


class Mailer(perdure.Service):
    def __init__(self, mails: list[str]) -> None:
        self.mails = mails

    @perdure.handler
    async def mail(self, ctx: perdure.Context) -> None:
        await ctx.run("print", self.mails.append, "print")
        await ctx.run("post", self.mails.append, "post")


class Teller(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> None:
        ctx.send(Mailer.mail)
        await ctx.run("a", str, "a")


def test_what_a_workflow_has_sent_is_done_before_the_check() -> None:
    def check(_: object, mails: list[str]) -> None:
        assert mails == ["print", "post"]

    explore_orders(Teller, world=list, services=lambda mails: [Mailer(mails)], check=check)


def test_a_negative_choice_is_refused() -> None:
    with pytest.raises(NoSuchOrder):
        explore_orders(Race, only=[-1])
