"""``testing.replay``: whether today's code fits recorded journals, and that it only looks."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import importlib
import linecache
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run, scheduler_of, until_idle

import perdure
from perdure import (
    Context,
    ObjectContext,
    Status,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure._core._entries import Entry, Kind
from perdure.testing import History, ReplayedInvocation, Verdict, replay

STEPS: list[str] = []


def work(name: str) -> str:
    STEPS.append(name)
    return name


class Deal(perdure.Workflow):
    """Its run is what the release at hand says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @perdure.handler
    async def close(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("closed", str).resolve(word)


async def released(ctx: WorkflowContext) -> Any:
    first = await ctx.run("reserve", work, "reserve")
    second = await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": True})
    return [first, second, await ctx.promise("closed", str)]


def record(place: Place, act: Any = released, *, close: bool = False) -> History:
    """What a deal of the release *act* has recorded, waiting or completed."""

    async def main() -> History:
        async with place.engine(Deal(act)) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_idle(engine)
            if close:
                await engine.call(Deal.close, "done", key="k")
                await handle.result()
            return await engine.export(handle.id)

    history = run(main())
    STEPS.clear()
    return history


def only(history: History, *services: Any) -> ReplayedInvocation:
    (found,) = replay(history, services).invocations
    return found


# -- it only looks --------------------------------------------------------------------------------


@pytest.mark.parametrize("close", [False, True], ids=["waiting", "completed"])
def test_what_fits_is_safe_and_no_step_runs(resident_place: Place, close: bool) -> None:
    report = replay(record(resident_place, close=close), [Deal(released)])
    assert report.ok
    assert str(report) == "1 recorded invocations: 1 safe"
    assert (report.invocations[0].verdict, report.problems) == (Verdict.SAFE, [])
    report.raise_for_divergence()
    assert STEPS == []


def test_it_works_inside_a_running_loop_which_goes_on(resident_place: Place) -> None:
    history = record(resident_place)

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for act, ok in ((released, True), (another_payload, False), (raises, False)):
            assert replay(history, [Deal(act)]).ok is ok
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            await asyncio.sleep(0)

    run(main())
    assert replay(history, [Deal(released)]).ok
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_step_that_was_outstanding_does_not_run(resident_place: Place) -> None:
    async def main() -> History:
        started = asyncio.Event()

        async def slow() -> None:
            started.set()
            await asyncio.Event().wait()

        async def act(ctx: WorkflowContext) -> None:
            await ctx.run("slow", slow)

        async with resident_place.engine(Deal(act), drain_timeout=0.01) as engine:
            handle = await engine.send(Deal.run, key="k")
            await started.wait()
            return await engine.export(handle.id)

    async def today(ctx: WorkflowContext) -> None:
        await ctx.run("slow", work, "slow")

    assert only(run(main()), Deal(today)).verdict is Verdict.SAFE
    assert STEPS == []


class Desk(perdure.Service):
    @perdure.handler
    async def note(self, ctx: Context, text: str) -> str:
        return work(text)


class Counter(perdure.VirtualObject, journal_retention=3600):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        await ctx.run("note", work, ctx.request.headers["by"])
        return total


async def everything(ctx: WorkflowContext) -> Any:
    """Something of each kind, so that a replay has to answer each from the journal."""
    ctx.set("a", 1)
    called = await ctx.call(Desk.note, f"called {ctx.uuid4()} at {ctx.now()}")
    sent = ctx.send(Desk.note, "sent", idempotency_key="once")
    ref = await sent.invocation_id()
    awakeable = ctx.awakeable(str)
    await ctx.resolve_awakeable(awakeable.id, "awake")
    names = [*await ctx.state_keys(), await ctx.get("a", int)]
    await ctx.promise("noted", str).resolve(ref)
    ctx.clear_all()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.sleep(ctx.random.random() / 1000)) for _ in range(3)]
    peeked = await ctx.promise("closed", str).peek()
    try:
        await asyncio.wait_for(ctx.signal("never", str), 0.001)
    except TimeoutError:
        return [called, await awakeable, names, len(tasks), str(peeked), ctx.patched("x")]


def test_each_kind_of_command_is_answered_by_the_journal(resident_place: Place) -> None:
    async def main() -> History:
        async with resident_place.engine(Deal(everything), Desk(), Counter()) as engine:
            handle = await engine.send(Deal.run, key="k")
            await handle.result()
            added = await engine.send(Counter.add, 3, key="c", headers={"by": "ada"})
            await added.result()
            return await engine.export(handle.id, added.id)

    history = History.loads(run(main()).dumps())
    STEPS.clear()
    report = replay(history, [Deal(everything), Desk(), Counter()])
    assert str(report) == "2 recorded invocations: 2 safe"
    assert STEPS == []


def test_cancelled_killed_and_restarted_ones_are_replayed_as_they_went(
    resident_place: Place,
) -> None:
    class Till(perdure.Service, journal_retention=3600):
        @perdure.handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run(f"step {ctx.random.random()}", work, "a")
            return await ctx.signal("go", str)

    async def main() -> History:
        async with resident_place.engine(Till()) as engine:
            cancelled, killed, gone_on = [await engine.send(Till.wait) for _ in range(3)]
            await until_idle(engine)
            await engine.cancel(cancelled.id)
            await engine.kill(killed.id)
            await engine.signal(gone_on.id, "go", "on")
            await until_idle(engine)
            again = await engine.restart(gone_on.id, from_entry=2)
            await until_idle(engine)
            return await engine.export(cancelled.id, killed.id, gone_on.id, again.id)

    history = run(main())
    assert [each.status for each in history.invocations] == [*["completed"] * 3, "suspended"]
    assert history.invocations[3].origin
    report = replay(History.loads(history.dumps()), [Till()])
    assert str(report) == "4 recorded invocations: 4 safe"


@pytest.mark.parametrize("index", [None, 5], ids=["to the end", "to a divergence"])
def test_what_a_replay_leaves_suspended_is_closed_at_once(
    resident_place: Place, index: int | None
) -> None:
    ended: list[str] = []

    async def tidy(ctx: WorkflowContext) -> Any:
        try:
            await (another_payload(ctx) if index else released(ctx))
        finally:
            ended.append("finally")

    history = record(resident_place)
    gc.disable()
    try:
        (found,) = replay(history, [Deal(tidy)]).invocations
        assert ended == ["finally"]
    finally:
        gc.enable()
    assert getattr(found.divergence, "index", None) == index


# -- what diverges --------------------------------------------------------------------------------


async def renamed_step(ctx: WorkflowContext) -> Any:
    first = await ctx.run("reserve", work, "reserve")
    second = await ctx.run("bill", work, "charge")  # changed
    ctx.set("stage", {"paid": True})
    return [first, second, await ctx.promise("closed", str)]


async def another_order(ctx: WorkflowContext) -> Any:
    second = await ctx.run("charge", work, "charge")  # changed
    first = await ctx.run("reserve", work, "reserve")
    ctx.set("stage", {"paid": True})
    return [first, second, await ctx.promise("closed", str)]


async def another_payload(ctx: WorkflowContext) -> Any:
    first = await ctx.run("reserve", work, "reserve")
    second = await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": False})  # changed
    return [first, second, await ctx.promise("closed", str)]


async def removed_command(ctx: WorkflowContext) -> Any:
    first = await ctx.run("reserve", work, "reserve")
    ctx.set("stage", {"paid": True})  # changed
    return [first, first, await ctx.promise("closed", str)]


async def added_command(ctx: WorkflowContext) -> Any:
    first = await ctx.run("reserve", work, "reserve")
    await ctx.sleep(1)  # changed
    second = await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": True})
    return [first, second, await ctx.promise("closed", str)]


async def another_type(ctx: WorkflowContext) -> Any:
    first = await ctx.run("reserve", work, "reserve")
    second = await ctx.call(Desk.note, "charge")  # changed
    ctx.set("stage", {"paid": True})
    return [first, second, await ctx.promise("closed", str)]


async def waits_earlier(ctx: WorkflowContext) -> Any:
    await ctx.run("reserve", work, "reserve")
    await asyncio.Event().wait()  # changed


async def returns_earlier(ctx: WorkflowContext) -> Any:
    await ctx.run("reserve", work, "reserve")
    return {"all": "done"}


async def calls_what_is_not_given(ctx: WorkflowContext) -> Any:
    await ctx.run("reserve", work, "reserve")
    await ctx.call("Nowhere.note", "charge")


STEP, BILL = "step 'charge'", "step 'bill'"
CHANGES: list[tuple[Any, int, str, str]] = [
    (renamed_step, 3, STEP, BILL),
    (another_order, 1, "step 'reserve'", STEP),
    (another_payload, 5, "set state 'stage'", "set state 'stage'"),
    (removed_command, 3, STEP, "set state 'stage'"),
    (added_command, 3, STEP, "timer"),
    (another_type, 3, STEP, "call 'Desk.note'"),
    (waits_earlier, 3, STEP, "went idle without a further command"),
]


def source_of(act: Callable[..., Any], line: str) -> tuple[int, str]:
    """The number and the text of the line that has *line* in a release."""
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    start = act.__code__.co_firstlineno
    for number, text in enumerate(lines[start - 1 :], start):
        if line in text:
            return number, text.strip()
    raise AssertionError(line)


@pytest.mark.parametrize(
    ("act", "index", "expected", "actual"), CHANGES, ids=[each[0].__name__ for each in CHANGES]
)
def test_a_change_that_does_not_fit_is_found_and_shown_with_the_lines_of_both(
    resident_place: Place, act: Any, index: int, expected: str, actual: str
) -> None:
    history = History.loads(record(resident_place).dumps())
    report = replay(history, [Deal(act), Desk()])
    assert not report.ok
    (found,) = report.invocations
    assert found.verdict is Verdict.DIVERGES
    assert found.divergence is not None
    error = found.divergence
    assert (error.index, error.expected, error.actual) == (index, expected, actual)
    what = {1: '"reserve"', 3: '"charge"', 5: '"stage"'}[index]
    number, text = source_of(released, what)
    assert (
        f"  -    {index}     {expected}\n"
        f"  -           at {__file__}:{number} in released\n"
        f"  -             {text}\n"
    ) in found.reason
    number, text = source_of(act, "# changed")
    assert (
        f"  +    {index}     {actual}\n"
        f"  +           at {__file__}:{number} in {act.__name__}\n"
        f"  +             {text}"
    ) in found.reason
    assert str(report).startswith("1 recorded invocations: 1 diverges\ninv_")
    assert str(report).endswith(found.reason)
    with pytest.raises(AssertionError, match=re.escape(str(report))):
        report.raise_for_divergence()
    assert STEPS == []


def test_the_diff_begins_with_the_entries_before_it(resident_place: Place) -> None:
    found = only(record(resident_place), Deal(another_payload))
    assert found.reason.splitlines()[:5] == [
        "  --- journal",
        "  +++ code",
        "       2  <- step done 'reserve' of entry 1",
        "       3     step 'charge'",
        "       4  <- step done 'charge' of entry 3",
    ]
    assert found.reason.endswith("  -{'paid': True}\n  +{'paid': False}")


def test_what_returns_too_early_says_what_it_returned(resident_place: Place) -> None:
    found = only(record(resident_place), Deal(returns_earlier))
    assert "  +    3     return (of {'all': 'done'})" in found.reason


def test_a_called_service_that_was_not_given_is_the_reason(resident_place: Place) -> None:
    found = only(record(resident_place), Deal(calls_what_is_not_given))
    assert "  +    3     return (failed: service 'Nowhere' is not registered" in found.reason


def test_only_the_first_divergence_of_each_is_told(resident_place: Place) -> None:
    first, second = record(resident_place), record(resident_place)
    second.invocations[0] = dataclasses.replace(second.invocations[0], key="other")
    first.add(second)
    report = replay(first, [Deal(renamed_step)])
    assert [each.key for each in report.problems] == ["k", "other"]
    assert str(report).count("diverges at entry 3") == 2


def test_another_python_is_told_of_where_the_code_diverges(resident_place: Place) -> None:
    history = record(resident_place)
    journal = history.invocations[0].journal
    journal[0][0] = journal[0][0]._replace(name="2.7")
    assert "(recorded under Python 2.7, replayed under 3." in str(
        replay(history, [Deal(renamed_step)])
    )
    assert replay(history, [Deal(released)]).ok


# -- what fails, and what is not covered ----------------------------------------------------------


async def raises(ctx: WorkflowContext) -> Any:
    await ctx.run("reserve", work, "reserve")
    raise ValueError("no longer possible")


def test_what_raises_is_told_with_its_line(resident_place: Place) -> None:
    found = only(record(resident_place), Deal(raises))
    assert (found.verdict, found.divergence) == (Verdict.FAILS, None)
    number, text = source_of(raises, "raise ValueError")
    assert found.reason == (
        f"ValueError: no longer possible\n    at {__file__}:{number} in raises\n      {text}"
    )


def test_a_journal_of_a_newer_release_fails_and_says_so(resident_place: Place) -> None:
    history = record(resident_place)
    journal = history.invocations[0].journal
    journal[0][0] = journal[0][0]._replace(ref=99)
    found = only(history, Deal(released))
    assert found.verdict is Verdict.FAILS
    assert "upgrade perdure" in found.reason


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_no_verdict(resident_place: Place, end: Any) -> None:
    async def ends(ctx: WorkflowContext) -> Any:
        raise end

    history = record(resident_place)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        replay(history, [Deal(ends)])
    assert replay(history, [Deal(released)]).ok


class Other(perdure.Workflow):
    async def run(self, ctx: WorkflowContext) -> None: ...


def test_of_nothing_that_is_covered_it_does_not_say_that_all_is_well(
    resident_place: Place,
) -> None:
    history = record(resident_place)
    report = replay(history, [Other()])
    assert report.invocations[0].verdict is Verdict.NOT_COVERED
    assert not report.ok
    assert str(report) == (
        "1 recorded invocations: 1 not covered\n"
        "none of them is of the services given: are these the right ones?\n"
        "not covered, 1: service 'Deal' is not registered here"
    )
    with pytest.raises(AssertionError):
        report.raise_for_divergence()


def test_what_is_not_covered_is_left_alone_beside_what_is(resident_place: Place) -> None:
    history = record(resident_place)
    gone = dataclasses.replace(history.invocations[0], service="Gone")
    empty = dataclasses.replace(history.invocations[0], journal=[])
    history.invocations += [gone, empty]
    report = replay(history, [Deal(released)])
    assert report.ok
    assert report.counts[Verdict.NOT_COVERED] == 2
    assert "not covered, 1: service 'Gone' is not registered here" in str(report)
    assert "not covered, 1: it has no journal" in str(report)


def test_an_empty_history_is_ok() -> None:
    report = replay(History(), [])
    assert report.ok
    assert str(report) == "0 recorded invocations"


# -- results --------------------------------------------------------------------------------------


async def another_result(ctx: WorkflowContext) -> Any:
    return {"all": await released(ctx)}


async def fails_at_last(ctx: WorkflowContext) -> Any:
    await released(ctx)
    raise TerminalError("not today", 418)


@pytest.mark.parametrize(
    ("act", "now"),
    [
        (another_result, "+result of {'all': ['reserve', 'charge', 'done']}"),
        (fails_at_last, "+result failed: not today (code 418)"),
    ],
)
def test_a_result_that_changed_is_shown_and_is_no_divergence(
    resident_place: Place, act: Any, now: str
) -> None:
    report = replay(record(resident_place, close=True), [Deal(act)])
    (found,) = report.invocations
    assert (report.ok, found.verdict) == (True, Verdict.SAFE)
    assert "-result of ['reserve', 'charge', 'done']" in found.result_change
    assert now in found.result_change
    assert str(report).endswith(f"safe, with another result\n{found.result_change}")
    assert str(report).startswith("1 recorded invocations: 1 safe\n")


@dataclasses.dataclass
class Result:
    total: int


@dataclasses.dataclass
class ResultNow:
    total: int
    note: str | None = None


def test_a_result_that_todays_type_makes_of_the_recorded_one_has_not_changed(
    resident_place: Place,
) -> None:
    def priced(result: type) -> Any:
        async def run_(self: Any, ctx: WorkflowContext) -> Any:
            return result(await ctx.run("add", int, 3))

        run_.__annotations__["return"] = result
        run_.__name__ = "run"
        return type("Priced", (perdure.Workflow,), {"run": run_})

    async def main() -> History:
        async with resident_place.engine(priced(Result)()) as engine:
            handle = await engine.send("Priced.run", key="k")
            await handle.result()
            return await engine.export(handle.id)

    history = run(main())
    assert only(history, priced(ResultNow)()).result_change == ""
    journal = history.invocations[0].journal
    journal[-1][-1] = Entry(Kind.OUTPUT, payload=b"\xa1\x65total\x04")
    assert "-result of {'total': 4}" in only(history, priced(ResultNow)()).result_change


def test_a_replay_beside_an_engine_leaves_it_alone(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Deal(released)) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_idle(engine)
            store = scheduler_of(engine).store
            sealed = store.sealed
            assert replay(await engine.export(handle.id), [Deal(released)]).ok
            assert not replay(await engine.export(handle.id), [Deal(renamed_step)]).ok
            assert store.sealed == sealed
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
            await engine.call(Deal.close, "done", key="k")
            assert await handle.result() == ["reserve", "charge", "done"]

    run(main())


def test_a_line_that_was_exported_after_it_had_changed_is_not_shown_as_the_old_one(
    resident_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `perdure replay ID` does, which exports now what ran then."""
    program = tmp_path / "changing_shop.py"
    text = (
        "import perdure\n"
        "class Shop(perdure.Workflow):\n"
        "    async def run(self, ctx: perdure.WorkflowContext) -> None:\n"
        "        await ctx.run('reserve', str, 1)\n"
        "        await ctx.promise('paid')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    program.write_text(text)
    shop = importlib.import_module("changing_shop")

    async def recorded() -> History:
        async with resident_place.engine(shop.Shop()) as engine:
            handle = await engine.send("Shop.run", key="k")
            await until_idle(engine)
            program.write_text(text.replace("'reserve'", "'put aside'"))
            linecache.checkcache()
            return await engine.export(handle.id)

    history = run(recorded())
    importlib.invalidate_caches()
    changed = importlib.reload(shop)
    report = str(replay(history, [changed.Shop()]))
    assert "-    1     step 'reserve'" in report
    assert report.count("await ctx.run('put aside', str, 1)") == 1
    assert "+             await ctx.run('put aside', str, 1)" in report
