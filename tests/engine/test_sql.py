"""What each table shows of an engine that has done a little of everything."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import cbor2
from engine_support import ManualClock, Place, quiet_log, run, until_idle, until_status
from sql_support import Order, Pair, Scale, column, row, rows

from perdure import Context, RetryPolicy, Service, Status, handler
from perdure._ids import format_id, parse_id
from perdure._viewing import View

DAY = timedelta(days=1)
SLOWLY = RetryPolicy(initial=3600, factor=1, max_interval=3600, max_attempts=5)


def test_an_invocation_that_waits_is_suspended(place: Place) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with place.engine(Order(), Scale(), clock=clock) as engine:
            order = await engine.send(Order.run, {"a": [1, None]}, key="k1", headers={"from": "x"})
            await until_idle(engine)
            found = await row(engine, f"SELECT * FROM sys_invocation WHERE id = '{order.id}'")
            size = found.pop("journal_size")
            assert found == {
                "id": order.id,
                "target": "Order/k1/run",
                "target_service_name": "Order",
                "target_service_key": "k1",
                "target_handler_name": "run",
                "version": 1,
                "status": "suspended",
                "created_at": "2023-11-14T22:13:20.000Z",
                "scheduled_start_at": None,
                "completed_at": None,
                "completion_result": None,
                "completion_failure": None,
                "result_utf8": None,
                "attempt": 1,
                "retry_count": 0,
                "next_retry_at": None,
                "last_failure": None,
                "idempotency_key": None,
                "invoked_by": "ingress",
                "invoked_by_id": None,
                "restarted_from": None,
                "completion_retention": 86400.0,
                "journal_retention": 86400.0,
                "headers": '{"from":"x"}',
                "argument_utf8": '{"a":[1,null]}',
            }
            assert size == (await engine.describe(order.id)).journal_length

    run(main())


def test_an_invocation_that_has_ended_shows_its_result_or_its_failure(place: Place) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with place.engine(Order(), Scale(), clock=clock) as engine:
            await engine.call(Scale.weigh, 7, idempotency_key="once")
            refused = await engine.send(Scale.refuse, "too heavy")
            await until_idle(engine)
            clock.advance(1)
            columns = "status, completed_at, completion_result, completion_failure, result_utf8"
            ended = await rows(
                engine,
                f"SELECT {columns} FROM sys_invocation WHERE idempotency_key = 'once' "
                f"OR id = '{refused.id}' ORDER BY created_at",
            )
            assert [list(each.values()) for each in ended] == [
                ["completed", "2023-11-14T22:13:20.000Z", "success", None, "70"],
                ["completed", "2023-11-14T22:13:20.000Z", "failure", "[418] too heavy", None],
            ]

    run(main())


def test_every_status_is_the_one_that_describe_gives_but_for_what_runs(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        pair = Pair()
        async with place.engine(Order(), Scale(), pair) as engine:
            paused = await engine.send(Scale.fail)
            await until_status(engine, paused, Status.PAUSED)
            expected = {
                (await engine.send(Order.run, {}, key="k")).id: "suspended",
                (await engine.send(Scale.weigh, 1)).id: "completed",
                (await engine.send(Scale.weigh, 1, delay=DAY)).id: "scheduled",
                paused.id: "paused",
            }
            holder = await engine.send(Pair.hold, key="p")
            await pair.holding.wait()
            expected[(await engine.send(Pair.move, 1, key="p")).id] = "pending"
            expected[(await engine.send(Pair.move, 2, key="p")).id] = "pending"
            for invocation_id, status in expected.items():
                await until_status(engine, invocation_id, Status(status))
            statuses = "SELECT id, status FROM sys_invocation"
            found = {each["id"]: each["status"] for each in await rows(engine, statuses)}
            assert found.items() >= expected.items()
            assert (await engine.describe(holder.id)).status is Status.RUNNING
            assert found[holder.id] == "ready"
            for status in Status:
                with_it = await column(
                    engine, f"SELECT id FROM sys_invocation WHERE status = '{status}'"
                )
                assert sorted(with_it) == sorted(key for key in found if found[key] == status)
            pair.let_go.set()

    run(main())


def test_failed_attempts_are_counted_and_the_next_is_told(resident_place: Place) -> None:
    quiet_log()

    async def main() -> None:
        clock = ManualClock()
        options = {"clock": clock, "default_retry": SLOWLY}
        async with resident_place.engine(Scale(), **options) as engine:
            for target in (Scale.fail, Scale.fail_in_a_step):
                failing = await engine.send(target)
                await until_status(engine, failing, Status.BACKING_OFF)
            found = await rows(
                engine,
                "SELECT attempt, retry_count, next_retry_at, last_failure FROM sys_invocation "
                "WHERE status = 'backing-off' ORDER BY id",
            )
            assert [(each["attempt"], each["retry_count"]) for each in found] == [(2, 1)] * 2
            assert "broken scale" in found[0]["last_failure"]
            assert "broken spring" in found[1]["last_failure"]
            timers = await rows(engine, "SELECT * FROM sys_timer ORDER BY id")
            assert [(each["kind"], each["attempts"]) for each in timers] == [
                ("attempt", 1),
                ("step", 1),
            ]
            for invocation, timer in zip(found, timers, strict=True):
                assert timer["fire_at"] == invocation["next_retry_at"]
                assert timer["last_failure"] == invocation["last_failure"]

    run(main())


def test_the_journal_has_the_entries_that_describe_shows(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(), Scale()) as engine:
            order = await engine.send(Order.run, {"a": 1}, key="k1")
            await until_idle(engine)
            found = await rows(engine, f"SELECT * FROM sys_journal WHERE id = '{order.id}'")
            shown = (await engine.describe(order.id)).journal
            assert [(e["index"], e["kind"], e["text"], e["answers"]) for e in found] == [
                (e.index, e.kind, e.text, e.answers) for e in shown
            ]
            assert [each["site"] or "" for each in found] == [each.site for each in shown]
            assert [each["name"] or "" for each in found] == [each.name for each in shown]
            times = [datetime.fromisoformat(each["appended_at"]) for each in found]
            assert times == [each.time for each in shown]
            for entry, each in zip(found, shown, strict=True):
                entry_json = json.loads(entry["entry_json"])
                assert ("value" in entry_json) == each.has_value
                assert entry_json.get("value") == each.value

    run(main())


def test_the_journal_tells_types_answers_and_targets_as_restate_does(place: Place) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with place.engine(Order(), Scale(), clock=clock) as engine:
            order = await engine.send(Order.run, {"a": 1}, key="k1")
            await until_idle(engine)
            found = await rows(engine, f"SELECT * FROM sys_journal WHERE id = '{order.id}'")
            types = [each["entry_type"].removeprefix("Command: ") for each in found]
            assert types == [
                *("Input", "SetState", "Run", "Notification: Run", "Call", "Notification: Call"),
                *("OneWayCall", "Sleep", "GetPromise"),
            ]
            assert [each["completed"] for each in found] == [None, 1, 1, None, 1, None, 1, 0, 0]
            call, send = found[4], found[6]
            assert call["invoked_target"] == send["invoked_target"] == "Scale.weigh"
            scheduled = await row(
                engine, f"SELECT * FROM sys_invocation WHERE id = '{send['invoked_id']}'"
            )
            assert scheduled["status"] == "scheduled"
            assert scheduled["scheduled_start_at"] == "2023-11-15T22:13:20.000Z"
            assert (scheduled["invoked_by"], scheduled["invoked_by_id"]) == ("service", order.id)
            assert found[7]["sleep_wakeup_at"] == "2023-11-16T22:13:20.000Z"
            assert found[8]["promise_name"] == "approval"
            assert cbor2.loads(found[1]["raw"]) == {"a": 1}
            assert found[1]["raw_length"] == len(found[1]["raw"])

    run(main())


def test_journals_come_one_after_the_other(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(), Scale()) as engine:
            ids = [(await engine.send(Order.run, {}, key=f"k{n}")).id for n in range(3)]
            await until_idle(engine)
            lengths = {each: (await engine.describe(each)).journal_length for each in ids}
            found = await rows(
                engine, 'SELECT id, count(*), max("index") FROM sys_journal GROUP BY id'
            )
            assert [list(each.values()) for each in found] == [
                [key, length, length - 1] for key, length in lengths.items()
            ]

    run(main())


def test_promises_are_completed_or_waited_for(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(), Scale()) as engine:
            for key in ("resolved", "rejected", "waits"):
                await engine.send(Order.run, {}, key=key)
            await engine.call(Order.approve, "bob", key="resolved")
            await engine.call(Order.refuse, "no way", key="rejected")
            await until_idle(engine)
            found = await rows(engine, "SELECT * FROM sys_promise ORDER BY service_key")
            assert {each["service_name"] for each in found} == {"Order"}
            assert {each["key"] for each in found} == {"approval"}
            assert [list(each.values())[1:] for each in found] == [
                ["rejected", "approval", 1, None, None, "[500] no way"],
                ["resolved", "approval", 1, '"bob"', cbor2.dumps("bob"), None],
                ["waits", "approval", 0, None, None, None],
            ]
            for each in found:
                where = f"service_name = 'Order' AND service_key = '{each['service_key']}'"
                assert await rows(engine, f"SELECT * FROM sys_promise WHERE {where}") == [each]

    run(main())


def test_the_inbox_has_who_waits_for_a_key_in_order_and_who_has_it(place: Place) -> None:
    async def main() -> None:
        pair = Pair()
        async with place.engine(pair) as engine:
            holder = await engine.send(Pair.hold, key="p")
            await pair.holding.wait()
            waiting = [(await engine.send(Pair.move, n, key="p")).id for n in range(3)]
            found = await rows(engine, "SELECT * FROM sys_inbox ORDER BY sequence_number")
            assert [each["id"] for each in found] == waiting
            assert {each["held_by"] for each in found} == {holder.id}
            assert {(each["service_name"], each["service_key"]) for each in found} == {
                ("Pair", "p")
            }
            created = await column(
                engine, "SELECT created_at FROM sys_invocation WHERE status = 'pending'"
            )
            assert [each["created_at"] for each in found] == created
            await engine.kill(holder.id)
            for each in waiting:
                await engine.kill(each)
            pair.let_go.set()

    run(main())


def test_timers_come_as_they_are_due(place: Place) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with place.engine(Order(), Scale(), clock=clock) as engine:
            later = await engine.send(Scale.weigh, 1, delay=DAY * 3)
            order = await engine.send(Order.run, {}, key="k")
            await until_idle(engine)
            found = await rows(engine, "SELECT * FROM sys_timer ORDER BY fire_at")
            assert [each["kind"] for each in found] == ["start", "timer", "start"]
            assert [each["id"] for each in found][1:] == [order.id, later.id]
            assert [each["fire_at"][:10] for each in found] == [
                "2023-11-15",
                "2023-11-16",
                "2023-11-17",
            ]
            early = "SELECT count(*) FROM sys_timer WHERE fire_at < '2023-11-16T22:13:20.000Z'"
            assert await column(engine, early) == [1]
            assert await column(engine, early.replace("<", "<=")) == [2]
            assert await column(engine, early.replace("<", ">=")) == [2]
            assert await column(engine, early.replace("<", ">")) == [1]

    run(main())


def test_state_is_shown_as_json_and_as_it_is_stored(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(), Scale(), Pair()) as engine:
            values: dict[str, Any] = {
                "text": "ä\0\n'",
                "none": None,
                "bytes": b"\xff",
                "long": "x" * 70_000,
                "huge": b"x" * 2_000_000,
            }
            await engine.set_state(Pair, "p", values)
            found = await rows(engine, "SELECT * FROM state ORDER BY key")
            shown = {each["key"]: each["value_utf8"] for each in found}
            assert shown == {
                "bytes": '"/w=="',
                "huge": None,
                "long": None,
                "none": "null",
                "text": json.dumps("ä\0\n'", ensure_ascii=False),
            }
            stored = {each["key"]: each["value"] for each in found}
            assert stored.pop("huge") is None
            assert {key: cbor2.loads(value) for key, value in stored.items()} == {
                key: value for key, value in values.items() if key != "huge"
            }
            lengths = {each["key"]: each["value_length"] for each in found}
            assert lengths == {key: len(cbor2.dumps(value)) for key, value in values.items()}

    run(main())


class Kept(Service, journal_retention=DAY):
    @handler
    async def two_steps(self, ctx: Context) -> int:
        scale = Scale()
        return await ctx.run("first", scale.weigh_once) + await ctx.run("second", scale.weigh_once)


def test_a_restarted_invocation_names_the_one_it_comes_from(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Kept()) as engine:
            old = await engine.send(Kept.two_steps)
            assert await old.result() == 2
            new = await engine.restart(old.id, from_entry=3)
            assert await new.result() == 2
            origins = "SELECT id, restarted_from, status FROM sys_invocation ORDER BY id"
            assert [list(each.values()) for each in await rows(engine, origins)] == [
                [old.id, None, "completed"],
                [new.id, old.id, "completed"],
            ]

    run(main())


def test_tables_are_joined(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(), Scale()) as engine:
            for number in range(5):
                await engine.send(Order.run, {"n": number}, key=f"k{number}")
            await until_idle(engine)
            found = await rows(
                engine,
                "SELECT i.target_service_key AS key, s.value_utf8 ->> 'n' AS n FROM sys_journal j "
                "JOIN sys_invocation i ON i.id = j.id JOIN state s "
                "ON s.service_name = i.target_service_name AND s.service_key = "
                "i.target_service_key WHERE j.promise_name = 'approval' AND NOT j.completed "
                "ORDER BY i.created_at DESC, n",
            )
            assert sorted(each["n"] for each in found) == list(range(5))
            assert all(each["key"] == f"k{each['n']}" for each in found)

    run(main())


def test_ids_of_queries_are_ids_of_verbs(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(), Scale()) as engine:
            await engine.send(Order.run, {}, key="k")
            (found,) = await column(
                engine, "SELECT id FROM sys_invocation WHERE target_handler_name = 'run'"
            )
            assert format_id(parse_id(found)) == found
            assert (await engine.describe(found)).key == "k"

    run(main())


def test_a_view_of_a_closed_directory_answers_as_the_engine_did(resident_place: Place) -> None:
    tables = ("sys_invocation", "sys_journal", "sys_promise", "sys_timer", "state")

    async def main() -> None:
        async with resident_place.engine(Order(), Scale()) as engine:
            await engine.send(Order.run, {}, key="k")
            await until_idle(engine)
            before = [await rows(engine, f"SELECT * FROM {table}") for table in tables]
        async with View(resident_place.path) as view:
            after = [await rows(view, f"SELECT * FROM {table}") for table in tables]
        assert after == before
        assert all(before)

    run(main())
