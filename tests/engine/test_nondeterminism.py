"""Code that no longer fits its journal: paused with both sides, mended by a fix and a resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_idle, until_status

from perdure import Status, Workflow, WorkflowContext, WorkflowSharedContext, handler
from perdure._store import Db, Store


class Deal(Workflow):
    """Its run is what the release at hand says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def close(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("closed").resolve(word)


STEPS: list[str] = []


def work(name: str) -> str:
    STEPS.append(name)
    return name


async def released(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": True, "parts": [1, 2]})
    return [first, await ctx.promise("closed", str)]


async def renamed(ctx: WorkflowContext) -> Any:
    await ctx.run("bill", work, "bill")  # the line of the change


async def reordered(ctx: WorkflowContext) -> Any:
    ctx.set("stage", {"paid": True, "parts": [1, 2]})  # the line of the change
    await ctx.run("charge", work, "charge")


async def another_payload(ctx: WorkflowContext) -> Any:
    await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": False, "parts": [1, 2]})  # the line of the change
    await ctx.promise("closed", str)


async def one_more(ctx: WorkflowContext) -> Any:
    await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": True, "parts": [1, 2]})
    ctx.set("extra", 1)  # the line of the change
    await ctx.promise("closed", str)


async def one_less(ctx: WorkflowContext) -> Any:
    await ctx.run("charge", work, "charge")
    await ctx.promise("closed", str)  # the line of the change


async def ends_early(ctx: WorkflowContext) -> Any:
    await ctx.run("charge", work, "charge")
    return "early"


async def goes_idle(ctx: WorkflowContext) -> Any:
    await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": True, "parts": [1, 2]})
    await ctx.after(1)  # the line of the change


CHANGES: list[tuple[Any, str, str]] = [
    (renamed, "step 'charge'", "step 'bill'"),
    (reordered, "step 'charge'", "set state 'stage'"),
    (another_payload, "set state 'stage'", "set state 'stage'"),
    (one_more, "wait for promise 'closed'", "set state 'extra'"),
    (one_less, "set state 'stage'", "wait for promise 'closed'"),
    (ends_early, "set state 'stage'", "return"),
    (goes_idle, "wait for promise 'closed'", "timer"),
]


def line_of_the_change(act: Any) -> str:
    code = act.__code__
    with open(code.co_filename, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if number > code.co_firstlineno and "# the line of the change" in line:
                return f"{code.co_filename}:{number} in {code.co_qualname}"
    raise AssertionError("no such line")


def journal_of(place: Place) -> list[tuple[bytes, bytes]]:
    store = Store(place.path, durability="os")
    try:
        return store.scan_committed(Db.JOURNAL)
    finally:
        store.close()


def begin(place: Place) -> str:
    """A deal that waits, begun by the release `released`."""
    STEPS.clear()

    async def main() -> str:
        async with place.engine(Deal(released)) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            return handle.id

    return run(main())


def meet(place: Place, act: Any, invocation_id: str) -> str:
    """Have the deal woken in a release with *act*; its last failure."""

    async def main() -> str:
        async with place.engine(Deal(act)) as engine:
            await engine.call(Deal.close, "done", key="k")
            await until_status(engine, invocation_id, Status.PAUSED)
            failure = (await engine.describe(invocation_id)).last_failure
            assert failure is not None
            return failure

    return run(main())


def mend(place: Place, invocation_id: str) -> Any:
    """The result, once resumed in a release that fits."""

    async def main() -> Any:
        async with place.engine(Deal(released)) as engine:
            await until_idle(engine)
            assert (await engine.describe(invocation_id)).status is Status.PAUSED
            assert await engine.resume(invocation_id)
            return await engine.attach(invocation_id)

    return run(main())


@pytest.mark.parametrize(("act", "journal", "code"), CHANGES)
def test_changed_code_pauses_with_both_sides_and_a_fix_and_a_resume_go_on(
    place: Place, act: Callable[..., Any], journal: str, code: str
) -> None:
    quiet_log()
    invocation_id = begin(place)
    before = journal_of(place)
    failure = meet(place, act, invocation_id)
    assert failure.startswith(f"NondeterminismError: the code of {invocation_id} does not fit its")
    on_journal, on_code = failure.splitlines()[1:3]
    assert on_journal.startswith(f"  journal: {journal}")
    assert on_code.startswith(f"  code:    {code}")
    # The journal is untouched: the first chunks are what they were, and nothing follows them.
    kept = dict(journal_of(place))
    assert [kept[key] for key, _ in before] == [value for _, value in before]
    assert STEPS == ["charge"]
    assert mend(place, invocation_id) == ["charge", "done"]
    assert STEPS == ["charge"]


@pytest.mark.parametrize("act", [act for act, _, _ in CHANGES if act is not ends_early])
def test_the_failure_names_the_line_of_both_sides(
    resident_place: Place, act: Callable[..., Any]
) -> None:
    quiet_log()
    failure = meet(resident_place, act, begin(resident_place))
    on_journal, on_code = failure.splitlines()[1:3]
    assert on_journal.endswith(f" in {released.__qualname__})")
    assert f"({__file__}:" in on_journal
    assert on_code.endswith(f"({line_of_the_change(act)})")


def test_the_failure_shows_the_difference_of_the_payloads(resident_place: Place) -> None:
    quiet_log()
    failure = meet(resident_place, another_payload, begin(resident_place))
    assert "-{'paid': True, 'parts': [1, 2]}" in failure
    assert "+{'paid': False, 'parts': [1, 2]}" in failure
    assert failure.endswith("The journal is untouched: deploy code that fits it, then resume.")


def test_it_is_paused_at_once_whatever_the_retry_policy(resident_place: Place) -> None:
    quiet_log()
    invocation_id = begin(resident_place)
    meet(resident_place, renamed, invocation_id)

    async def main() -> None:
        async with resident_place.engine(Deal(renamed)) as engine:
            description = await engine.describe(invocation_id)
            assert description.attempt == 2  # one was made, the next is the resume's

    run(main())


def test_a_resume_without_a_fix_pauses_again(place: Place) -> None:
    quiet_log()
    invocation_id = begin(place)
    first = meet(place, renamed, invocation_id)

    async def main() -> None:
        async with place.engine(Deal(renamed)) as engine:
            assert await engine.resume(invocation_id)
            await until_status(engine, invocation_id, Status.PAUSED)
            assert (await engine.describe(invocation_id)).last_failure == first

    run(main())
    assert mend(place, invocation_id) == ["charge", "done"]


def test_resume_of_what_is_not_paused_changes_nothing(resident_place: Place) -> None:
    invocation_id = begin(resident_place)

    async def main() -> None:
        async with resident_place.engine(Deal(released)) as engine:
            assert not await engine.resume(invocation_id)
            assert (await engine.describe(invocation_id)).status is Status.SUSPENDED

    run(main())


def test_a_handler_that_swallows_everything_can_not_hide_it(place: Place) -> None:
    quiet_log()

    async def swallows(ctx: WorkflowContext) -> Any:
        try:
            await ctx.run("bill", work, "bill")
        except Exception:
            return "swallowed"

    invocation_id = begin(place)
    assert "NondeterminismError" in meet(place, swallows, invocation_id)
    assert mend(place, invocation_id) == ["charge", "done"]


def test_others_go_on_beside_it(place: Place) -> None:
    quiet_log()
    invocation_id = begin(place)

    async def main() -> None:
        async with place.engine(Deal(renamed)) as engine:
            await engine.call(Deal.close, "done", key="k")
            await engine.call(Deal.close, "done", key="other")
            await engine.submit(Deal.run, key="other")
            await until_status(engine, invocation_id, Status.PAUSED)

    run(main())
