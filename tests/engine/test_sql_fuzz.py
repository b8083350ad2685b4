"""Random SQL: an answer or a refusal, never anything else; and the answer that real tables give."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import apsw
import pytest
from engine_support import ManualClock, quiet_log, scheduler_of, until_idle, until_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_support import Order, Pair, Scale

from perdure import Engine, QueryResult, RetryPolicy, Status, TerminalError
from perdure._sql._virtual import TABLES

HOURLY = RetryPolicy(initial=3600, factor=1, max_interval=3600, max_attempts=5)


@dataclass
class Asked:
    """An engine that stands still, and real tables with the same rows."""

    loop: asyncio.AbstractEventLoop
    engine: Engine
    real: apsw.Connection

    def query(self, sql: str, timeout_s: float = 0.5) -> QueryResult:
        return self.loop.run_until_complete(
            self.engine.query(sql, timeout_s=timeout_s, rows_max=500)
        )


async def fill(engine: Engine, pair: Pair, clock: ManualClock) -> None:
    for number in range(3):
        await engine.send(Order.run, {"n": number}, key=f"p{number}")
        await engine.call(Pair.begin, number, key=f"p{number}")
        clock.advance(1)
    await engine.call(Order.approve, "bob", key="p1")
    await engine.call(Order.refuse, "no", key="p2")
    await engine.call(Scale.weigh, 4, idempotency_key="p1")
    for handler in (Scale.fail, Scale.fail_in_a_step):
        await until_status(engine, await engine.send(handler), Status.BACKING_OFF)
    await until_idle(engine)
    await engine.send(Pair.hold, key="p0")
    await pair.holding.wait()
    for number in range(3):
        await engine.send(Pair.move, number, key="p0")


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    quiet_log()
    loop = asyncio.new_event_loop()
    clock, pair = ManualClock(), Pair()
    engine = Engine(
        "sql",
        [Order(), Scale(), pair],
        durability="memory",
        clock=clock,
        default_retry=HOURLY,
        drain_timeout=1.0,
    )
    loop.run_until_complete(engine.__aenter__())
    loop.run_until_complete(fill(engine, pair, clock))
    real = apsw.Connection(":memory:")
    for table in TABLES:
        real.execute(table.declaration.replace(" t(", f" {table.name}("))
        result = loop.run_until_complete(engine.query(f"SELECT * FROM {table.name}"))
        assert result.rows, table.name
        marks = ", ".join("?" * len(result.columns))
        real.executemany(f"INSERT INTO {table.name} VALUES ({marks})", result.rows)
    yield Asked(loop, engine, real)
    pair.let_go.set()
    loop.run_until_complete(engine.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


# ---- queries that fit the tables -----------------------------------------------------------------

COLUMNS = {table.name: [column.name for column in table.columns] for table in TABLES}
OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT", "LIKE", "GLOB"]
COLLATIONS = ["", "", "", " COLLATE NOCASE", " COLLATE RTRIM", " COLLATE BINARY"]


@functools.cache
def values_of(real: apsw.Connection, table: str, column: str) -> list[str]:
    """Literals of what a column has."""
    values = f'SELECT "{column}" AS v FROM {table}'
    found = real.execute(
        f"SELECT DISTINCT quote(v) FROM ({values} UNION SELECT upper(v) FROM ({values}) "
        "WHERE typeof(v) = 'text') LIMIT 60"
    ).fetchall()
    return [str(value) for (value,) in found]


def columns(table: str) -> st.SearchStrategy[str]:
    """A column: often one that leads to few rows, or in whose order they come."""
    fast = {"id", "status", "service_name", "service_key", "created_at", "fire_at"}
    return st.sampled_from([name for name in COLUMNS[table] if name in fast]) | st.sampled_from(
        COLUMNS[table]
    )


@st.composite
def conditions(draw: st.DrawFn, real: apsw.Connection, tables: list[str]) -> str:
    table = draw(st.sampled_from(tables))
    column = draw(columns(table))
    literals = st.sampled_from(
        [*values_of(real, table, column), "NULL", "1", "'p1'", "'P1'", "x'70'", "1.5", "''"]
    )
    name = f'{table}."{column}"' + draw(st.sampled_from(COLLATIONS))
    match draw(st.integers(0, 8)):
        case 0:
            chosen = draw(st.lists(literals, min_size=1, max_size=3))
            return f"{name} IN ({', '.join(chosen)})"
        case 1:
            return f"{name} BETWEEN {draw(literals)} AND {draw(literals)}"
        case 2:
            other = draw(st.sampled_from(tables))
            their = draw(st.sampled_from(COLUMNS[other]))
            return f'{name} = {other}."{their}"'
        case 3:
            inner = " OR ".join(draw(st.lists(conditions(real, tables), min_size=2, max_size=2)))
            return f"{draw(st.sampled_from(['', 'NOT ']))}({inner})"
        case 4 | 5 | 6:
            chosen = draw(st.lists(columns(table), min_size=1, max_size=4, unique=True))
            quoted = ", ".join(f'quote("{each}")' for each in chosen)
            row = draw(st.sampled_from(real.execute(f"SELECT {quoted} FROM {table}").fetchall()))
            change = draw(st.sampled_from(["{}", "{}", "upper({})"]))
            return " AND ".join(
                f'{table}."{each}" = {change.format(value)}{draw(st.sampled_from(COLLATIONS))}'
                for each, value in zip(chosen, row, strict=True)
            )
        case _:
            return f"{name} {draw(st.sampled_from(OPERATORS))} {draw(literals)}"


@st.composite
def queries(draw: st.DrawFn, real: apsw.Connection) -> tuple[str, bool]:
    """A query, and whether its rows come in an order that it fixes."""
    tables = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=2, unique=True))
    names = st.sampled_from(tables).flatmap(
        lambda table: columns(table).map(lambda column: f'{table}."{column}"')
    )
    shown = draw(st.lists(names, min_size=1, max_size=4) | st.lists(names, min_size=1, max_size=1))
    joined = draw(st.sampled_from([", ", " JOIN ", " LEFT JOIN "])).join(tables)
    if len(tables) == 2 and "JOIN" in joined:
        joined += f" ON {draw(conditions(real, tables))}"
    wanted = draw(st.lists(conditions(real, tables), max_size=2))
    sql = f"SELECT {draw(st.sampled_from(['', 'DISTINCT ']))}{', '.join(shown)} FROM {joined}"
    if wanted:
        sql += f" WHERE {' AND '.join(wanted)}"
    order = draw(st.sampled_from(["", *shown]))
    if order:
        sql += f" ORDER BY {order}{draw(st.sampled_from(['', ' DESC']))}"
    # Rows that are equal are so in any order.
    return sql, len(set(shown)) == 1 and bool(order)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_tables_answer_as_real_ones_with_the_same_rows_do(
    asked: Asked, data: st.DataObject
) -> None:
    sql, ordered = data.draw(queries(asked.real))
    found = asked.query(sql, timeout_s=10)
    expected = asked.real.execute(sql).fetchall()
    if ordered:
        assert found.rows == expected[:500]
    elif len(expected) <= 500:
        assert sorted(found.rows, key=repr) == sorted(expected, key=repr)
    assert found.truncated == (len(expected) > 500)


# ---- anything ------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("SELECT", "FROM", "WHERE", "ORDER BY", "GROUP BY", "LIMIT", "JOIN", "ON", "AS", "WITH"),
        *("RECURSIVE", "UNION ALL", "EXCEPT", "VALUES", "INSERT INTO", "DELETE FROM", "UPDATE"),
        *("SET", "DROP TABLE", "CREATE TABLE", "PRAGMA", "ATTACH", "EXPLAIN", "BEGIN", "(", ")"),
        *(",", ";", "*", "=", "<", "'a'", "x'ff'", "1", "-1e400", "NULL", "?", ":a", "--", "/*"),
        *(
            "count(*)",
            "randomblob(1e9)",
            "zeroblob(9)",
            "group_concat(id)",
            "json_each(entry_json)",
        ),
        *("printf('%*d', 1e9, 1)", "cast(x'ff' AS TEXT)", "rowid", "sqlite_master", "fts5"),
        *COLUMNS,
        *{column for columns in COLUMNS.values() for column in columns},
    ]
)
TEXTS = st.text(max_size=60) | st.lists(WORDS, max_size=15).map(" ".join)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sql=TEXTS | TEXTS.map("SELECT {} ".format) | TEXTS.map("SELECT * FROM state {}".format))
def test_any_text_is_answered_or_refused_and_changes_nothing(asked: Asked, sql: str) -> None:
    store = scheduler_of(asked.engine).store
    before = store.sealed
    with contextlib.suppress(TerminalError):
        result = asked.query(sql)
        assert all(len(row) == len(result.columns) for row in result.rows)
    assert store.sealed == before
    assert asked.query("SELECT count(*) FROM sys_inbox").rows == [(3,)]
