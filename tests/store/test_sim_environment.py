"""The simulated environment answers as the real one does, whatever is asked of both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_support import JOURNAL, ROWS, Entry, open_environment

from perdure._journal import Environment
from perdure.testing import SimDisk
from perdure.testing._sim_environment import SimEnvironment

DATABASES = ("meta", "rows", "journal")
IDS = st.sampled_from([b"i" * 16, b"i" * 15 + b"\xff", b"\xff" * 16])
INDEXES = st.sampled_from([0, 1, 2, 255, 256, 2**32 - 1])
DBS = st.sampled_from([ROWS, ROWS, JOURNAL, -1, 3])
KEYS = (
    st.sampled_from([b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff", b"k" * 511])
    | st.sampled_from([b"", b"k" * 512])
    | st.builds(lambda prefix, index: prefix + index.to_bytes(4, "big"), IDS, INDEXES)
    | st.binary(min_size=1, max_size=24)
)
VALUES = st.binary(max_size=8) | st.integers(0, 400).map(bytes)
ENTRIES = st.lists(
    st.builds(Entry, st.integers(1, 9), st.integers(0, 3), st.text(max_size=3)), max_size=3
)
Either = Environment | SimEnvironment


def outcome(environment: Either, ask: Callable[[Any], object]) -> object:
    """What came of it: an answer, or the kind of an error."""
    try:
        return ask(environment)
    except Exception as error:
        return type(error)


class EnvironmentsAgree(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.real = open_environment(Path(self.folder.name), durability=2)
        self.disk = SimDisk(len(DATABASES))
        self.simulated: SimEnvironment | None = None
        self.commits: list[Callable[[], None]] = []
        self.snapshots: list[tuple[Any, Any]] = []
        self.closed = False

    @initialize(at_once=st.booleans())
    def begin(self, at_once: bool) -> None:
        """The schedule may commit at once, or when somebody waits."""
        schedule = (lambda commit: commit()) if at_once else self.commits.append
        self.simulated = SimEnvironment(
            "simulated", self.disk, databases=DATABASES, schedule=schedule
        )

    def both(self, ask: Callable[[Any], object]) -> object:
        assert self.simulated is not None
        expected = outcome(self.real, ask)
        assert outcome(self.simulated, ask) == expected
        return expected

    @rule(db=DBS, key=KEYS, value=VALUES)
    def put(self, db: int, key: bytes, value: bytes) -> None:
        self.both(lambda each: each.put(db, key, value))

    @rule(db=DBS, key=KEYS)
    def delete(self, db: int, key: bytes) -> None:
        self.both(lambda each: each.delete(db, key))

    @rule(entries=ENTRIES, key=IDS, index=INDEXES)
    def put_entries(self, entries: list[Entry], key: bytes, index: int) -> None:
        self.both(lambda each: each.put_entries(JOURNAL, key + index.to_bytes(4, "big"), entries))

    @rule(bad=st.sampled_from([[(1,)], [None], 3]))
    def put_what_is_no_entries(self, bad: Any) -> None:
        self.both(lambda each: each.put_entries(JOURNAL, b"k", bad))

    @precondition(lambda self: not self.closed)
    @rule(wrong=st.sampled_from(["k", None]))
    def put_what_is_no_bytes(self, wrong: Any) -> None:
        self.both(lambda each: each.put(ROWS, wrong, b"v"))
        self.both(lambda each: each.put(ROWS, b"k", wrong))

    @rule()
    def seal(self) -> None:
        self.both(lambda each: each.seal())

    @rule()
    def discard(self) -> None:
        self.both(lambda each: each.discard())

    @rule(begins=st.booleans())
    def batch(self, begins: bool) -> None:
        self.both(lambda each: each.batch(begins))

    @rule(more=st.integers(0, 1))
    def wait(self, more: int) -> None:
        self.both(lambda each: each.wait(each.sealed + more, 60))

    def commit(self) -> None:
        """What is to be read is committed in both."""
        self.both(lambda each: each.wait(each.sealed, 60))
        self.both(lambda each: each.committed)
        self.both(lambda each: each.uncommitted_bytes)

    @rule(db=DBS, key=KEYS)
    def get(self, db: int, key: bytes) -> None:
        self.commit()
        self.both(lambda each: each.get(db, key))

    @rule(
        db=DBS,
        start=KEYS,
        stop=st.none() | KEYS,
        limit=st.integers(0, 3),
        bytes_max=st.sampled_from([0, 1, 25, 60, 262144]),
        reverse=st.booleans(),
    )
    def scan(
        self, db: int, start: bytes, stop: bytes | None, limit: int, bytes_max: int, reverse: bool
    ) -> None:
        self.commit()
        options: Any = {"limit": limit, "bytes_max": bytes_max, "reverse": reverse}
        self.both(lambda each: each.scan(db, start, stop, **options))
        self.both(lambda each: each.scan_keys(db, start, stop, **options))

    @rule(
        db=DBS,
        prefix=IDS | st.just(b"short"),
        index=INDEXES,
        bytes_max=st.sampled_from([1, 60, 262144]),
        make=st.sampled_from([None, Entry]),
    )
    def read_chunks(self, db: int, prefix: bytes, index: int, bytes_max: int, make: Any) -> None:
        self.commit()
        self.both(lambda each: each.read_chunks(db, prefix, index, make, bytes_max=bytes_max))

    @rule(db=DBS)
    def count(self, db: int) -> None:
        self.commit()
        self.both(lambda each: each.count(db))

    @invariant()
    def they_have_sealed_the_same(self) -> None:
        if self.simulated is not None:
            self.both(lambda each: each.sealed)
            self.both(lambda each: each.open_bytes)
            self.both(lambda each: each.failure)

    @precondition(lambda self: not self.closed)
    @rule(often=st.integers(1, 4))
    def close_now_and_then(self, often: int) -> None:
        if often == 1:
            self.commit()
            self.both(lambda each: each.close())
            self.closed = True

    def teardown(self) -> None:
        self.real.close()
        self.folder.cleanup()


TestEnvironmentsAgree = EnvironmentsAgree.TestCase
TestEnvironmentsAgree.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_snapshot_shows_what_was_committed_when_it_was_made() -> None:
    simulated = SimEnvironment(
        "simulated", SimDisk(3), databases=DATABASES, schedule=lambda commit: commit()
    )
    simulated.put(ROWS, b"k", b"before")
    simulated.seal()
    snapshot = simulated.snapshot()
    simulated.put(ROWS, b"k", b"after")
    simulated.seal()
    assert (snapshot.get(ROWS, b"k"), simulated.get(ROWS, b"k")) == (b"before", b"after")
    snapshot.close()
    assert snapshot.ended


@pytest.mark.parametrize("flush", [True, False])
def test_close_commits_what_is_sealed_or_drops_it(flush: bool) -> None:
    disk = SimDisk(3)
    simulated = SimEnvironment("simulated", disk, databases=DATABASES, schedule=lambda commit: None)
    simulated.put(ROWS, b"k", b"v")
    simulated.seal()
    simulated.put(ROWS, b"open", b"v")
    simulated.close(flush=flush)
    assert disk.tables[ROWS].values == ({b"k": b"v"} if flush else {})
