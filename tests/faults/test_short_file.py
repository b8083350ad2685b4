"""A file that was cut short is refused, whatever the durability, and never ends the process."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import lmdb
import pytest
from store_support import fork_child, kill_myself, wait_for

from perdure._store import Db, ReadOnlyStore, Store
from perdure.errors import StoreCorrupt, StoreError

GROUP = b"g" * 16
PAGE = 4096


def write_and_die(path: Path, durability: str) -> None:
    store = Store(path, durability=durability)  # type: ignore[arg-type]
    for number in range(30):
        store.put(Db.STATE, GROUP, b"%04d" % number, bytes(5000))
        store.wait_committed(store.seal())
    kill_myself()


def refuse(path: Path) -> None:
    """In a child, for what is not refused may be a bus error."""
    for kind in (ReadOnlyStore, Store):
        with pytest.raises(StoreCorrupt, match="was cut short; restore it from a backup"):
            kind(path)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_store_that_was_killed_and_then_cut_short_is_refused_by_any_length(
    tmp_path: Path, durability: str
) -> None:
    path = tmp_path / "data"
    assert wait_for(fork_child(lambda: write_and_die(path, durability))) == -9
    size = (path / "data.mdb").stat().st_size
    assert size % PAGE == 0
    last = size // PAGE
    for pages in (last - 1, last - 2, last - 3, last // 2, 8, 4, 3, 2, 1):
        cut = tmp_path / f"cut{pages}"
        shutil.copytree(path, cut)
        os.truncate(cut / "data.mdb", pages * PAGE)
        assert wait_for(fork_child(lambda path=cut: refuse(path))) == 0, pages  # type: ignore[misc]
    for kind in (ReadOnlyStore, Store):
        with contextlib.closing(kind(path)) as store:
            assert len(store.scan(Db.STATE, GROUP)) == 30


def test_pages_that_were_never_written_because_nobody_uses_them_are_not_missed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"

    def write() -> None:
        store = Store(path, durability="os")
        for number in range(10):  # what these free takes the list of free pages
            store.put(Db.STATE, GROUP, b"stays", b"value %d" % number)
            store.wait_committed(store.seal())
        store.put(Db.STATE, GROUP, b"large", bytes(40 * PAGE))
        store.delete(Db.STATE, GROUP, b"large")  # in the same transaction: it never gets there
        store.wait_committed(store.seal())
        kill_myself()

    assert wait_for(fork_child(write)) == -9
    with lmdb.open(str(path), readonly=True, lock=False, max_dbs=20) as other:
        used = (other.info()["last_pgno"] + 1) * PAGE
    assert (path / "data.mdb").stat().st_size < used, "no pages are missing: this shows nothing"
    for kind in (ReadOnlyStore, Store):
        with contextlib.closing(kind(path)) as store:
            assert store.scan(Db.STATE, GROUP) == [(b"stays", b"value 9")]


@pytest.mark.parametrize("text", ["no such thing " * 1000, ""])
def test_another_kind_of_file_is_told_from_a_short_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.mdb").write_text(text)
    with pytest.raises(StoreError):
        ReadOnlyStore(tmp_path)
