"""``engine.check``: which unfinished journals the code at hand fits, and that it only looks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, scheduler_of, until, until_idle, until_status

from perdure import (
    CheckedInvocation,
    CheckReport,
    Context,
    InvalidInput,
    NondeterminismError,
    Service,
    Status,
    StoreClosed,
    Verdict,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._ids import parse_id
from perdure._runtime import _check
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


class DealV2(Deal, name="Deal", version=2):
    pass


class Other(Workflow):
    async def run(self, ctx: WorkflowContext) -> None: ...


STEPS: list[str] = []


def work(name: str) -> str:
    STEPS.append(name)
    return name


async def released(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": True})
    return [first, await ctx.promise("closed", str)]


async def another_payload(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.run("charge", work, "charge")
    ctx.set("stage", {"paid": False})  # the line of the change
    return [first, await ctx.promise("closed", str)]


async def renamed(ctx: WorkflowContext) -> Any:
    await ctx.run("bill", work, "bill")


async def raises(ctx: WorkflowContext) -> Any:
    await ctx.run("charge", work, "charge")
    raise ValueError("no longer possible")


async def patched(ctx: WorkflowContext) -> list[Any]:
    if ctx.patched("two steps"):
        await ctx.run("prepare", work, "prepare")
    return await released(ctx)


def begin(place: Place, *keys: str, deal: Any = Deal) -> list[str]:
    """Deals that wait, begun by the release `released`; their ids."""
    STEPS.clear()

    async def main() -> list[str]:
        async with place.engine(deal(released)) as engine:
            ids = [(await engine.send(Deal.run, key=key)).id for key in keys]
            for invocation_id in ids:
                await until_status(engine, invocation_id, Status.SUSPENDED)
            return ids

    return run(main())


def check(place: Place, *services: Any) -> CheckReport:
    async def main() -> CheckReport:
        async with place.engine(*services) as engine:
            return await engine.check()

    return run(main())


def rows(place: Place) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that the closed directory holds, but for what says how it was opened and closed."""
    store = Store(place.path, durability="os")
    try:
        return {db.name: store.scan(db, b"") for db in Db if db is not Db.META}
    finally:
        store.close()


def counts(report: CheckReport) -> dict[str, int]:
    return {str(verdict): count for verdict, count in report.counts.items() if count}


# -- verdicts -------------------------------------------------------------------------------------


def test_what_fits_is_safe(place: Place) -> None:
    begin(place, "a", "b")
    report = check(place, Deal(released))
    assert report.ok
    assert counts(report) == {"safe": 2}
    assert report.problems == []
    assert report.not_covered == {}
    assert str(report) == "2 unfinished invocations: 2 safe"


def test_an_empty_directory_is_ok(place: Place) -> None:
    report = check(place, Deal(released))
    assert report.ok
    assert str(report) == "0 unfinished invocations"


def test_what_diverges_has_the_entry_both_sides_both_lines_and_the_difference(
    place: Place,
) -> None:
    (invocation_id,) = begin(place, "k")
    report = check(place, Deal(another_payload))
    assert not report.ok
    assert counts(report) == {"diverges": 1}
    (problem,) = report.problems
    assert (problem.id, problem.service, problem.key) == (invocation_id, "Deal", "k")
    assert (problem.handler, problem.version) == ("run", 1)
    assert problem.verdict is Verdict.DIVERGES
    error = problem.divergence
    assert isinstance(error, NondeterminismError)
    assert error.invocation_id == invocation_id
    assert (error.index, error.expected) == (3, "set state 'stage'")
    assert error.actual == "set state 'stage'"
    assert error.expected_site.endswith(f" in {released.__qualname__}")
    line = another_payload.__code__.co_firstlineno + 2
    assert error.actual_site == f"{__file__}:{line} in {another_payload.__qualname__}"
    assert "-{'paid': True}\n+{'paid': False}" in error.diff
    assert error.__traceback__ is None  # which would keep the handler's frames
    assert problem.reason == error.sides()
    text = str(report)
    assert text.startswith("1 unfinished invocations: 1 diverges\n")
    assert f"{invocation_id} (Deal.run, version 1, key 'k') diverges at entry 3\n" in text
    assert "  journal: set state 'stage'  (" in text
    assert "  code:    set state 'stage'  (" in text
    assert "+{'paid': False}" in text


def test_what_fails_says_what_its_handler_raised(place: Place) -> None:
    (invocation_id,) = begin(place, "k")
    report = check(place, Deal(raises))
    assert not report.ok
    assert counts(report) == {"fails": 1}
    (problem,) = report.problems
    assert problem.id == invocation_id
    assert problem.divergence is None
    assert problem.reason == "ValueError: no longer possible"
    assert str(problem).endswith(") fails: ValueError: no longer possible")


class Watched(Deal, name="Deal"):
    @handler
    async def watch(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.promise("closed", str)


def test_what_is_not_registered_is_not_covered_and_counted_by_reason(place: Place) -> None:
    begin(place, "a", "b", deal=Watched)

    async def watch() -> None:
        async with place.engine(Watched(released)) as engine:
            await engine.send(Watched.watch, key="a")

    run(watch())
    report = check(place, Other())
    assert report.ok
    assert report.not_covered == {"service 'Deal' is not registered here": 3}
    report = check(place, DealV2(released))
    text = "version 1 of service 'Deal' is not registered here, but 2"
    assert report.not_covered == {text: 3}
    report = check(place, Deal(released))
    assert counts(report) == {"safe": 2, "not covered": 1}
    assert report.not_covered == {"service 'Deal' has no handler 'watch' here": 1}
    assert str(report) == (
        "3 unfinished invocations: 2 safe, 1 not covered\n"
        "not covered, 1: service 'Deal' has no handler 'watch' here"
    )


def test_what_has_no_journal_is_not_covered(place: Place) -> None:
    quiet_log()

    async def never(ctx: WorkflowContext) -> None:
        raise ValueError("not today")

    async def main() -> None:
        async with place.engine(Deal(never)) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_status(engine, handle, Status.PAUSED)
            report = await engine.check()
            assert counts(report) == {"not covered": 1}
            assert report.not_covered == {"it has no journal yet: nothing of it has been done": 1}

    run(main())


def test_each_version_is_checked_against_its_own_code(place: Place) -> None:
    (old,) = begin(place, "old")

    async def main() -> None:
        async with place.engine(Deal(released), DealV2(released)) as engine:
            new = await engine.send(Deal.run, key="new")
            await until_status(engine, new, Status.SUSPENDED)
            assert counts(await engine.check()) == {"safe": 2}

    run(main())
    report = check(place, Deal(renamed), DealV2(released))
    assert counts(report) == {"safe": 1, "diverges": 1}
    assert [(problem.id, problem.version) for problem in report.problems] == [(old, 1)]
    report = check(place, Deal(released), DealV2(renamed))
    assert [problem.version for problem in report.problems] == [2]


def test_patched_code_is_safe_for_old_and_new(place: Place) -> None:
    begin(place, "old")

    async def main() -> None:
        async with place.engine(Deal(patched)) as engine:
            new = await engine.send(Deal.run, key="new")
            await until_status(engine, new, Status.SUSPENDED)
            assert counts(await engine.check()) == {"safe": 2}

    run(main())
    assert counts(check(place, Deal(patched))) == {"safe": 2}
    assert counts(check(place, Deal(released))) == {"safe": 1, "diverges": 1}


def test_a_paused_one_is_checked_and_safe_once_it_is_mended(place: Place) -> None:
    quiet_log()
    (invocation_id,) = begin(place, "k")

    async def pause() -> None:
        async with place.engine(Deal(renamed)) as engine:
            await engine.call(Deal.close, "done", key="k")
            await until_status(engine, invocation_id, Status.PAUSED)
            assert counts(await engine.check()) == {"diverges": 1}

    run(pause())
    assert counts(check(place, Deal(released))) == {"safe": 1}


def test_a_damaged_journal_fails_alone(tmp_path: Path) -> None:
    place = Place(tmp_path / "data", 10_000)
    damaged, _ = begin(place, "a", "b")
    store = Store(place.path, durability="os")
    store.put(Db.JOURNAL, parse_id(damaged) + (2).to_bytes(4, "big"), b"", b"\x09no chunk")
    store.seal()
    store.close()
    report = check(place, Deal(released))
    assert counts(report) == {"safe": 1, "fails": 1}
    assert report.problems[0].id == damaged
    assert report.problems[0].reason.startswith("StoreCorrupt: ")


# -- it only looks --------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [released, renamed, raises, another_payload])
def test_no_row_changes_and_no_step_runs(place: Place, act: Any) -> None:
    """With sites of its own, which a live engine would write."""
    begin(place, "a", "b")
    before = rows(place)
    STEPS.clear()

    async def main() -> None:
        async with place.engine(Deal(act)) as engine:
            scheduler = scheduler_of(engine)
            sealed = scheduler.store.sealed
            resident = dict(scheduler.residents.by_id)
            await engine.check()
            assert scheduler.store.sealed == sealed
            assert scheduler.sites.unsaved == []
            assert dict(scheduler.residents.by_id) == resident

    run(main())
    assert rows(place) == before
    assert STEPS == []


def test_a_step_that_is_left_undone_does_not_run(place: Place) -> None:
    """A check in the program that runs it must not start it a second time."""
    started: list[str] = []

    async def main() -> None:
        release = asyncio.Event()

        async def slow() -> str:
            started.append("slow")
            await release.wait()
            return "slow"

        async def act(ctx: WorkflowContext) -> str:
            return await ctx.run("slow", slow)

        async with place.engine(Deal(act)) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until(lambda: bool(started))
            assert counts(await engine.check()) == {"safe": 1}
            await asyncio.sleep(0.01)
            assert started == ["slow"]
            release.set()
            assert await handle.result() == "slow"

    run(main())


def test_the_running_instances_go_on_as_if_nothing_had_been(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Deal(released)) as engine:
            handles = [await engine.send(Deal.run, key=str(number)) for number in range(5)]
            for number, handle in enumerate(handles):
                await until_status(engine, handle, Status.SUSPENDED)
                await engine.check()
                await engine.call(Deal.close, str(number), key=str(number))
                assert await handle.result() == ["charge", str(number)]
            report = await engine.check()
            assert str(report) == "0 unfinished invocations"  # completed ones are not looked at

    run(main())


def test_what_completes_while_it_is_checked_is_left_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal may be gone before it has been read."""
    begin(place, "k")
    give_way = _check._Check.give_way
    calls: list[int] = []

    async def main() -> None:
        async with place.engine(Watched(released)) as engine:
            # Of a shared handler, no journal is kept.
            watch = await engine.send(Watched.watch, key="k")
            await until_status(engine, watch, Status.SUSPENDED)

            async def complete_first(check: Any) -> None:
                calls.append(1)
                if len(calls) == 2:
                    scheduler_of(engine).stage.leave()
                    await engine.call(Deal.close, "done", key="k")
                    assert await watch.result() == "done"
                    assert await engine.submit(Deal.run, key="k") == ["charge", "done"]
                await give_way(check)

            monkeypatch.setattr(_check._Check, "give_way", complete_first)
            report = await engine.check()
            assert str(report) == "0 unfinished invocations"
            assert len(calls) > 2

    run(main())


def test_of_what_has_completed_no_code_runs(place: Place) -> None:
    runs: list[int] = []

    async def act(ctx: WorkflowContext) -> None:
        runs.append(1)

    async def main() -> None:
        async with place.engine(Deal(act)) as engine:
            await engine.submit(Deal.run, key="k")
            await engine.check()
            assert runs == [1]

    run(main())


def test_the_host_has_its_turn_every_few_milliseconds(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(resident_place, *map(str, range(50)))
    clock = FakeTime()
    turns: list[float] = []

    async def main() -> None:
        async with resident_place.engine(Deal(released)) as engine:
            monkeypatch.setattr(scheduler_of(engine), "ticks", clock.ticks)
            checking = asyncio.create_task(engine.check())
            while not checking.done():
                turns.append(clock.now)
                await asyncio.sleep(0)
            assert counts(await checking) == {"safe": 50}

    run(main())
    assert max(b - a for a, b in itertools.pairwise(turns)) <= 0.0051
    assert clock.now > 0.1


class FakeTime:
    """Each look at the clock takes a millisecond."""

    now = 0.0

    def ticks(self) -> float:
        self.now += 0.001
        return self.now


def test_one_page_after_the_other_is_looked_at(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check, "_ROWS_PER_PAGE", 3)
    begin(resident_place, *map(str, range(10)))
    assert counts(check(resident_place, Deal(released))) == {"safe": 10}


def test_the_report_is_bounded_and_counts_the_rest(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check, "PROBLEMS_MAX", 5)
    monkeypatch.setattr(_check, "PROBLEMS_SHOWN", 3)
    ids = begin(resident_place, *map(str, range(9)))
    report = check(resident_place, Deal(renamed))
    assert counts(report) == {"diverges": 9}
    assert [problem.id for problem in report.problems] == ids[:5]
    assert str(report).count("diverges at entry 1") == 3
    assert str(report).endswith("\nand 6 further that diverge or fail")


def test_a_long_journal_is_replayed_in_slices(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(ctx: WorkflowContext) -> None:
        for number in range(100):
            await ctx.run(f"step {number}", work, "step")
        await ctx.promise("closed")

    clock = FakeTime()

    async def main() -> None:
        async with resident_place.engine(Deal(long)) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            monkeypatch.setattr(scheduler_of(engine), "ticks", clock.ticks)
            checking = asyncio.create_task(engine.check())
            turns = 0
            while not checking.done():
                turns += 1
                await asyncio.sleep(0)
            assert counts(await checking) == {"safe": 1}
            assert turns >= 20
            # What is beside it in memory is another instance.
            await engine.call(Deal.close, "done", key="k")
            await handle.result()

    run(main())


# -- misuse ---------------------------------------------------------------------------------------


def test_an_engine_that_is_not_open_or_closes_is_refused(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check, "_SLICE_S", 0.0)
    begin(resident_place, *"abcdef")

    async def main() -> None:
        engine = resident_place.engine(Deal(released))
        with pytest.raises(StoreClosed, match="the engine is not open"):
            await engine.check()
        async with engine:
            checking = asyncio.create_task(engine.check())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(StoreClosed, match="the engine is closed"):
            await checking
        with pytest.raises(StoreClosed):
            await engine.check()

    run(main())


def test_a_handler_can_not_check(resident_place: Place) -> None:
    async def main() -> None:
        async def act(ctx: WorkflowContext) -> None:
            await engine.check()

        engine = resident_place.engine(Deal(act))
        async with engine:
            with pytest.raises(InvalidInput, match="the engine was used outside the event loop"):
                await engine.submit(Deal.run, key="k")

    run(main())


def test_a_check_that_is_cancelled_leaves_all_as_it_was(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check, "_SLICE_S", 0.0)
    begin(resident_place, *"abc")

    async def main() -> None:
        async with resident_place.engine(Deal(released)) as engine:
            checking = asyncio.create_task(engine.check())
            for _ in range(4):
                await asyncio.sleep(0)
            checking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await checking
            assert counts(await engine.check()) == {"safe": 3}
            assert asyncio.get_running_loop() is asyncio.get_event_loop()

    run(main())


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_no_verdict(
    resident_place: Place, end: Callable[[], BaseException]
) -> None:
    begin(resident_place, "k")
    armed = [True]

    async def ends(ctx: WorkflowContext) -> Any:
        if armed:
            armed.clear()
            raise end()
        return await released(ctx)

    async def main() -> None:
        async with resident_place.engine(Deal(ends)) as engine:
            await engine.check()

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(main())


def test_a_problem_of_a_service_without_key_is_shown_without_one() -> None:
    problem = CheckedInvocation("inv_x", "Till", "", "pay", 3, Verdict.FAILS, "ValueError: no")
    assert str(problem) == "inv_x (Till.pay, version 3) fails: ValueError: no"


def test_calls_sends_and_promises_of_a_replay_go_nowhere(place: Place) -> None:
    class Desk(Service):
        @handler
        async def note(self, ctx: Context, text: str) -> str:
            STEPS.append(text)
            return text

    async def act(ctx: WorkflowContext) -> None:
        await ctx.call(Desk.note, "called")
        ctx.send(Desk.note, "sent", idempotency_key="once")
        await ctx.promise("noted", str).resolve("noted")
        await ctx.signal("never", str)

    async def main() -> None:
        async with place.engine(Deal(act), Desk()) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
            assert sorted(STEPS) == ["called", "sent"]
            store = scheduler_of(engine).store
            sealed = store.sealed
            assert counts(await engine.check()) == {"safe": 1}
            assert store.sealed == sealed
            await until_idle(engine)
            assert sorted(STEPS) == ["called", "sent"]

    STEPS.clear()
    run(main())
