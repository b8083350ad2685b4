"""SQL at the admin app and by a client."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from client_support import ADMIN_URL, ByHost, Counter, served
from engine_support import Place, run

from perdure import Engine, InvalidInput, QueryResult

TOTALS = "SELECT service_key, value_utf8 AS total, value FROM state ORDER BY 1"


async def fill(engine: Engine) -> None:
    await asyncio.gather(*(engine.call(Counter.add, n, key=f"c-{n}") for n in range(3)))


def asking(engine: Engine) -> httpx.AsyncClient:
    transport = ByHost(engine)
    return httpx.AsyncClient(transport=transport, base_url=ADMIN_URL)


def test_rows_are_objects_as_restate_has_them(resident_place: Place) -> None:
    async def main() -> None:
        async with served(resident_place, "engine") as on, asking(on.engine) as client:
            await fill(on.engine)
            answer = await client.post("/query", json={"query": TOTALS, "rows_max": 2})
            assert (answer.status_code, answer.json()) == (
                200,
                {
                    "columns": ["service_key", "total", "value"],
                    "rows": [
                        {"service_key": "c-0", "total": "0", "value": "AA=="},
                        {"service_key": "c-1", "total": "1", "value": "AQ=="},
                    ],
                    "truncated": True,
                },
            )

    run(main())


def test_who_accepts_csv_gets_it(resident_place: Place) -> None:
    async def main() -> None:
        async with served(resident_place, "engine") as on, asking(on.engine) as client:
            query = "SELECT 1 AS one, 'a,\"b\"' AS text, NULL AS none, x'00ff' AS bytes"
            answer = await client.post(
                "/query", json={"query": query}, headers={"accept": "text/csv"}
            )
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert answer.text == 'one,text,none,bytes\r\n1,"a,""b""",,AP8=\r\n'

    run(main())


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"query": "SELEC"}, 400, "syntax error"),
        ({"query": "DELETE FROM state"}, 400, "may not be modified"),
        ({"query": "SELECT 1", "timeout_s": 0}, 400, "timeout_s must be more than 0"),
        ({"sql": "SELECT 1"}, 400, "missing required field `query`"),
    ],
)
def test_what_is_no_query_is_a_400(
    resident_place: Place, body: dict[str, object], status: int, said: str
) -> None:
    async def main() -> None:
        async with served(resident_place, "engine") as on, asking(on.engine) as client:
            answer = await client.post("/query", json=body)
            assert answer.status_code == status
            assert said in answer.json()["message"]

    run(main())


def test_a_client_gets_what_the_engine_selects(resident_place: Place) -> None:
    async def main() -> None:
        async with served(resident_place, "client") as on:
            await fill(on.engine)
            texts = "SELECT service_key, value_utf8 FROM state ORDER BY 1"
            expected = QueryResult(
                ["service_key", "value_utf8"], [("c-0", "0"), ("c-1", "1")], True
            )
            assert await on.engine.query(texts, rows_max=2) == expected
            assert await on.verbs.query(texts, rows_max=2) == expected
            nothing = QueryResult(["service_key"], [], False)
            assert await on.verbs.query("SELECT service_key FROM state WHERE 0") == nothing
            with pytest.raises(InvalidInput, match="rows_max must be an int"):
                await on.verbs.query("SELECT 1", rows_max=0)

    run(main())
