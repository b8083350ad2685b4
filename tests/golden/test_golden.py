"""What a release has left in its directory goes on in this one."""

from __future__ import annotations

import gzip
from datetime import timedelta
from pathlib import Path

import pytest
from engine_support import ManualClock, Place, run, until_idle
from release_0_1_0 import ENDED_MS, Order, Purchase

from perdure import Accepted, Engine, Status
from perdure._store import Db, Store

FILE = Path(__file__).with_name("release_0_1_0.mdb.gz")

STOOD = {
    "done": (Status.COMPLETED, 0),
    "waiting": (Status.SUSPENDED, 2),  # for the approval and its deadline
    "late": (Status.SUSPENDED, 1),  # for the approval alone
    "approved": (Status.SUSPENDED, 1),  # in asyncio.sleep
    "refused": (Status.SUSPENDED, 1),  # the same
    "broken": (Status.BACKING_OFF, 1),  # for the next attempt of its step
}
"""Status of each invocation when the file was written, and how much it waited for."""


def result(key: str, charged_at: str, answer: str, *states: str) -> list[str]:
    """What ``Purchase.run`` returns."""
    order = f"Order(item={key!r}, amount=7)"
    return [
        *(f"charged 7 for {key}", f"{charged_at}+00:00", answer, "packed", "labelled", order),
        *(*states, "order", "token"),
    ]


RESULTS = {
    "done": result("done", "2023-11-16T22:13:20", "ann"),
    "waiting": result("waiting", "2023-11-16T22:13:20", "eve"),
    "late": result("late", "2023-11-14T22:13:20", "eve", "late"),
    "approved": result("approved", "2023-11-16T22:13:20", "bob"),
    "refused": result("refused", "2023-11-16T22:13:20", "refused: too dear (409)"),
    "broken": result("broken", "2023-11-17T00:14:20", "eve"),
}


@pytest.fixture
def old_place(place: Place) -> Place:
    """A copy of what the release left, once with every invocation in memory and once with none."""
    place.path.mkdir()
    (place.path / "data.mdb").write_bytes(gzip.decompress(FILE.read_bytes()))
    return place


async def finish(engine: Engine, clock: ManualClock) -> dict[str, list[str]]:
    """Answer what all wait for, and turn the clock until they are done."""
    for key in ("waiting", "late", "broken"):
        await engine.call(Purchase.approve, "eve", key=key)
    for _ in range(2):
        await until_idle(engine)
        clock.advance(timedelta(hours=1))
    return {key: await engine.submit(Purchase.run, Order(key, 7), key=key) for key in STOOD}


def journal_rows(path: Path) -> dict[bytes, bytes]:
    store = Store(path, durability="fsync")
    try:
        return dict(store.scan(Db.JOURNAL, b""))
    finally:
        store.close()


def test_what_a_release_left_is_described_as_it_stood(old_place: Place) -> None:
    async def main() -> None:
        async with old_place.engine(Purchase(), clock=ManualClock(ENDED_MS)) as engine:
            for key, stood in STOOD.items():
                handle = await engine.send(Purchase.run, Order(key, 7), key=key)
                assert handle.accepted is Accepted.EXISTING
                description = await engine.describe(handle.id)
                assert (description.status, len(description.waiting_on)) == stood, key

    run(main())


def test_what_a_release_left_completes_with_the_results_it_would_have_had(old_place: Place) -> None:
    clock = ManualClock(ENDED_MS)

    async def main() -> dict[str, list[str]]:
        async with old_place.engine(Purchase(), clock=clock) as engine:
            return await finish(engine, clock)

    assert run(main()) == RESULTS


def test_no_step_that_a_release_has_journalled_runs_again(old_place: Place) -> None:
    clock = ManualClock(ENDED_MS)
    service = Purchase()

    async def main() -> None:
        async with old_place.engine(service, clock=clock) as engine:
            await finish(engine, clock)

    run(main())
    assert sorted(service.ran) == ["charged 7 for broken", *["labelled"] * 5, *["packed"] * 5]


def test_no_journal_row_of_a_release_is_rewritten(old_place: Place) -> None:
    clock = ManualClock(ENDED_MS)
    before = journal_rows(old_place.path)

    async def main() -> None:
        async with old_place.engine(Purchase(), clock=clock) as engine:
            await finish(engine, clock)

    run(main())
    after = journal_rows(old_place.path)
    assert len(after) > len(before) > len(STOOD)
    assert {key: after.get(key, row) for key, row in before.items()} == before
