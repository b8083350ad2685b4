"""Listings of invocations: filters, pages, cursors, and what reading them costs."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    run,
    scheduler_of,
    until_idle,
    until_status,
)
from introspection_support import LOOP_TURN_MAX_S, Counter, Echo, Gate, longest_turn_s

from perdure import (
    Engine,
    InvalidInput,
    InvocationFilter,
    InvocationSummary,
    RetryPolicy,
    Status,
)
from perdure._runtime import _listing
from perdure._store import Db

MANY = 5_000
NO_RETRY = RetryPolicy(max_attempts=1)


async def all_of(engine: Engine, wanted: InvocationFilter | None = None) -> list[InvocationSummary]:
    return [each async for each in engine.all_invocations(wanted)]


async def send_many(engine: Engine, count: int) -> list[str]:
    handles = await asyncio.gather(*[engine.send(Echo.say, number) for number in range(count)])
    await until_idle(engine)
    return sorted(handle.id for handle in handles)


class Reads:
    """Counts the keys that listings read, by database, and the most at a time."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: dict[Db, int] = {}
        self.most = 0
        store = scheduler_of(engine).store
        scan = store.keys_committed

        def counted(db: Db, *args: Any, **options: Any) -> list[bytes]:
            found = scan(db, *args, **options)
            self.keys[db] = self.keys.get(db, 0) + len(found)
            self.most = max(self.most, len(found))
            return found

        monkeypatch.setattr(store, "keys_committed", counted)


def test_each_line_of_a_listing_says_what_the_invocation_is_and_where_it_stands(
    place: Place,
) -> None:
    clock = ManualClock()
    began = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    quiet_log()

    async def main() -> None:
        async with place.engine(Gate(), Echo(), clock=clock) as engine:
            waits = await engine.send(Gate.run, 1, key="k")
            clock.advance(1)
            said = await engine.send(Echo.say, 7)
            await until_idle(engine)
            clock.advance(1)
            failing = await engine.send(Echo.fail)
            for _ in range(2):
                await until_idle(engine)
                clock.advance(1)
            await until_status(engine, failing, Status.PAUSED)
            first, second, third = await all_of(engine)
            assert first == InvocationSummary(
                id=waits.id,
                service="Gate",
                key="k",
                handler="run",
                version=1,
                status=Status.SUSPENDED,
                created_at=began,
                completed_at=None,
                attempt=1,
                last_failure=None,
            )
            assert (second.id, second.status) == (said.id, Status.COMPLETED)
            assert second.created_at == second.completed_at == began + timedelta(seconds=1)
            assert (third.id, third.status) == (failing.id, Status.PAUSED)
            assert (third.attempt, third.last_failure) == (4, "ValueError: broken")

    run(main())


def test_pages_of_thousands_have_each_invocation_once_in_the_order_of_acceptance(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with place.engine(Echo()) as engine:
            sent = await send_many(engine, MANY)
            reads = Reads(engine, monkeypatch)
            listed: list[str] = []
            sizes: list[int] = []
            cursor: str | None = None
            while True:
                page = await engine.invocations(limit=1_500, cursor=cursor)
                listed += [each.id for each in page.items]
                sizes.append(len(page.items))
                cursor = page.cursor
                if cursor is None:
                    break
            assert listed == sent
            assert sizes == [1_500, 1_500, 1_500, 500]
            assert reads.most <= 257
            reads.keys.clear()
            assert len((await engine.invocations(limit=10)).items) == 10
            assert reads.keys == {Db.INVOCATIONS: 257}

    run(main())


def test_iterating_over_thousands_holds_few_and_gives_the_loop_its_turns(place: Place) -> None:
    async def count(engine: Engine) -> int:
        seen = 0
        async for _ in engine.all_invocations():
            seen += 1
        return seen

    async def main() -> None:
        async with place.engine(Echo()) as engine:
            await send_many(engine, MANY)
            tracemalloc.start()
            assert await count(engine) == MANY
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 1_000_000
            seen, longest, turns = await longest_turn_s(count(engine))
            assert seen == MANY
            assert turns > MANY // 300
            assert longest < LOOP_TURN_MAX_S
            page, longest, turns = await longest_turn_s(engine.invocations(limit=MANY))
            assert (len(page.items), page.cursor) == (MANY, None)
            assert turns > 5
            assert longest < LOOP_TURN_MAX_S

    run(main())


def test_a_sparse_filter_ends_its_page_after_a_number_of_rows_and_the_cursor_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listing, "ROWS_LOOKED_AT_MAX", 300)

    async def main() -> None:
        async with place.engine(Echo(), Gate()) as engine:
            first = await engine.send(Gate.run, 1, key="a")
            await send_many(engine, 700)
            last = await engine.send(Gate.run, 1, key="b")
            await until_idle(engine)
            reads = Reads(engine, monkeypatch)
            wanted = InvocationFilter(service=Gate)
            page = await engine.invocations(wanted)
            assert [each.id for each in page.items] == [first.id]
            assert reads.keys[Db.INVOCATIONS] <= 302
            page = await engine.invocations(wanted, cursor=page.cursor)
            assert page.items == []
            page = await engine.invocations(wanted, cursor=page.cursor)
            assert [each.id for each in page.items] == [last.id]
            assert page.cursor is None
            assert [each.id for each in await all_of(engine, wanted)] == [first.id, last.id]

    run(main())


def test_a_filter_on_service_handler_key_and_status_lists_what_fits_all_of_it(
    place: Place,
) -> None:
    async def main() -> None:
        async with place.engine(Gate(), Echo()) as engine:
            runs = {key: (await engine.send(Gate.run, 1, key=key)).id for key in "abc"}
            await until_idle(engine)
            watches = (await engine.send(Gate.watch, key="a")).id
            said = (await engine.send(Echo.say, 1)).id
            await engine.call(Gate.go, 1, key="c")
            await until_idle(engine)

            async def listed(**given: Any) -> list[str]:
                return [each.id for each in await all_of(engine, InvocationFilter(**given))]

            unfinished = [runs["a"], runs["b"], watches]
            assert await listed() == [*runs.values(), watches, said]
            assert await listed(service=Gate) == await listed(service="Gate")
            assert await listed(service="Gate") == [*runs.values(), watches]
            assert await listed(handler=Gate.watch) == [watches]
            assert await listed(handler="Gate.watch") == [watches]
            assert await listed(handler="say") == [said]
            assert await listed(key="a") == [runs["a"], watches]
            assert await listed(key="") == [said]
            assert await listed(status="suspended") == unfinished
            assert await listed(status=[Status.SUSPENDED]) == unfinished
            assert await listed(status=Status.COMPLETED) == [runs["c"], said]
            assert await listed(status={"completed", "suspended"}, key="a") == [runs["a"], watches]
            assert await listed(service=Gate, handler="say") == []
            assert await listed(service="Unknown") == []

    run(main())


def test_a_filter_on_times_is_of_acceptance_from_the_first_up_to_without_the_second(
    place: Place,
) -> None:
    clock = ManualClock()
    began = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)

    async def main() -> None:
        async with place.engine(Gate(), clock=clock) as engine:
            ids = []
            for key in "abcd":
                ids.append((await engine.send(Gate.run, 1, key=key)).id)
                clock.advance(10)
            await until_idle(engine)

            async def listed(**given: Any) -> list[str]:
                return [each.id for each in await all_of(engine, InvocationFilter(**given))]

            at = [began + timedelta(seconds=10 * number) for number in range(5)]
            ms = timedelta(milliseconds=1)
            assert await listed(created_after=at[1]) == ids[1:]
            assert await listed(created_after=at[1] + ms) == ids[2:]
            assert await listed(created_before=at[1]) == ids[:1]
            assert await listed(created_before=at[1] + timedelta(microseconds=1)) == ids[:2]
            assert await listed(created_after=at[1], created_before=at[3]) == ids[1:3]
            assert await listed(created_after=at[3], created_before=at[1]) == []
            assert await listed(older_than=timedelta(seconds=20)) == ids[:3]
            assert await listed(older_than=20.001) == ids[:2]
            assert await listed(older_than=0) == ids
            assert await listed(older_than=timedelta.max) == []
            assert await listed(created_after=datetime(1960, 1, 1, tzinfo=UTC)) == ids
            assert await listed(created_after=datetime.max.replace(tzinfo=UTC)) == []
            assert await listed(created_before=datetime.max.replace(tzinfo=UTC)) == ids
            zone = datetime.fromisoformat("2023-11-15T00:00:00+02:00")
            assert await listed(created_before=zone) == []

    run(main())


def test_a_status_with_a_database_of_its_own_is_listed_from_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_log()

    async def main() -> None:
        async with place.engine(Echo(), Gate(), Counter(), default_retry=NO_RETRY) as engine:
            await send_many(engine, 50)
            failing = [await engine.send(Echo.fail) for _ in range(2)]
            for each in failing:
                await until_status(engine, each, Status.PAUSED)
            await until_idle(engine)
            reads = Reads(engine, monkeypatch)
            paused = await all_of(engine, InvocationFilter(status=Status.PAUSED))
            assert [each.id for each in paused] == [each.id for each in failing]
            assert reads.keys == {Db.PAUSED: 2}
            reads.keys.clear()
            completed = await all_of(engine, InvocationFilter(status="completed"))
            assert len(completed) == 50
            assert reads.keys == {Db.OUTPUTS: 50}
            reads.keys.clear()
            assert await all_of(engine, InvocationFilter(status=["ready", "running"])) == []
            assert reads.keys == {Db.READY: 0}

    run(main())


def test_an_invocation_whose_step_runs_is_listed_as_running(place: Place) -> None:
    async def main() -> None:
        counter = Counter()
        async with place.engine(counter) as engine:
            held = await engine.send(Counter.hold, key="k")
            await counter.holding.wait()
            running = await all_of(engine, InvocationFilter(status="running"))
            assert [(each.id, each.status) for each in running] == [(held.id, Status.RUNNING)]
            assert await all_of(engine, InvocationFilter(status="ready")) == []
            counter.let_go.set()
            await until_status(engine, held, Status.COMPLETED)

    run(main())


def test_a_listing_is_not_divided_by_what_is_removed_between_its_pages(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            for key in "abcd":
                await engine.send(Gate.run, 1, key=key)
            watches = await engine.send(Gate.watch, key="a")
            await until_idle(engine)
            page = await engine.invocations(limit=2)
            for key in "abcd":
                await engine.call(Gate.go, 1, key=key)
            await until_status(engine, watches, Status.COMPLETED)
            rest = await engine.invocations(limit=10, cursor=page.cursor)
            assert [each.key for each in page.items + rest.items] == ["a", "b", "c", "d", "a"]
            assert {each.status for each in rest.items} == {Status.COMPLETED}

    run(main())


def test_a_listing_goes_on_in_another_process_of_the_directory(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            for key in "abc":
                await engine.send(Gate.run, 1, key=key)
            cursor = (await engine.invocations(limit=1)).cursor
        async with place.engine(Gate()) as engine:
            page = await engine.invocations(cursor=cursor)
            assert [each.key for each in page.items] == ["b", "c"]

    run(main())


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"service": 7}, "given as its class or by name, not as 7"),
        ({"service": ""}, "given as its class or by name, not as ''"),
        ({"service": int}, "is not a service; subclass"),
        ({"handler": 7}, "7 is not a handler"),
        ({"handler": ""}, "names no handler"),
        ({"handler": ".run"}, "names no handler"),
        ({"handler": Gate.run, "service": "Echo"}, "Gate.run is no handler of service 'Echo'"),
        ({"key": 7}, "filter: key: expected `str`, got `int`"),
        ({"key": "x" * 257}, "the limit is 256"),
        ({"status": "asleep"}, "'asleep' is no status; there are scheduled, pending, ready"),
        ({"status": 7}, "7 is no status"),
        ({"status": ["paused", None]}, "None is no status"),
        ({"status": []}, "status is empty, which nothing matches"),
        ({"older_than": -1}, "older_than must be a timedelta or seconds, 0 or more, not -1"),
        ({"older_than": True}, "older_than must be"),
        ({"older_than": float("nan")}, "older_than must be"),
        ({"older_than": "1 day"}, "older_than must be"),
        ({"older_than": 1e300}, "is too long"),
        (
            {"created_before": datetime.fromisoformat("2026-01-01")},
            "created_before must be a datetime with",
        ),
        ({"created_after": "2026-01-01"}, "created_after must be a datetime with a time zone"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_where_it_is_made(
    given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        InvocationFilter(**given)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("limit", [0, -1, 10_001, 1.5, True, "10", None])
def test_a_limit_out_of_its_range_is_refused(resident_place: Place, limit: Any) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()) as engine:
            with pytest.raises(InvalidInput, match="limit must be an int from 1 to 10,000"):
                await engine.invocations(limit=limit)

    run(main())


def test_what_is_no_filter_is_refused(resident_place: Place) -> None:
    bad: Any = {"status": "paused"}

    async def main() -> None:
        async with resident_place.engine(Echo()) as engine:
            with pytest.raises(InvalidInput, match="filter must be an InvocationFilter"):
                await engine.invocations(bad)
            with pytest.raises(InvalidInput, match="filter must be an InvocationFilter"):
                await all_of(engine, bad)

    run(main())


def test_a_bad_cursor_is_refused(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            for key in "abc":
                await engine.send(Gate.run, 1, key=key)
            cursor = (await engine.invocations(limit=1)).cursor
            assert cursor is not None
            bad: list[Any] = ["", "x", cursor[:-1], cursor + "A", "!" * 27, 7]
            bad += ["é" * 27, cursor.encode(), "A" * 26 + "B"]
            for each in bad:
                with pytest.raises(InvalidInput, match="is no cursor; give what the page before"):
                    await engine.invocations(cursor=each)
            with pytest.raises(InvalidInput, match="is of a listing with another filter"):
                await engine.invocations(InvocationFilter(key="a"), cursor=cursor)
            later = InvocationFilter(created_after=datetime(2100, 1, 1, tzinfo=UTC))
            forged = _listing.make_cursor(later.wanted, bytes(16))
            assert (await engine.invocations(later, cursor=forged)).items == []

    run(main())
