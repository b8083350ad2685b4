"""Each row of each database, removed or changed under a right checksum: found, or known not to be.

What no other row says can not be missed: `UNSEEN` lists that, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from filled_support import fill

from perdure._core._entries import Entry, Kind
from perdure._doctor._contents import Contents
from perdure._doctor._report import Finding
from perdure._journal import decode_entries
from perdure._runtime._layout import Output, Record
from perdure._store import Db, Store

Row = tuple[bytes, bytes]


class Unseen(NamedTuple):
    """Rows of *db* whose loss no other row shows."""

    db: Db
    which: Callable[[Row], bool]
    why: str


def is_of_done(row: Row) -> bool:
    """The first chunk of a journal which waits for a promise that it has been told of since."""
    entries = decode_entries(row[1], Entry)
    return entries[-1].kind == Kind.PROMISE_AWAIT and entries[-1].name == "go"


def begins_a_step(row: Row) -> bool:
    return decode_entries(row[1], Entry)[-1].kind == Kind.RUN


UNSEEN = (
    Unseen(Db.STATE, lambda row: b"Counter" in row[0], "the journals of an object are not kept"),
    Unseen(Db.STATE, lambda row: b"done" in row[0], "when its run has ended, others may write it"),
    Unseen(Db.PROMISES, lambda row: b"early" in row[0], "nobody has been told of it yet"),
    Unseen(Db.SIGNALS, lambda row: True, "nobody has waited for it yet"),
    Unseen(Db.JOURNAL, is_of_done, "a journal that goes loses its first chunks first"),
    Unseen(Db.JOURNAL, begins_a_step, "without it, it is one that is to begin"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A data directory with rows of all kinds, open. Who changes a row puts it back."""
    path = fill(tmp_path_factory.mktemp("every-row") / "data")
    store = Store(path, durability="os")
    yield store
    store.close()


def findings_with(store: Store, db: Db, key: bytes, value: bytes | None) -> list[str]:
    """What a deep check finds while the row *key* is *value*, or is not there."""
    before = store.get(db, key, b"")
    assert before is not None
    found: list[Finding] = []
    put(store, db, key, value)
    try:
        Contents(store, found.append, lambda _: None).read()
    finally:
        put(store, db, key, before)
    assert all(each.remedy for each in found)
    return [f"{each.place}: {each.what}" for each in found]


def put(store: Store, db: Db, key: bytes, value: bytes | None) -> None:
    if value is None:
        store.delete(db, b"", key)
    else:
        store.put(db, b"", key, value)
    store.wait_committed(store.seal())


def is_unseen(db: Db, row: Row) -> bool:
    return any(each.db is db and each.which(row) for each in UNSEEN)


def rows_of(store: Store, db: Db) -> list[Row]:
    rows = store.scan_committed(db)
    assert rows
    return rows


OTHERS = [db for db in Db if db is not Db.META]


@pytest.mark.parametrize("db", OTHERS, ids=lambda db: db.name.lower())
def test_each_row_that_is_missing_is_found_or_listed(store: Store, db: Db) -> None:
    for key, value in rows_of(store, db):
        found = findings_with(store, db, key, None)
        assert found or is_unseen(db, (key, value)), (key, value)


@pytest.mark.parametrize("db", OTHERS, ids=lambda db: db.name.lower())
def test_each_row_that_has_become_nonsense_is_found(store: Store, db: Db) -> None:
    for key, value in rows_of(store, db):
        nonsense = {b"\xff", b"\xff" * 40, value + b"\0", value[:-1]} - {value}
        if db is Db.SITES:
            nonsense -= {value + b"\0", value[:-1]}  # the text of another line is one, too
        if db is Db.JOURNAL:
            nonsense.add(b"\0\0")  # no entries
        for other in nonsense:
            assert findings_with(store, db, key, other), (key, value, other)


@pytest.mark.parametrize(
    ("db", "which", "other", "expected"),
    [
        (Db.PROMISES, b"done", lambda _: b"\0\x02", "knows another value of the promise 'go'"),
        (Db.PROMISES, b"paused", lambda _: b"\0\x02", "knows another value of the promise 'go'"),
        (Db.STATE, b"paused", lambda _: b"\x02", "has written its state 'value' last as it is not"),
        (
            Db.OUTPUTS,
            b"\0\0\x07",
            lambda value: Output.unpack(value)._replace(payload=b"\x05").pack(),
            "ended otherwise than its outcome says",
        ),
        (
            Db.INVOCATIONS,
            b"",
            lambda value: Record.unpack(value)._replace(idempotency_key="twice").pack(),
            "is not found by its idempotency key",
        ),
    ],
)
def test_another_value_of_its_kind_is_found(
    store: Store, db: Db, which: bytes, other: Callable[[bytes], bytes], expected: str
) -> None:
    found = [
        line
        for key, value in rows_of(store, db)
        if which in key
        for line in findings_with(store, db, key, other(value))
    ]
    assert any(expected in line for line in found), found
