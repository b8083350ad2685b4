"""Generated programs that a later release changes behind ``ctx.patched``."""

from __future__ import annotations

from typing import Any

from driver import Driver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import Body, Choose, interpret, patched
from test_generated_programs import programs

from perdure._core._entries import Kind
from perdure.errors import HandlerStalled

NOTIFICATIONS_MAX = 60

Answers = list[tuple[str, bool]]


def answer_some(driver: Driver, choose: Choose, count: int, *, crash_each_time: bool) -> None:
    """Let the world answer at most *count* times, until the handler has ended."""
    for _ in range(count):
        if driver.completed:
            return
        if crash_each_time:
            driver.crash()
        driver.world.now_ms += choose(3) * 7
        answerable = driver.deliverable()
        driver.answer(answerable[choose(len(answerable))])


def chooser(answers: list[int]) -> Choose:
    left = iter(answers)
    return lambda count: next(left, 0) % count


def first_answers(answers: Answers) -> dict[str, bool]:
    """What was said of each patch; it must never have been said otherwise."""
    first: dict[str, bool] = {}
    for name, answer in answers:
        assert first.setdefault(name, answer) == answer, f"{name} changed its answer"
    return first


def upgrade(
    program: Body, world: list[int], before: int, *, crash_each_time: bool
) -> tuple[Driver, Answers, dict[str, bool], int]:
    """Run *program* for *before* answers, then its patched release to the end.

    Returns the driver, the answers of the last attempt, those given while the old journal was
    replayed, and the length of the old journal.
    """
    choose = chooser(world)
    driver = Driver(interpret(program))
    driver.start()
    answer_some(driver, choose, before, crash_each_time=False)
    old_length = len(driver.entries)
    answers: Answers = []
    new = patched(program, answers)

    async def release(ctx: Any) -> Any:
        answers.clear()  # another attempt asks anew
        return await new(ctx)

    driver.crash(release)
    replayed = first_answers(answers)
    answer_some(driver, choose, NOTIFICATIONS_MAX, crash_each_time=crash_each_time)
    if crash_each_time and not driver.completed:
        driver.crash()
    driver.evict()
    return driver, answers, replayed, old_length


@settings(
    max_examples=200,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    program=programs(),
    world=st.lists(st.integers(0, 5), max_size=60),
    before=st.integers(0, 20),
)
def test_an_old_journal_takes_the_old_branch_for_ever_and_the_rest_takes_the_new_one(
    program: Body, world: list[int], before: int
) -> None:
    try:
        plain, answers, replayed, old_length = upgrade(
            program, world, before, crash_each_time=False
        )
        crashed, answers_crashed, _, _ = upgrade(program, world, before, crash_each_time=True)
    except HandlerStalled:
        return  # the program waits for nothing
    # No answer of the old journal is a yes, and none of the rest a no.
    assert not any(replayed.values())
    final = first_answers(answers)
    assert all(answer or name in replayed for name, answer in final.items())
    assert replayed.items() <= final.items()
    # Each yes, and nothing else, is in the journal, once, after what the old release wrote.
    recorded = [
        (index, entry.name)
        for index, entry in enumerate(plain.entries)
        if entry.kind == Kind.PATCHED and entry.name.startswith("change")
    ]
    assert all(index >= old_length for index, _ in recorded)
    assert sorted(name for _, name in recorded) == sorted(n for n, a in final.items() if a)
    # Evicted and replayed at every await, it is the same run.
    assert crashed.entries == plain.entries
    assert first_answers(answers_crashed) == final
