"""A store opened for reading: it needs no right to write, and writes nothing."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from store_support import fork_child, wait_for

from perdure._store import Db, ReadOnlyStore, Store
from perdure.errors import DataDirectoryInUse, StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with a row."""
    store = Store(tmp_path / "data")
    store.put(Db.STATE, b"g", b"s", b"v")
    store.seal()
    store.close()
    return tmp_path / "data"


def test_a_directory_without_the_right_to_write_is_read_and_nothing_is_made(path: Path) -> None:
    (path / "lock.mdb").unlink()
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    nobody = 65534

    def child() -> None:
        if os.geteuid() == 0:
            for parent in path.parents[:-2]:
                os.chmod(parent, 0o755)
            os.setgid(nobody)
            os.setuid(nobody)
        store = ReadOnlyStore(path)
        assert store.get(Db.STATE, b"g", b"s") == b"v"
        store.close()

    assert wait_for(fork_child(child)) == 0
    assert sorted(os.listdir(path)) == ["data.mdb", "perdure.lock"]
    path.chmod(0o755)


def test_it_is_read_where_address_space_is_limited(path: Path) -> None:
    def child() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # less than a map that may grow
        store = ReadOnlyStore(path)
        assert store.get(Db.STATE, b"g", b"s") == b"v"
        store.close()

    assert wait_for(fork_child(child)) == 0


def test_a_store_of_another_user_is_a_clear_error(path: Path) -> None:
    nobody = 65534

    def child() -> None:
        if os.geteuid() == 0:
            for parent in path.parents[:-2]:
                os.chmod(parent, 0o755)
            path.chmod(0o755)
            os.setgid(nobody)
            os.setuid(nobody)
        else:
            (path / "perdure.lock").chmod(0)
        with pytest.raises(StoreError, match="Permission denied; do it as the user that owns it"):
            ReadOnlyStore(path)

    assert wait_for(fork_child(child)) == 0


def test_it_can_not_be_written_to(path: Path) -> None:
    store = ReadOnlyStore(path)
    with pytest.raises(StoreError, match="open for reading only"):
        store.put(Db.STATE, b"g", b"s", b"w")
    assert store.get(Db.STATE, b"g", b"s") == b"v"
    store.close()


def test_two_processes_may_read_and_the_last_to_end_lets_an_owner_in(path: Path) -> None:
    store = ReadOnlyStore(path)

    def child() -> None:
        ReadOnlyStore(path).close()
        with pytest.raises(DataDirectoryInUse, match="is being read just now"):
            Store(path)

    assert wait_for(fork_child(child)) == 0
    store.close()
    Store(path).close()
