"""Reads of a store against a dict: its own writes are seen at once, whatever has committed."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_support import Entry

from perdure._store import Db, Store
from perdure._store import _overlay as overlay_module
from perdure._store import _store as store_module

# Few keys, so that units often write the same one.
GROUPS = st.sampled_from([b"b\xff", b"\xff\xff"])
SUFFIXES = st.sampled_from([b"", b"a", b"a\0", b"\xff"])
VALUES = st.sampled_from([b"", b"1", b"22"])
DBS = st.sampled_from([Db.STATE, Db.AWAKEABLES])
Model = dict[tuple[Db, bytes, bytes], bytes]


class StoreAgreesWithADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store("label", durability="memory")
        self.model: Model = {}
        self.sealed_model: Model = {}
        self.open = False

    @rule(db=DBS, group=GROUPS, suffix=SUFFIXES, value=VALUES)
    def put(self, db: Db, group: bytes, suffix: bytes, value: bytes) -> None:
        self.store.put(db, group, suffix, value)
        self.model[db, group, suffix] = value
        self.open = True

    @rule(db=DBS, group=GROUPS, suffix=SUFFIXES)
    def delete(self, db: Db, group: bytes, suffix: bytes) -> None:
        self.store.delete(db, group, suffix)
        self.model.pop((db, group, suffix), None)
        self.open = True

    @rule()
    def seal(self) -> None:
        before = self.store.sealed
        assert self.store.seal() == before + self.open
        self.sealed_model = dict(self.model)
        self.open = False

    @rule()
    def discard(self) -> None:
        self.store.discard()
        self.model = dict(self.sealed_model)
        self.open = False

    @rule()
    def commit_and_tell(self) -> None:
        assert self.store.wait_committed(self.store.sealed, 60)
        self.store.on_event()

    @rule()
    def commit_and_do_not_tell(self) -> None:
        assert self.store.wait_committed(self.store.sealed, 60)

    @rule()
    def tell(self) -> None:
        self.store.on_event()

    @precondition(lambda self: not self.open)
    @rule()
    def with_nothing_uncommitted_the_overlay_is_empty(self) -> None:
        self.commit_and_tell()
        assert not any(self.store._rows)
        assert self.store.oldest_uncommitted_ns == 0

    def expected(self, db: Db, group: bytes) -> list[tuple[bytes, bytes]]:
        return sorted((k[2], v) for k, v in self.model.items() if k[:2] == (db, group))

    @rule(db=DBS, group=GROUPS, after=st.none() | SUFFIXES, limit=st.integers(0, 4))
    def scan_a_part(self, db: Db, group: bytes, after: bytes | None, limit: int) -> None:
        rows = [row for row in self.expected(db, group) if after is None or row[0] > after]
        rows = rows[: limit or None]
        assert self.store.scan(db, group, after=after, limit=limit) == rows
        suffixes = self.store.suffixes(db, group, after=after, limit=limit)
        assert suffixes == [suffix for suffix, _ in rows]

    @rule(db=DBS, prefix=st.sampled_from([b"", b"b", b"\xff", b"b\xff"]))
    def keys_under_a_prefix(self, db: Db, prefix: bytes) -> None:
        keys = {group + suffix for of, group, suffix in self.model if of == db}
        expected = sorted(key[len(prefix) :] for key in keys if key.startswith(prefix))
        assert self.store.keys(db, prefix) == expected

    @rule(db=DBS, group=GROUPS, suffix=SUFFIXES)
    def get(self, db: Db, group: bytes, suffix: bytes) -> None:
        assert self.store.get(db, group, suffix) == self.model.get((db, group, suffix))

    @invariant()
    def every_group_reads_as_the_model_has_it(self) -> None:
        for db in (Db.STATE, Db.AWAKEABLES):
            for group in (b"b\xff", b"\xff\xff"):
                assert self.store.scan(db, group) == self.expected(db, group)

    def teardown(self) -> None:
        self.store.close()


TestStoreAgreesWithADict = StoreAgreesWithADict.TestCase
TestStoreAgreesWithADict.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data", durability="os")
    yield opened
    opened.close()


def test_a_scan_of_many_rows_pages_through_all_of_them(store: Store) -> None:
    value = b"v" * 1000
    for number in range(1000):
        store.put(Db.STATE, b"group", b"%04d" % number, value)
    store.wait_committed(store.seal())
    store.on_event()
    for number in range(0, 1000, 7):
        store.put(Db.STATE, b"group", b"%04d+" % number, b"new")
        store.delete(Db.STATE, b"group", b"%04d" % number)
    expected = sorted(
        [(b"%04d" % number, value) for number in range(1000) if number % 7]
        + [(b"%04d+" % number, b"new") for number in range(0, 1000, 7)]
    )
    assert store.scan(Db.STATE, b"group") == expected
    assert (
        store.scan(Db.STATE, b"group", after=b"0500", limit=9)
        == [row for row in expected if row[0] > b"0500"][:9]
    )


def test_a_row_written_again_is_shown_until_its_last_unit_commits(store: Store) -> None:
    store.put(Db.STATE, b"g", b"s", b"1")
    store.put(Db.STATE, b"g", b"t", b"1")
    store.wait_committed(store.seal())
    store.put(Db.STATE, b"g", b"s", b"2")
    store.delete(Db.STATE, b"g", b"t")
    store.on_event()
    assert store.scan(Db.STATE, b"g") == [(b"s", b"2")]
    assert store.get(Db.STATE, b"g", b"t") is None


def test_a_discard_does_not_bring_back_rows_whose_unit_committed_meanwhile(store: Store) -> None:
    store.put(Db.STATE, b"g", b"s", b"1")
    store.wait_committed(store.seal())
    store.put(Db.STATE, b"g", b"s", b"2")
    store.on_event()
    store.discard()
    assert store.get(Db.STATE, b"g", b"s") == b"1"
    assert not any(store._rows)


def test_a_scan_of_the_empty_group_is_of_the_whole_database(store: Store) -> None:
    store.put(Db.TIMERS, b"", b"1", b"a")
    store.wait_committed(store.seal())
    store.on_event()
    store.put(Db.TIMERS, b"", b"2", b"b")
    assert store.scan(Db.TIMERS, b"") == [(b"1", b"a"), (b"2", b"b")]
    assert store.scan_committed(Db.TIMERS) == [(b"1", b"a")]


def test_the_journal_is_read_a_page_at_a_time(store: Store) -> None:
    for index in range(0, 200, 2):
        payload = b"p" * 3000
        store.put_journal(b"i" * 16, index, [Entry(1, index, payload=payload), Entry(2)])
    store.wait_committed(store.seal())
    pages, index = 0, 0
    while page := store.journal(b"i" * 16, index, Entry):
        pages += 1
        for at, entries in page:
            assert at == index
            assert entries[0].ref == at
            index += len(entries)
    assert index == 200
    assert pages > 1


def test_a_unit_of_journal_entries_only_counts_as_uncommitted(store: Store) -> None:
    store.put_journal(b"i" * 16, 0, [Entry(1)])
    unit = store.seal()
    assert unit == store.sealed
    store.wait_committed(unit)
    store.on_event()
    assert store.oldest_uncommitted_ns == 0
    assert not store.congested()


def test_the_store_is_congested_by_bytes_or_by_age(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not store.congested()
    monkeypatch.setattr(store_module, "UNCOMMITTED_BYTES_MAX", 0)
    assert store.congested()
    monkeypatch.undo()
    # As if a unit had been sealed that the writer has not come to, more than a second ago.
    overlay = store._overlay
    overlay.last_unit = store.committed + 1
    overlay.marks.clear()
    overlay.marks.append((overlay.last_unit, 1))
    assert store.oldest_uncommitted_ns == 1
    assert store.congested()
    overlay.last_unit -= 1
    assert not store.congested()


def test_the_loop_is_told_of_a_commit_through_the_descriptor(store: Store) -> None:
    poll = select.poll()
    poll.register(store.fileno(), select.POLLIN)
    store.on_event()
    store.put(Db.STATE, b"g", b"s", b"v")
    unit = store.seal()
    while any(store._rows):
        assert poll.poll(60_000)
        store.on_event()
    assert store.committed == unit


def test_no_times_are_kept_of_units_that_have_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_module, "MARK_NS", 0)
    overlay = overlay_module.Overlay(1, monotonic_ns)
    for unit in range(1, 100):
        assert not overlay.oldest_ns(unit - 1)
        overlay.seal(unit)
    assert len(overlay.marks) <= 1
