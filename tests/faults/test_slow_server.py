"""A server whose disk takes 100 ms for a sync: many share one, and too much is refused."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from load_support import Answer, Connection, Served

SYNC_MS = 100
ADDS = 200
SENT = 24
MIB = 1 << 20


def served(path: Path, library: Path) -> Served:
    return Served(path, LD_PRELOAD=str(library), FAULTS_SYNC_MS=str(SYNC_MS))


async def ask(port: int, path: str, value: object, key: str) -> Answer:
    connection = Connection(port)
    try:
        return await connection.ask("POST", path, value, idempotency_key=key)
    finally:
        connection.close()


@pytest.mark.long
def test_many_who_ask_at_once_wait_for_a_few_syncs_together(
    failing_calls: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with served(tmp_path / "data", failing_calls) as server:
            begin = time.monotonic()
            answers = await asyncio.gather(
                *(ask(server.port, f"/Tally/{n % 5}/add", 1, str(n)) for n in range(ADDS))
            )
            took = time.monotonic() - begin
            assert {answer.status for answer in answers} == {200}
            # One by one they would take 20 s.
            assert SYNC_MS / 1000 <= took < 5
            totals = [await ask(server.port, f"/Tally/{n}/add", 0, f"t{n}") for n in range(5)]
            assert [answer.value for answer in totals] == [ADDS // 5] * 5

    asyncio.run(main())


@pytest.mark.long
def test_what_is_too_much_is_refused_until_the_disk_has_caught_up_and_then_done_once(
    failing_calls: Path, tmp_path: Path
) -> None:
    found: Counter[int] = Counter()

    async def insist(port: int, number: int) -> None:
        """Ask again as long as one is told to; at last, add what counts how often it was done."""
        text = "x" * (4 * MIB)
        while (answer := await ask(port, "/Echo/echo/send", text, f"e{number}")).status != 202:
            found[answer.status] += 1
            assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.1)
        while (answer := await ask(port, "/Tally/k/add", 1, f"t{number}")).status != 200:
            found[answer.status] += 1
            await asyncio.sleep(0.1)

    async def main() -> None:
        async with served(tmp_path / "data", failing_calls) as server:
            await asyncio.gather(*(insist(server.port, number) for number in range(SENT)))
            answer = await ask(server.port, "/Tally/k/add", 0, "last")
            assert (answer.status, answer.value) == (200, SENT)

    asyncio.run(main())
    assert set(found) == {429}, "it was never too much, or something else was amiss"
