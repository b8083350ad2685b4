"""Snapshots: one committed state, whatever is written meanwhile, until somebody ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_support import (
    JOURNAL,
    META,
    ROWS,
    Entry,
    commit,
    open_environment,
)

from perdure._journal import Environment, Snapshot
from perdure._store import Db, Store
from perdure.errors import StoreClosed, StoreCorrupt, StoreError


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    environment = open_environment(tmp_path)
    yield environment
    environment.close()


def put(environment: Environment, **rows: bytes) -> None:
    for key, value in rows.items():
        environment.put(ROWS, key.encode(), value)
    commit(environment)


def test_it_shows_what_was_committed_when_it_was_made(environment: Environment) -> None:
    put(environment, a=b"1", b=b"1")
    environment.put_entries(JOURNAL, bytes(20), [Entry(1)])
    commit(environment)
    snapshot = Snapshot(environment)
    environment.delete(ROWS, b"b")
    environment.delete(JOURNAL, bytes(20))
    put(environment, a=b"2", c=b"2")

    assert snapshot.get(ROWS, b"a") == b"1"
    assert snapshot.get(ROWS, b"c") is None
    assert snapshot.scan(ROWS, b"", None) == [(b"a", b"1"), (b"b", b"1")]
    assert snapshot.scan_keys(ROWS, b"", None, reverse=True) == [b"b", b"a"]
    assert snapshot.count(ROWS) == 2
    assert snapshot.read_chunks(JOURNAL, bytes(16), 0, Entry) == [(0, [Entry(1)])]
    assert environment.scan(ROWS, b"", None) == [(b"a", b"2"), (b"c", b"2")]
    snapshot.close()


def test_each_of_several_shows_its_own_state(environment: Environment) -> None:
    snapshots = []
    for number in range(20):
        put(environment, a=b"%d" % number)
        snapshots.append(Snapshot(environment))
    for closed in snapshots[::3]:
        closed.close()
    for number, snapshot in enumerate(snapshots):
        if number % 3:
            assert snapshot.get(ROWS, b"a") == b"%d" % number
        else:
            with pytest.raises(StoreClosed):
                snapshot.get(ROWS, b"a")
    assert [snapshot.ended for snapshot in snapshots] == [not n % 3 for n in range(20)]


def test_closed_it_gives_its_place_back(environment: Environment) -> None:
    for _ in range(1_000):  # LMDB has 126 places
        Snapshot(environment).close()
    for _ in range(1_000):
        Snapshot(environment)


def test_closed_twice_it_is_closed(environment: Environment) -> None:
    snapshot = Snapshot(environment)
    snapshot.close()
    snapshot.close()
    assert snapshot.ended


def test_too_many_are_refused_and_harm_nothing(environment: Environment) -> None:
    put(environment, a=b"1")
    with pytest.raises(StoreError, match="READERS_FULL"):
        _ = [Snapshot(environment) for _ in range(200)]
    assert environment.get(ROWS, b"a") == b"1"


def test_the_close_of_the_environment_ends_it(environment: Environment) -> None:
    put(environment, a=b"1")
    snapshot = Snapshot(environment)
    environment.close()
    assert snapshot.ended
    with pytest.raises(StoreClosed):
        snapshot.get(ROWS, b"a")
    with pytest.raises(StoreClosed):
        snapshot.scan(ROWS, b"", None)
    snapshot.close()
    with pytest.raises(StoreClosed):
        Snapshot(environment)


def test_it_outlives_the_last_name_of_its_environment(tmp_path: Path) -> None:
    snapshot = Snapshot(open_environment(tmp_path))
    assert snapshot.get(META, b"absent") is None
    del snapshot


def test_growth_of_the_map_ends_it_and_waits_for_nobody(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, map_size=1 << 20)
    put(environment, a=b"1")
    snapshot = Snapshot(environment)
    put(environment, b=bytes(4 << 20))  # more than the map has room for
    assert snapshot.ended
    with pytest.raises(StoreError, match="mapped anew"):
        snapshot.get(ROWS, b"a")
    another = Snapshot(environment)
    assert another.get(ROWS, b"a") == b"1"
    snapshot.close()
    assert another.count(ROWS) == 2
    another.close()
    environment.close()


def test_snapshots_are_read_while_the_map_grows_again_and_again(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, map_size=1 << 20)
    put(environment, **{f"k{n:03}": bytes(1000) for n in range(200)})
    done = threading.Event()
    seen: set[int] = set()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                snapshot = Snapshot(environment)
                try:
                    counts = {len(snapshot.scan(ROWS, b"k", b"l", bytes_max=1 << 22))}
                    counts.add(len(snapshot.scan_keys(ROWS, b"k", b"l", bytes_max=1 << 22)))
                    assert len(counts) == 1
                    seen.update(counts)
                except StoreError:
                    assert snapshot.ended
                finally:
                    snapshot.close()
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(24):
        put(environment, **{f"k{200 + number:03}": bytes(1000), f"z{number}": bytes(1 << 20)})
    done.set()
    for reader in readers:
        reader.join()
    environment.close()
    assert failures == []
    assert seen


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    put(environment, a=b"a value to be found")
    environment.close()
    file = tmp_path / "data.mdb"
    file.write_bytes(file.read_bytes().replace(b"a value to be", b"b value to be"))
    environment = open_environment(tmp_path)
    snapshot = Snapshot(environment)
    with pytest.raises(StoreCorrupt):
        snapshot.get(ROWS, b"a")
    with pytest.raises(StoreCorrupt):
        snapshot.scan(ROWS, b"", None)
    environment.close()


def test_of_a_store_it_shows_what_has_committed_and_not_what_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", durability="memory")
    store.put(Db.STATE, b"group", b"a", b"1")
    store.wait_committed(store.seal())
    snapshot = store.snapshot()
    store.put(Db.STATE, b"group", b"a", b"2")
    assert snapshot.get_committed(Db.STATE, b"groupa") == b"1"
    store.wait_committed(store.seal())
    assert snapshot.get_committed(Db.STATE, b"groupa") == b"1"
    assert snapshot.scan_committed(Db.STATE) == [(b"groupa", b"1")]
    store.close()
    assert snapshot.ended
