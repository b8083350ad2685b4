"""Generated programs, crashed and replayed after every notification."""

from __future__ import annotations

from typing import Any

from driver import Driver, outstanding_of
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from programs import Body, Choose, build, interpret

from perdure._core._machine import State
from perdure.errors import HandlerStalled

NOTIFICATIONS_MAX = 150


@st.composite
def programs(draw: st.DrawFn) -> Body:
    return build(lambda count: draw(st.integers(0, count - 1)))


def play(program: Body, choose: Choose, *, crash_each_time: bool) -> tuple[Driver, list[Any], str]:
    """Run *program*, the world answering as *choose* says; driver, outstanding sets, its end."""
    driver = Driver(interpret(program))
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
