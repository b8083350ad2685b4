"""Crashing a workflow at every point: what it finds, what it says, and what it lets pass."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import ObjectContext, TerminalError, WorkflowContext, WorkflowSharedContext
from perdure.testing import (
    Client,
    CrashFound,
    Effects,
    TrialFailed,
    crash_everywhere,
    ran_exactly_once_across_crashes,
)
from perdure.testing._trial import TrialLoop


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total


class Order(perdure.Workflow):
    """Steps, a promise that a script resolves, a month's timer, and a call."""

    def __init__(self, effects: Effects, *, careful: bool = True) -> None:
        self.effects = effects
        self.careful = careful

    async def _effect(self, name: str) -> str:
        self.effects.happen(name, perdure.step_token() if self.careful else None)
        return name

    async def run(self, ctx: WorkflowContext, price: int) -> int:
        await ctx.run("charge", self._effect, "charge")
        paid = ctx.promise("paid", int)
        if await ctx.wait_first(paid, ctx.after(timedelta(days=30))) is not paid:
            raise TerminalError("nobody has paid")
        await ctx.sleep(timedelta(days=30))
        total = await ctx.call(Counter.add, price + await paid, key="all")
        await ctx.run("ship", self._effect, "ship")
        return total

    @perdure.handler
    async def pay(self, ctx: WorkflowSharedContext, amount: int) -> None:
        await ctx.promise("paid", int).resolve(amount)


async def pay(client: Client) -> None:
    await client.sleep(3600)
    await client.call(Order.pay, 7, key="crash")


def test_a_workflow_ends_the_same_wherever_it_crashes() -> None:
    report = crash_everywhere(
        Order,
        3,
        world=Effects,
        services=[Counter()],
        script=pay,
        check=lambda _, effects: ran_exactly_once_across_crashes(effects, "charge", "ship"),
    )
    assert report.result == 10
    assert report.runs == len(report.points) + 1
    told = str(report)
    assert "step 'charge' has run, its outcome is not durable" in told
    assert "commit of start → step 'charge'" in told
    assert f"{__file__}:" in told


@pytest.mark.parametrize("mode", ["always_replay", "perturb"])
def test_it_does_so_when_each_await_is_replayed_or_memory_moves(mode: str) -> None:
    modes: Any = {mode: True}
    crash_everywhere(Order, 3, world=Effects, services=[Counter()], script=pay, **modes)


def test_crashing_twice_tries_each_pair_of_points() -> None:
    class Brief(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            return await ctx.run("step", str, "done")

    once, twice = (crash_everywhere(Brief, depth=depth) for depth in (1, 2))
    assert once.points == twice.points
    assert twice.runs > 2 * once.runs
    with pytest.raises(ValueError, match="more than 5 runs"):
        crash_everywhere(Brief, depth=2, runs_max=5)


def test_an_effect_without_idempotency_key_is_found_with_its_line() -> None:
    with pytest.raises(CrashFound, match="'charge' happened 2 times") as found:
        crash_everywhere(
            lambda effects: Order(effects, careful=False),
            3,
            world=Effects,
            services=[Counter()],
            script=pay,
            check=lambda _, effects: ran_exactly_once_across_crashes(effects),
        )
    (point,) = found.value.points
    assert point.what == "step 'charge' has run, its outcome is not durable"
    assert point.site.startswith(__file__)
    assert point.site.endswith("in Order.run")
    assert f"only={point.number}" in str(found.value)
    assert "perdure.step_token()" in str(found.value)


def test_an_effect_in_the_body_of_a_handler_is_found() -> None:
    class Leaky(perdure.Workflow):
        def __init__(self, effects: Effects) -> None:
            self.effects = effects

        async def run(self, ctx: WorkflowContext) -> None:
            self.effects.happen("mail")
            await ctx.run("step", str, 1)

    with pytest.raises(CrashFound, match="'mail' happened"):
        crash_everywhere(
            Leaky,
            world=Effects,
            check=lambda _, effects: ran_exactly_once_across_crashes(effects),
        )


def test_a_result_that_depends_on_memory_is_found() -> None:
    class Forgetful(perdure.Workflow):
        def __init__(self) -> None:
            self.seen = 0

        async def run(self, ctx: WorkflowContext) -> int:
            self.seen += 1
            await ctx.run("step", str, 1)
            return self.seen

    with pytest.raises(CrashFound, match=r"without a crash: 1\nwith it: 2"):
        crash_everywhere(Forgetful)


def test_a_command_that_depends_on_memory_is_found_as_a_divergence() -> None:
    class Forgetful(perdure.Workflow):
        def __init__(self) -> None:
            self.seen = 0

        async def run(self, ctx: WorkflowContext) -> None:
            self.seen += 1
            await ctx.run(f"step {self.seen}", str, 1)
            await ctx.run("last", str, 1)

    with pytest.raises(CrashFound, match=r"comes to no end(.|\n)*paused(.|\n)*step 'step 1'"):
        crash_everywhere(Forgetful)


def test_one_point_can_be_run_alone() -> None:
    report = crash_everywhere(Order, 3, world=Effects, services=[Counter()], script=pay, only=3)
    assert report.runs == 2
    with pytest.raises(ValueError, match="there is no point 99"):
        crash_everywhere(
            Order,
            3,
            world=Effects,
            services=[Counter()],
            script=pay,
            only=99,
        )


def test_a_failure_is_a_result_too() -> None:
    report = crash_everywhere(Order, 3, world=Effects)
    assert isinstance(report.result, TerminalError)
    assert str(report.result) == "nobody has paid"


def test_a_workflow_that_waits_for_ever_is_told_with_what_it_waits_for() -> None:
    class Waits(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            return await ctx.promise("approval", str)

    with pytest.raises(TrialFailed, match=r"Waits\.run is suspended and waits for promise"):
        crash_everywhere(Waits)


def test_what_the_script_raises_ends_it() -> None:
    async def wrong(client: Client) -> None:
        raise LookupError("no such person")

    with pytest.raises(LookupError, match="no such person"):
        crash_everywhere(Order, 3, world=Effects, script=wrong)


def test_a_handler_of_an_object_is_crashed_as_well() -> None:
    assert crash_everywhere(Counter.add, 5).result == 5


def test_what_can_not_be_run_is_told() -> None:
    class Pair(perdure.Workflow):
        def __init__(self, first: int, second: int) -> None:
            self.pair = first, second

        async def run(self, ctx: WorkflowContext) -> None: ...

    with pytest.raises(TypeError, match=r"can not be made .*lambda world: Pair\(…\)"):
        crash_everywhere(Pair)
    with pytest.raises(TypeError, match=r"is no workflow; .* name the handler"):
        crash_everywhere(Counter)


def test_it_works_inside_of_a_running_loop_and_may_be_awaited() -> None:
    async def main() -> None:
        report = await crash_everywhere(Counter.add, 5)
        assert report.result == 5

    asyncio.run(main())


def test_hundreds_of_points_take_a_second_or_two() -> None:
    class Long(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            for number in range(30):
                await ctx.run(f"step {number}", str, number)

    begin = time.perf_counter()
    report = crash_everywhere(Long)
    assert len(report.points) > 60
    assert time.perf_counter() - begin < 30


class Clock(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        before = ctx.now()
        await ctx.run("tick", int)
        await ctx.sleep(timedelta(days=1))
        return f"{before} {ctx.now()}"


def test_a_crash_takes_no_time_of_the_workflow() -> None:
    crash_everywhere(Clock)


class Lottery(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.run("draw", int)
        return str(ctx.uuid4())


def test_of_two_crashes_the_first_decides_whether_it_has_begun() -> None:
    crash_everywhere(Lottery, depth=2)


class Mailer(perdure.Service):
    def __init__(self, effects: Effects) -> None:
        self.effects = effects

    @perdure.handler
    async def mail(self, ctx: perdure.Context, waits_s: float = 0.0) -> str:
        if waits_s:
            await ctx.sleep(waits_s)
        await ctx.run("print", self._effect, "print")
        await ctx.run("post", self._effect, "post")
        return "posted"

    async def _effect(self, name: str) -> None:
        self.effects.happen(name, perdure.step_token())


class Teller(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        ctx.send(Mailer.mail, 0.0)
        return "told"


def posted(_: object, effects: Effects) -> None:
    ran_exactly_once_across_crashes(effects, "print", "post")


def test_what_a_workflow_has_sent_is_done_and_crashed_before_the_check() -> None:
    report = crash_everywhere(
        Teller, world=Effects, services=lambda world: [Mailer(world)], check=posted
    )
    assert any("step 'post' has run" in point.what for point in report.points)


class Asks(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        return await ctx.promise("word", str) + await ctx.signal("end", str)


async def hand_over(client: Client) -> None:
    handle = await client.send(Mailer.mail, 60.0)
    await client.resolve("Asks.word", await handle.result(), key="crash")
    (asked,) = [each for each in (await client.invocations()).items if each.service == "Asks"]
    await client.signal(asked.id, "end", "!")
    await client.purge(handle.id)


def test_handles_signals_and_purges_of_a_script_outlive_a_crash() -> None:
    report = crash_everywhere(
        Asks,
        world=Effects,
        services=lambda world: [Mailer(world)],
        script=hand_over,
        check=posted,
    )
    assert report.result == "posted!"


async def never_awaited(_: object, __: object) -> None: ...


def test_an_async_check_is_refused_since_it_would_let_everything_pass() -> None:
    with pytest.raises(TypeError, match="plain function"):
        crash_everywhere(Clock, check=never_awaited)


class Endless(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> None:
        while True:
            await ctx.sleep(1)


def test_a_workflow_that_goes_on_for_ever_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialLoop, "rounds_max", 10_000)
    with pytest.raises(TrialFailed, match="no end after 10,000 rounds"):
        crash_everywhere(Endless)


def test_what_can_not_begin_is_refused_and_no_result() -> None:
    with pytest.raises(perdure.InvalidInput, match="needs an argument"):
        crash_everywhere(Counter.add)
    with pytest.raises(perdure.NotFound, match="Counter"):
        crash_everywhere(Counter.add, 1, services=lambda _: [])


def test_services_may_be_given_by_an_iterator() -> None:
    assert crash_everywhere(Teller, services=(each for each in [Mailer(Effects())])).runs > 1


def test_points_to_run_alone_may_be_a_list_and_begin_at_one() -> None:
    assert crash_everywhere(Clock, only=[1, 3]).runs == 2
    with pytest.raises(ValueError, match="counted from 1"):
        crash_everywhere(Clock, only=0)
