"""What a query says of its rows leads to them: how many are read, and that none is missed."""

from __future__ import annotations

from typing import Any

import pytest
from engine_support import ManualClock, Place, run, until_idle
from sql_support import Order, Pair, Scale, column, rows

from perdure._store import CommittedSnapshot
from perdure._store._committed import CommittedReads


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each page had that a table has read."""
    pages: list[int] = []

    def counting(read: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            page = read(*arguments, **options)
            pages.append(len(page) if isinstance(page, list) else page is not None)
            return page

        return counted

    for name in ("scan_committed", "keys_committed", "journal", "get_committed"):
        monkeypatch.setattr(CommittedSnapshot, name, counting(getattr(CommittedReads, name)))
    return pages


@pytest.mark.parametrize(
    ("where", "plan"),
    [
        ("sys_invocation WHERE id = 'a'", "id="),
        ("sys_invocation WHERE id IN ('a', 'b')", "id="),
        ("sys_invocation WHERE status = 'paused'", "status="),
        ("sys_invocation WHERE created_at >= '2026' AND created_at < '2027'", "from until"),
        ("sys_journal WHERE id = 'a' AND \"index\" > 3", "id="),
        ("state WHERE service_name = 'a' AND service_key = 'b'", "service_name= service_key="),
        ("state WHERE service_name = 'a' AND key = 'b'", "service_name="),
        ("state WHERE service_key = 'b'", ""),
        ("state WHERE service_name = 'a' COLLATE NOCASE", ""),
        (
            "sys_promise WHERE service_name = 'a' AND service_key = 'b'",
            "service_name= service_key=",
        ),
        ("sys_inbox WHERE service_name = 'a' AND service_key = 'b'", "service_name= service_key="),
        ("sys_timer WHERE fire_at BETWEEN 'a' AND 'b'", "from until"),
    ],
)
def test_the_plan_makes_use_of_what_leads_to_few_rows(
    resident_place: Place, where: str, plan: str
) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            (step,) = await rows(engine, f"EXPLAIN QUERY PLAN SELECT * FROM {where}")
            assert step["detail"].partition("INDEX ")[2].partition(":")[2] == plan

    run(main())


@pytest.mark.parametrize(
    ("sql", "most"),
    [
        ("SELECT * FROM sys_journal WHERE id = '{id}'", 30),
        ("SELECT * FROM sys_invocation WHERE id = '{id}'", 10),
        ("SELECT * FROM sys_invocation WHERE status = 'paused'", 3),
        ("SELECT * FROM sys_invocation WHERE status = 'nonsense'", 0),
        ("SELECT * FROM sys_invocation WHERE created_at > '2100-01-01T00:00:00.000Z'", 0),
        ("SELECT * FROM state WHERE service_name = 'Pair' AND service_key = 'p3'", 3),
        ("SELECT * FROM state WHERE service_name = 'Nobody'", 0),
        ("SELECT * FROM sys_promise WHERE service_name = 'Order' AND service_key = 'p3'", 4),
        ("SELECT * FROM sys_timer WHERE fire_at < '2001-01-01T00:00:00.000Z'", 0),
    ],
)
def test_what_leads_to_few_rows_reads_no_others(
    resident_place: Place, rows_read: list[int], sql: str, most: int
) -> None:
    async def main() -> None:
        async with resident_place.engine(Order(), Scale(), Pair()) as engine:
            orders = [await engine.send(Order.run, {}, key=f"p{n}") for n in range(40)]
            for number in range(40):
                await engine.call(Pair.begin, number, key=f"p{number}")
            await until_idle(engine)
            rows_read.clear()
            await engine.query(sql.format(id=orders[7].id))
            assert sum(rows_read) <= most

    run(main())


def test_the_first_rows_in_the_order_of_the_table_are_read_alone(
    resident_place: Place, rows_read: list[int]
) -> None:
    async def main() -> None:
        async with resident_place.engine(Scale()) as engine:
            for number in range(600):
                await engine.send(Scale.weigh, number, delay=1_000)
            for table, by in (("sys_invocation", "created_at"), ("sys_timer", "fire_at")):
                rows_read.clear()
                found = await rows(engine, f"SELECT {by} FROM {table} ORDER BY {by} LIMIT 5")
                assert len(found) == 5
                assert sum(rows_read) <= 256  # a page

    run(main())


@pytest.mark.parametrize(
    "text",
    [
        *("", "2", "2023", "2023-11-14", "2023-11-14T22:13:20", "2023-11-14 22:13:20"),
        *("2023-11-14T22:13:19.999Z", "2023-11-14T22:13:20.000Z", "2023-11-14T22:13:20.0005Z"),
        *("2023-11-14T22:13:20.001Z", "2023-11-14T22:13:99", "2023-02-31T00:00:00", "zzz"),
        *("0001-01-01T00:00:00", "9999-12-31T23:59:59.999Z"),
    ],
)
@pytest.mark.parametrize("operator", ["<", "<=", "=", ">=", ">"])
def test_times_narrow_a_query_to_no_fewer_rows_than_their_texts_do(
    resident_place: Place, text: str, operator: str
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with resident_place.engine(Scale(), clock=clock) as engine:
            for number in range(4):
                await engine.send(Scale.weigh, number, delay=5 * number)
                clock.advance(0.001)
            for table, time_column in (("sys_invocation", "created_at"), ("sys_timer", "fire_at")):
                narrowed = f"SELECT id FROM {table} WHERE {time_column} {operator} '{text}'"
                scanned = f"SELECT id FROM {table} WHERE {time_column} || '' {operator} '{text}'"
                assert await column(engine, narrowed) == await column(engine, scanned)

    run(main())
