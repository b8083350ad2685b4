"""Generated programs, crashed and replayed after every notification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driver import Driver, Handler, outstanding_of
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from later import LaterDriver
from programs import Body, Choose, build, interpret

from perdure import Pending, WorkflowContext
from perdure._core._machine import State
from perdure.errors import HandlerStalled

NOTIFICATIONS_MAX = 150


@st.composite
def programs(draw: st.DrawFn) -> Body:
    return build(lambda count: draw(st.integers(0, count - 1)))


def play(
    program: Body,
    choose: Choose,
    *,
    crash_each_time: bool,
    make: Callable[[Handler], Driver] = Driver,
) -> tuple[Driver, list[Any], str]:
    """Run *program*, the world answering as *choose* says; driver, outstanding sets, its end."""
    driver = make(interpret(program))
    waited: list[Any] = []
    end = "the world gave up"
    try:
        driver.start()
        for _ in range(NOTIFICATIONS_MAX):
            if crash_each_time:
                driver.crash()
            waited.append(outstanding_of(driver.machine))
            if driver.completed:
                end = "completed"
                break
            driver.world.now_ms += choose(3) * 7
            answerable = driver.deliverable()
            driver.answer(answerable[choose(len(answerable))])
    except HandlerStalled as stalled:
        end = str(stalled)
    driver.evict()
    return driver, waited, end


@settings(
    max_examples=300,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(program=programs(), answers=st.lists(st.integers(0, 5), max_size=60))
def test_a_run_crashed_after_every_notification_equals_an_uninterrupted_one(
    program: Body, answers: list[int]
) -> None:
    def chooser() -> Choose:
        left = iter(answers)
        return lambda count: next(left, 0) % count

    plain, plain_waited, plain_end = play(program, chooser(), crash_each_time=False)
    crashed, crashed_waited, crashed_end = play(program, chooser(), crash_each_time=True)
    note(f"ended: {plain_end}; journal: {plain.entries}")
    assert crashed.entries == plain.entries
    assert crashed_waited == plain_waited
    assert crashed_end == plain_end
    assert crashed.world.states == plain.world.states
    assert crashed.world.promises == plain.world.promises
    assert plain.complaints == []
    assert crashed.complaints == []
    if plain_end == "completed":
        assert crashed.result() == plain.result()
        assert plain.machine.state is State.CLOSED


@settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(program=programs(), answers=st.lists(st.integers(0, 5), max_size=60), crash=st.booleans())
def test_reads_that_are_answered_later_leave_the_same_journal(
    program: Body, answers: list[int], crash: bool
) -> None:
    def chooser() -> Choose:
        left = iter(answers)
        return lambda count: next(left, 0) % count

    plain, plain_waited, plain_end = play(program, chooser(), crash_each_time=False)
    later, later_waited, later_end = play(
        program, chooser(), crash_each_time=crash, make=LaterDriver
    )
    note(f"ended: {plain_end}; journal: {plain.entries}")
    assert later.entries == plain.entries
    assert later_waited == plain_waited
    assert later_end == plain_end
    assert later.world.states == plain.world.states
    assert later.world.promises == plain.world.promises
    assert [p["message"] for p in later.problems] == [p["message"] for p in plain.problems]
    assert later.complaints == []


def test_a_driver_that_answers_later_is_asked_for_each_read() -> None:
    async def handler(ctx: WorkflowContext) -> list[object]:
        promise = ctx.promise("p")
        seen: list[object] = [await ctx.get("a"), await promise.peek() is Pending]
        ctx.set("a", 1)
        await promise.resolve(2)
        return [*seen, await ctx.get("a"), await ctx.state_keys(), await promise.peek()]

    driver = LaterDriver(handler)
    assert driver.finish() == [None, True, 1, ["a"], 2]
    assert driver.asked == 5  # all but for the state that it has set itself
    driver.evict()
