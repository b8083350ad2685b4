"""What breaks reaches the test, as the error that it was; what was meant to fail is retried."""

from __future__ import annotations

import asyncio
import traceback

import pytest
from harness_services import Approval, Broken, Caller, Order, Payments

import perdure
from perdure import RetryPolicy
from perdure.testing import DoubleError, Harness, HarnessError, Stuck

HarnessClass = type[Harness]


async def test_the_error_of_a_step_reaches_who_awaits_the_result(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()]) as h:
        with pytest.raises(ValueError, match="no such account") as raised:
            await h.submit(Broken.run, key="1")
        assert h.step("look up").calls == 1
    assert "in fail" in "".join(traceback.format_tb(raised.value.__traceback__))
    assert raised.value.__notes__[0].startswith("in step 'look up' of Broken.run/1, inv_")


async def test_the_error_of_a_handler_reaches_who_awaits_the_result(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()]) as h:
        with pytest.raises(ValueError, match="in the handler"):
            await h.call(Broken.at_once, key="1")


async def test_the_error_of_a_handler_that_was_called_reaches_who_awaits_its_caller(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()]) as h:
        with pytest.raises(ValueError, match="no such account"):
            await h.call(Broken.calls_run, key="1")


async def test_a_workflow_that_broke_unawaited_fails_the_test_at_the_end(
    perdure_harness: HarnessClass,
) -> None:
    with pytest.raises(ValueError, match="no such account"):
        async with perdure_harness([Broken()]) as h:
            await h.send(Broken.run, key="1")


async def test_several_that_broke_unawaited_are_told_together(
    perdure_harness: HarnessClass,
) -> None:
    async def test() -> None:
        async with perdure_harness([Broken()]) as h:
            await h.send(Broken.run, key="1")
            await h.send(Broken.at_once, key="1")

    with pytest.raises(BaseExceptionGroup) as raised:
        await test()
    assert len(raised.value.exceptions) == 2


async def test_what_broke_is_told_by_the_next_advance(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Broken()]) as h:
        await h.send(Broken.run, key="1")
        with pytest.raises(ValueError, match="no such account"):
            await h.advance(hours=1)


async def test_who_awaits_a_result_is_told_of_that_one_first(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()]) as h:
        await h.send(Broken.run, key="1")
        second = await h.send(Broken.at_once, key="1")
        await asyncio.sleep(0.01)
        with pytest.raises(ValueError, match="in the handler"):
            await second.result()
        with pytest.raises(ValueError, match="no such account"):
            await h.settle()


async def test_what_broke_is_told_while_another_step_still_runs(
    perdure_harness: HarnessClass,
) -> None:
    over = asyncio.Event()

    class Slow(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> None:
            await ctx.run("slow", over.wait)

    async with perdure_harness([Slow(), Broken()]) as h:
        await h.send(Slow.run, key="1")
        broken = await h.send(Broken.run, key="1")
        with pytest.raises(ValueError, match="no such account"):
            await broken.result()
        over.set()


async def test_an_error_that_is_raised_twice_is_two_errors(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Broken()], retry=RetryPolicy(max_attempts=1)) as h:
        h.step("look up").raises(ConnectionError("no network"))
        errors: list[BaseException] = []
        for key in ("1", "2"):
            with pytest.raises(ConnectionError) as raised:
                await h.submit(Broken.run, key=key)
            errors.append(raised.value)
        assert errors[0] is not errors[1]
        assert [len(error.__notes__) for error in errors] == [1, 1]


async def test_what_broke_is_told_once(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Broken()]) as h:
        broken = await h.send(Broken.run, key="1")
        with pytest.raises(ValueError, match="no such account"):
            await h.settle()
        await h.settle()
        with pytest.raises(Stuck, match="is paused after ValueError: no such account"):
            await broken.result()


async def test_what_broke_is_added_to_the_failure_of_the_test(
    perdure_harness: HarnessClass,
) -> None:
    async def test() -> None:
        async with perdure_harness([Broken()]) as h:
            await h.send(Broken.run, key="1")
            await h.send(Broken.at_once, key="1")
            h.step("nobody has it")
            with pytest.raises(ValueError, match=r"no such account|in the handler") as first:
                await h.settle()
            told.append(str(first.value))
            raise AssertionError("what the test says")

    told: list[str] = []
    with pytest.raises(AssertionError, match="what the test says") as raised:
        await test()
    # Which of them breaks first is not what this is about.
    (other,) = {"no such account", "in the handler"} - set(told)
    second, double = raised.value.__notes__
    assert second.startswith(f"also: ValueError: {other} in ")
    assert double.startswith("also: no step 'nobody has it' ever ran")


async def test_time_does_not_skip_past_what_broke(perdure_harness: HarnessClass) -> None:
    class Patient(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> str:
            call = ctx.call(Broken.run, key="1")
            timeout = ctx.after(3600)
            return "timeout" if await ctx.wait_first(call, timeout) is timeout else "result"

    async with perdure_harness([Patient(), Broken()]) as h:
        with pytest.raises(ValueError, match="no such account"):
            await h.submit(Patient.run, key="1")


async def test_a_terminal_error_is_a_result_and_no_failure_of_the_test(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()]) as h:
        await h.send(Broken.declines, key="1")
        with pytest.raises(perdure.TerminalError, match="declined"):
            await h.call(Broken.declines, key="1")


async def test_the_policy_of_a_step_of_its_own_is_in_force(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Broken()]) as h:
        said = await h.call(Broken.three_times, key="1")
        assert said == "step 'look up' failed after 3 attempts: ValueError: no such account"
        assert [record.attempt for record in h.step("look up").records] == [1, 2, 3]


async def test_an_error_that_asks_for_it_is_retried(perdure_harness: HarnessClass) -> None:
    class Polite(perdure.Service):
        @perdure.handler
        async def ask(self, ctx: perdure.Context) -> str:
            if ctx.request.attempt < 3:
                raise perdure.RetryableError("later", retry_after=60)
            return f"{ctx.now():%H:%M}"

    async with perdure_harness([Polite()]) as h:
        assert await h.call(Polite.ask) == "00:02"


async def test_with_a_policy_errors_are_retried_and_a_pause_reaches_the_test(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()], retry=RetryPolicy(max_attempts=4)) as h:
        with pytest.raises(ValueError, match="no such account"):
            await h.submit(Broken.run, key="1")
        assert h.step("look up").calls == 4


async def test_a_handler_that_waits_for_nothing_fails_the_test(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Broken()]) as h:
        with pytest.raises(perdure.HandlerStalled):
            await h.call(Broken.waits_for_nothing, key="1")


@pytest.mark.parametrize("retry", [None, RetryPolicy()])
async def test_code_that_does_not_fit_its_journal_fails_the_test(
    perdure_harness: HarnessClass, retry: RetryPolicy | None
) -> None:
    names = iter(["first", "second"])

    class Hasty(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> None:
            await ctx.run(next(names), lambda: None)
            await ctx.sleep(1)

    async with perdure_harness([Hasty()], retry=retry, always_replay=True) as h:
        with pytest.raises(perdure.NondeterminismError, match="first"):
            await h.submit(Hasty.run, key="1")


async def test_a_double_of_a_step_that_never_ran_is_told_with_what_was_meant(
    perdure_harness: HarnessClass,
) -> None:
    async def test() -> None:
        async with perdure_harness([Order()]) as h:
            h.step("chrage card").returns(None)
            await h.submit(Order.run, 5, key="1")

    with pytest.raises(DoubleError, match="no step 'chrage card' ever ran; did you mean 'charge"):
        await test()


async def test_a_double_of_a_handler_that_nobody_called_is_told(
    perdure_harness: HarnessClass,
) -> None:
    with pytest.raises(DoubleError, match=r"nobody called Payments\.refund"):
        async with perdure_harness([Payments()]) as h:
            h.call_to(Payments.refund).returns(None)


async def test_an_optional_double_may_stay_idle(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Payments()]) as h:
        h.step("no such step").optional()
        h.call_to(Payments.refund).optional().returns(None)


async def test_a_double_of_the_wrong_type_is_told_and_no_handler_can_catch_it(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Order(), Caller(), Broken()]) as h:
        h.step("charge card").returns({"number": "one"})
        h.step("look up").returns("five")
        with pytest.raises(DoubleError, match="the double of step 'charge card' returns what"):
            await h.submit(Order.run, 5, key="1")
        with pytest.raises(DoubleError, match="the double of step 'look up' returns what"):
            await h.call(Broken.three_times, key="1")  # which would try again, and catch it
        h.call_to(Payments.charge).returns("a receipt")  # type: ignore[arg-type]
        with pytest.raises(DoubleError, match=r"the double of Payments\.charge returns what"):
            await h.submit(Caller.run, 5, key="1")


async def test_a_handler_of_a_stand_in_without_a_double_says_so(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Caller()]) as h:
        h.call_to(Payments.refund).optional()
        with pytest.raises(DoubleError, match=r"h\.call_to\(Payments\.charge\)"):
            await h.submit(Caller.run, 5, key="1")


async def test_a_step_that_runs_on_at_the_end_is_cut_and_named(
    perdure_harness: HarnessClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.testing._driver._STEPS_S", 0.05)
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    class Endless(perdure.Workflow):
        async def run(self, ctx: perdure.WorkflowContext) -> None:
            await ctx.run("endless", endless)

    with pytest.raises(HarnessError, match="step 'endless' still runs"):
        async with perdure_harness([Endless()]) as h:
            await h.send(Endless.run, key="1")
    assert ended == ["cancelled"]


async def test_a_workflow_that_waits_at_the_end_is_no_failure(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([Approval()]) as h:
        await h.send(Approval.run, key="1")
