"""A query only reads, shows one moment, and ends: by itself, by its limits, or by whoever asked."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run, scheduler_of, until, until_idle
from introspection_support import LOOP_TURN_MAX_S, longest_turn_s
from sql_support import Order, Pair, Scale, column, refusal, rows

from perdure import Engine, InvalidInput, StoreClosed, TerminalError
from perdure._sql import _running

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c"
TABLES = ("sys_invocation", "sys_journal", "sys_promise", "sys_inbox", "sys_timer", "state")


def query_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "perdure-query"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    for thread in query_threads():
        thread.join(max(0.0, deadline - time.monotonic()))
    assert query_threads() == []


# ---- reading only --------------------------------------------------------------------------------

WRITES = [
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in TABLES),
    *(f"DELETE FROM {table}" for table in TABLES),
    "UPDATE state SET value_utf8 = '1'",
    "UPDATE sys_invocation SET status = 'completed'",
    "REPLACE INTO state (key) VALUES ('a')",
    "CREATE TABLE mine (a)",
    "CREATE TEMP TABLE mine (a)",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE TRIGGER mine AFTER INSERT ON state BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE mine USING fts5(a)",
    "DROP TABLE state",
    "ALTER TABLE state RENAME TO other",
    "ATTACH '{path}' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{path}'",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA writable_schema = 1",
    "PRAGMA temp_store_directory = '{path}'",
    "SELECT * FROM pragma_database_list",
    "ANALYZE",
    "REINDEX",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT a",
    "EXPLAIN INSERT INTO state DEFAULT VALUES",
    "WITH a AS (SELECT 1) DELETE FROM state",
    "SELECT load_extension('{path}')",
    "SELECT writefile('{path}', 'a')",
    "SELECT readfile('/etc/hostname')",
    "SELECT fts3_tokenizer('simple', x'0000000000000000')",
]


def test_what_does_not_only_read_is_refused(resident_place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "written"
        async with resident_place.engine(Order(), Scale()) as engine:
            await engine.send(Order.run, {}, key="k")
            await until_idle(engine)
            sealed = scheduler_of(engine).store.sealed
            before = [await rows(engine, f"SELECT * FROM {table}") for table in TABLES]
            for statement in WRITES:
                assert (await refusal(engine, statement.format(path=file))).startswith("SQL: ")
            assert [await rows(engine, f"SELECT * FROM {table}") for table in TABLES] == before
            assert scheduler_of(engine).store.sealed == sealed
        assert not file.exists()

    run(main())


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("selec 1", 'near "selec": syntax error'),
        ("SELECT nope FROM state", "no such column: nope; there are the tables sys_invocation,"),
        ("SELECT * FROM nope", "no such table: nope; there are the tables sys_invocation,"),
        ("SELECT 1; SELECT 2", "a query is one statement"),
        ("SELECT 1; DROP TABLE state", "only reads"),
        (ENDLESS.format("x") + "; SELECT 2", "a query is one statement"),
        (ENDLESS.format("x") + "; DROP TABLE state", "only reads"),
        ("", "there is no statement"),
        ("-- nothing", "there is no statement"),
        ("SELECT ?", "bindings"),
        ("SELECT cast(x'ff' AS TEXT)", "utf-8"),
        ("SELECT '\ud800'", "surrogates"),
        ("SELECT 1\0", "zero"),
        ("SELECT zeroblob(1000000000)", "too big"),
        ("SELECT " + "1+" * 200 + "1", "depth"),
        ("SELECT " + "1," * 300 + "1", "too many columns"),
        ("SELECT " + " " * 100_000 + "1", "too large|too big|long"),
    ],
)
def test_bad_sql_is_told_in_the_words_of_sqlite(resident_place: Place, sql: str, why: str) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            with pytest.raises(InvalidInput, match=why):
                await engine.query(sql, rows_max=3)

    run(main())


@pytest.mark.parametrize(
    "sql", ["SELECT 1 AS a;", "SELECT 1 AS a; -- done", "/* a */ SELECT 1 AS a;;"]
)
def test_what_follows_the_statement_may_be_nothing(resident_place: Place, sql: str) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            assert await rows(engine, sql) == [{"a": 1}]

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout_s": 0}, {"timeout_s": True}, {"timeout_s": float("nan")}, {"timeout_s": "1"}),
        *({"rows_max": 0}, {"rows_max": 1.0}),
    ],
)
def test_limits_out_of_their_range_are_refused(
    resident_place: Place, options: dict[str, Any]
) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            with pytest.raises(InvalidInput, match="must be"):
                await engine.query("SELECT 1", **options)

    run(main())


# ---- one moment ----------------------------------------------------------------------------------


def test_a_query_shows_what_was_acknowledged_before_it(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Pair()) as engine:
            for number in range(50):
                await engine.call(Pair.begin, number, key="p")
                shown = await column(engine, "SELECT value_utf8 FROM state WHERE key = 'left'")
                assert shown == [str(number)]

    run(main())


def test_all_of_a_query_is_of_one_moment_while_a_writer_is_busy(place: Place) -> None:
    joined = (
        "SELECT (SELECT sum(value_utf8) FROM state), (SELECT count(*) FROM state), "
        "(SELECT value_utf8 FROM state WHERE service_key = 'p0' AND key = 'left')"
    )

    async def main() -> None:
        async with place.engine(Pair()) as engine:
            for number in range(4):
                await engine.call(Pair.begin, 100, key=f"p{number}")
            busy = True

            async def move(key: str) -> None:
                while busy:
                    await engine.call(Pair.move, 1, key=key)

            movers = [asyncio.create_task(move(f"p{number}")) for number in range(4)]
            seen = set()
            for _ in range(40):
                ((total, count, left),) = (await engine.query(joined)).rows
                assert (total, count) == (400, 8)
                seen.add(left)
            busy = False
            await asyncio.gather(*movers)
            assert len(seen) > 5

    run(main())


def test_a_file_that_grows_is_read_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "data", [Pair()], durability="os", map_size=1 << 20) as engine:
            await engine.call(Pair.begin, 100, key="p")

            async def grow() -> None:
                for number in range(60):
                    await engine.set_state(Pair, f"big{number}", {"a": bytes(300_000)})
                    await asyncio.sleep(0)

            growing = asyncio.create_task(grow())
            while not growing.done():
                ((left, size),) = (
                    await engine.query(
                        "SELECT max(value_utf8), sum(length(key)) FROM state "
                        "WHERE service_key = 'p' OR key = 'a'"
                    )
                ).rows
                assert size >= 9
                assert left is not None
            await growing

    run(main())


# ---- limits --------------------------------------------------------------------------------------


def test_more_rows_than_asked_for_are_cut_and_said_to_be(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            cut = await engine.query("VALUES (1), (2), (3)", rows_max=2)
            assert (cut.rows, cut.truncated) == ([(1,), (2,)], True)
            whole = await engine.query("VALUES (1), (2), (3)", rows_max=3)
            assert (whole.rows, whole.truncated) == ([(1,), (2,), (3,)], False)
            assert (await engine.query(ENDLESS.format("x"), rows_max=2)).truncated
            none = await engine.query("SELECT key, value FROM state")
            assert (none.columns, none.rows, none.truncated) == (["key", "value"], [], False)

    run(main())


def test_a_result_that_grows_large_is_cut(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_running, "RESULT_BYTES_MAX", 100_000)

    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            cut = await engine.query(ENDLESS.format("randomblob(60000)"))
            assert (len(cut.rows), cut.truncated) == (2, True)

    run(main())


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS.format("count(*)"),  # SQLite alone
        "SELECT count(*) FROM state a, state b, state c, state d, state e",  # rows of the store
        # One call of a function, which nothing interrupts.
        "SELECT instr(zeroblob(600000), zeroblob(300000) || x'01')",
    ],
)
def test_a_query_that_takes_too_long_is_ended(resident_place: Place, sql: str) -> None:
    async def main() -> None:
        async with resident_place.engine(Pair()) as engine:
            await engine.set_state(Pair, "p", {str(n): n for n in range(100)})
            before = time.monotonic()
            with pytest.raises(TerminalError, match=r"longer than 0\.2 s") as raised:
                await engine.query(sql, timeout_s=0.2)
            assert raised.value.code == 408
            assert time.monotonic() - before < 10
            assert await column(engine, "SELECT count(*) FROM state") == [100]

    run(main())


def test_memory_is_limited(resident_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_running, "MEMORY_BYTES_MAX", 20 << 20)
    big = f"SELECT count(*) FROM ({ENDLESS.format('randomblob(100000) AS b')} ORDER BY b)"

    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            with pytest.raises(TerminalError, match="more than 20 MiB") as raised:
                await engine.query(big)
            assert raised.value.code == 413

    run(main())


def test_a_cancelled_query_ends_and_its_thread_with_it(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            asked = asyncio.create_task(engine.query(ENDLESS.format("count(*)"), timeout_s=60))
            await until(lambda: bool(query_threads()))
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            await until(lambda: not query_threads(), "the end of the thread")

    run(main())


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS.format("count(*)"),
        "SELECT count(*) FROM state a, state b, state c, state d, state e",
    ],
)
def test_the_close_of_the_engine_ends_its_queries(resident_place: Place, sql: str) -> None:
    async def main() -> None:
        async with resident_place.engine(Pair()) as engine:
            await engine.set_state(Pair, "p", {str(n): n for n in range(100)})
            asked = asyncio.create_task(engine.query(sql, timeout_s=60))
            await until(lambda: bool(query_threads()))
        with pytest.raises(StoreClosed):
            await asked
        with pytest.raises(StoreClosed):
            await engine.query("SELECT 1")

    run(main())


def test_more_queries_than_turns_wait_for_theirs_within_their_time(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            endless = [
                asyncio.create_task(engine.query(ENDLESS.format("count(*)"), timeout_s=60))
                for _ in range(2)
            ]
            await until(lambda: len(query_threads()) == 2)
            with pytest.raises(TerminalError, match=r"longer than 0\.05 s"):
                await engine.query("SELECT 1", timeout_s=0.05)
            waiting = asyncio.create_task(engine.query("SELECT 1"))
            endless[0].cancel()
            assert (await waiting).rows == [(1,)]
            endless[1].cancel()
            await asyncio.gather(*endless, return_exceptions=True)

    run(main())


def test_the_loop_has_its_turns_during_a_scan(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Pair()) as engine:
            for key in range(20):
                await engine.set_state(Pair, f"p{key}", {str(n): n for n in range(500)})
            _, longest, turns = await longest_turn_s(
                engine.query("SELECT max(value_utf8), max(service_key) FROM state")
            )
            assert longest < LOOP_TURN_MAX_S
            assert turns > 10

    run(main())


def test_without_apsw_the_error_says_what_to_install(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apsw", None)

    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            with pytest.raises(ImportError, match=r"pip install perdure\[server\]"):
                await engine.query("SELECT 1")

    run(main())
