"""The state machine's errors: what they say, and that they stay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from core_support import Driver, encode

from perdure import NondeterminismError, WorkflowContext
from perdure._core._entries import Entry, Kind
from perdure._core._machine import START, State
from perdure.errors import HandlerStalled, InternalError

Body = Callable[[WorkflowContext], Awaitable[Any]]


def nothing() -> None:
    """A step."""


async def waits(ctx: WorkflowContext) -> None:
    await ctx.run("step", nothing)


def line_of(marker: str) -> str:
    """``file:line`` of the only line of this file that ends with *marker* as a comment."""
    with open(__file__, encoding="utf-8") as source:
        lines = [n for n, text in enumerate(source, 1) if text.rstrip().endswith(f"  # {marker}")]
    (number,) = lines
    return f"{__file__}:{number}"


def diverges(recorded: Body, now: Body, *, answers: int = 0) -> NondeterminismError:
    """The report of replaying with *now* what *recorded* did."""
    driver = Driver(recorded)
    driver.start()
    for _ in range(answers):
        driver.answer(driver.deliverable()[0])
    with pytest.raises(NondeterminismError) as caught:
        driver.crash(now)
    driver.evict()
    return caught.value


# -- sticky errors --------------------------------------------------------------------------------


def test_a_machine_that_failed_raises_the_same_error_again() -> None:
    async def fails(ctx: WorkflowContext) -> None:
        raise ValueError("broken")

    driver = Driver(fails)
    with pytest.raises(ValueError, match="broken") as first:
        driver.start()
    with pytest.raises(ValueError, match="broken") as again:
        driver.start()
    assert again.value is first.value
    assert driver.machine.state is State.FAILED


def test_a_divergence_is_raised_again_by_each_further_use() -> None:
    async def changed(ctx: WorkflowContext) -> None:
        await ctx.run("other", nothing)

    driver = Driver(waits)
    driver.start()
    with pytest.raises(NondeterminismError) as first:
        driver.crash(changed)
    with pytest.raises(NondeterminismError) as again:
        driver.machine.activate(Entry(Kind.STEP_DONE, 1), 0)
    assert again.value is first.value


def test_a_handler_can_not_swallow_a_divergence() -> None:
    reached: list[str] = []

    async def changed(ctx: WorkflowContext) -> None:
        try:
            await ctx.run("other", nothing)
        except Exception:
            reached.append("swallowed")
        reached.append("after")

    assert diverges(waits, changed).index == 1
    assert reached == []


def test_a_notification_that_nothing_waits_for_is_a_defect() -> None:
    driver = Driver(waits)
    driver.start()
    with pytest.raises(InternalError, match="step done of entry 9, which nothing waits for"):
        driver.deliver(Entry(Kind.STEP_DONE, 9))


@pytest.mark.parametrize("state", ["completed", "closed"])
def test_a_machine_that_is_over_can_not_be_driven(state: str) -> None:
    driver = Driver(waits)
    driver.start()
    if state == "completed":
        driver.answer(driver.named("step"))
    else:
        driver.evict()
    with pytest.raises(InternalError, match=f"a machine that is {state} was driven"):
        driver.machine.activate(Entry(Kind.STEP_DONE, 1), 0)


def test_a_journal_of_a_later_release_is_refused() -> None:
    driver = Driver(waits)
    driver.world.journal = [[START._replace(ref=99)]]
    with pytest.raises(InternalError, match="logic version 99 of perdure; this release knows 1"):
        driver.replay()


# -- divergence -----------------------------------------------------------------------------------


def test_a_report_has_index_both_sides_and_both_lines() -> None:
    async def recorded(ctx: WorkflowContext) -> None:
        await ctx.run("first", nothing)
        await ctx.run("charge card", nothing)  # recorded here

    async def now(ctx: WorkflowContext) -> None:
        await ctx.run("first", nothing)
        await ctx.sleep(5)  # done here

    report = diverges(recorded, now, answers=1)
    assert report.index == 3
    assert report.expected == "step 'charge card'"
    assert report.actual == "timer"
    assert report.expected_site.startswith(line_of("recorded here"))
    assert report.actual_site.startswith(line_of("done here"))
    text = str(report)
    assert "does not fit its journal at entry 3" in text
    assert f"journal: step 'charge card'  ({line_of('recorded here')}" in text
    assert f"code:    timer  ({line_of('done here')}" in text


def test_code_that_asks_for_more_than_the_journal_has_is_reported() -> None:
    async def now(ctx: WorkflowContext) -> None:
        extra = ctx.run("extra", nothing)
        await waits(ctx)
        await extra

    async def recorded(ctx: WorkflowContext) -> None:
        await ctx.run("extra", nothing)

    report = diverges(recorded, now)
    assert (report.index, report.expected) == (2, "nothing more in this activation")
    assert report.actual == "step 'step'"


def test_code_that_asks_for_less_than_the_journal_has_is_reported() -> None:
    async def recorded(ctx: WorkflowContext) -> None:
        step, other = ctx.run("step", nothing), ctx.run("other", nothing)
        await asyncio.gather(step, other)

    report = diverges(recorded, waits)
    assert (report.index, report.expected) == (2, "step 'other'")
    assert report.actual == "went idle without a further command"
    assert report.actual_site == ""


def test_another_operation_cancelled_is_reported() -> None:
    def cancels(which: int) -> Body:
        async def body(ctx: WorkflowContext) -> None:
            timers = [ctx.after(10), ctx.after(20)]
            timers[which].cancel()
            await timers[1 - which]

        return body

    report = diverges(cancels(0), cancels(1))
    assert (report.index, report.expected, report.actual) == (
        3,
        "cancel of entry 1",
        "cancel of entry 2",
    )


def sets(value: Any) -> Body:
    async def body(ctx: WorkflowContext) -> None:
        ctx.set("total", value)
        await waits(ctx)

    return body


def test_another_payload_is_shown_as_a_difference() -> None:
    report = diverges(sets({"price": 1}), sets({"price": 2}))
    assert report.expected == report.actual == "set state 'total'"
    assert "--- journal\n+++ code" in report.diff
    assert "-{'price': 1}\n+{'price': 2}" in report.diff
    assert report.diff in str(report)


def test_a_long_payload_is_shown_as_digest_and_length() -> None:
    report = diverges(sets("a" * 5000), sets("b" * 6000))
    assert "recorded payload: 5003 bytes, digest " in report.diff
    assert "payload now:      6003 bytes, digest " in report.diff


def test_a_long_payload_leaves_its_digest_in_the_journal_and_fits_itself() -> None:
    driver = Driver(sets("a" * 5000))
    driver.start()
    kept = driver.entries[1].payload
    assert kept is not None
    assert len(kept) == 24
    driver.crash()
    driver.evict()


def test_a_payload_of_an_older_form_is_accepted_if_it_converts_to_the_same_value() -> None:
    driver = Driver(sets([1.0, 2.0]))
    driver.start()
    index, entry = 1, driver.entries[1]
    assert entry.kind == Kind.STATE_SET
    # As another encoder would have it: an array of indefinite length.
    older = b"\x9f" + encode([1.0, 2.0])[1:] + b"\xff"
    assert older != entry.payload
    driver.world.journal[0][index] = entry._replace(payload=older)
    driver.crash()
    driver.evict()


def test_an_older_payload_that_no_longer_converts_is_a_divergence() -> None:
    async def resolves(ctx: WorkflowContext) -> None:
        await ctx.promise("p", int).resolve(7)
        await waits(ctx)

    driver = Driver(resolves)
    driver.start()
    driver.world.journal[0][1] = driver.entries[1]._replace(payload=encode("seven"))
    with pytest.raises(NondeterminismError) as caught:
        driver.crash()
    assert "-'seven'\n+7" in caught.value.diff
    driver.evict()


def test_what_a_callback_of_a_library_asks_for_has_no_line() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        await asyncio.wait([asyncio.create_task(waits(ctx))], timeout=10)
        await waits(ctx)

    driver = Driver(handler)
    driver.start()
    driver.answer(driver.named("step"))
    (cancel,) = [entry for entry in driver.entries if entry.kind == Kind.CANCEL]
    assert cancel.site == 0
    driver.evict()


# -- stalls ---------------------------------------------------------------------------------------


def test_a_handler_that_spins_is_stopped_and_its_line_named() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        while True:
            await one_round()

    async def one_round() -> None:
        await asyncio.sleep(0)  # spins here

    driver = Driver(handler)
    with pytest.raises(HandlerStalled) as caught:
        driver.start()
    assert "ran 100,000 callbacks without waiting for anything; it spins at" in str(caught.value)
    assert f"{line_of('spins here')} in " in str(caught.value)
    driver.evict()


def test_a_callback_that_spins_is_named() -> None:
    def again() -> None:
        asyncio.get_running_loop().call_soon(again)

    async def handler(ctx: WorkflowContext) -> None:
        again()
        await waits(ctx)

    with pytest.raises(HandlerStalled, match=r"spins at .*<locals>\.again$"):
        Driver(handler).start()


def test_a_handler_that_waits_for_what_can_not_happen_is_told_the_line() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        await asyncio.Event().wait()  # waits here

    driver = Driver(handler)
    with pytest.raises(HandlerStalled) as caught:
        driver.start()
    assert f"waits for nothing that can happen, at {line_of('waits here')} in " in str(caught.value)
    driver.evict()
