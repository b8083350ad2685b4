"""The data directory: whose it is, what may be in it, what is refused and how."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import lmdb
import pytest
from store_support import fork_child, run_script, wait_for

from perdure._journal import crc32c
from perdure._store import Db, Store
from perdure._store import _directory as directory
from perdure._store._lock import DirectoryLock
from perdure._store._schema import DATABASES, SCHEMA_VERSION
from perdure.errors import DataDirectoryInUse, StoreClosed, StoreCorrupt, StoreError


def write_meta(path: Path, key: bytes, value: bytes) -> None:
    stored = value + crc32c(value, crc32c(key)).to_bytes(4, "little")
    with (
        lmdb.open(str(path), max_dbs=20) as other,
        other.begin(write=True, db=other.open_db(b"meta")) as transaction,
    ):
        transaction.put(key, stored)


def listing(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_databases_are_numbered_in_the_order_in_which_they_are_opened() -> None:
    assert [db.name.lower() for db in Db] == list(DATABASES)
    assert [int(db) for db in Db] == list(range(len(DATABASES)))


def test_a_missing_directory_is_made_with_its_parents_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    store = Store(path)
    store.put(Db.STATE, b"g", b"s", b"v")
    store.seal()
    store.close()
    assert stat.S_IMODE((path / "data.mdb").stat().st_mode) == 0o600
    again = Store(str(path))
    assert again.get(Db.STATE, b"g", b"s") == b"v"
    assert again.warnings == []
    again.close()


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    Store(tmp_path).close()
    Store(tmp_path).close()


def test_a_second_store_on_the_directory_is_told_who_has_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(DataDirectoryInUse, match=rf"process {os.getpid()}: one process owns") as e:
        Store(tmp_path)
    assert "serve it from there and connect from the others" in str(e.value)
    result = run_script(
        "import sys; from perdure._store import Store; Store(sys.argv[1])", tmp_path
    )
    assert "DataDirectoryInUse" in result.stderr
    assert f"process {os.getpid()}" in result.stderr
    store.close()
    Store(tmp_path).close()


def test_a_forked_child_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    reading, writing = os.pipe()

    def child() -> None:
        os.close(writing)
        with pytest.raises(StoreClosed, match="forked child"):
            store.get(Db.STATE, b"g", b"s")
        os.read(reading, 1)  # until the parent has opened the directory again

    pid = fork_child(child)
    store.close()
    Store(tmp_path).close()
    os.close(writing)
    os.close(reading)
    assert wait_for(pid) == 0


def test_a_child_that_has_not_closed_its_descriptors_yet_keeps_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert isinstance(store._lock, DirectoryLock)
    # The same open file by another descriptor, as a child has it when fork has just made it.
    duplicate = os.dup(store._lock._descriptor)
    store.close()
    Store(tmp_path).close()
    os.close(duplicate)


def test_a_forked_child_cannot_open_the_directory_its_parent_has(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def child() -> None:
        with pytest.raises(DataDirectoryInUse):
            Store(tmp_path)

    assert wait_for(fork_child(child)) == 0
    store.close()


def test_a_directory_with_other_files_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is not a perdure data directory"):
        Store(tmp_path)
    assert listing(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("database", [b"meta", b"rows"])
def test_an_lmdb_file_of_another_program_is_refused_and_left_as_it_is(
    tmp_path: Path, database: bytes
) -> None:
    with (
        lmdb.open(str(tmp_path), max_dbs=2) as other,
        other.begin(write=True, db=other.open_db(database)) as transaction,
    ):
        transaction.put(b"key", b"value")
    before = listing(tmp_path)
    with pytest.raises(StoreError, match="is not a perdure data directory"):
        Store(tmp_path)
    assert listing(tmp_path) == before


def test_a_data_file_that_is_not_lmdb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_text("not lmdb at all")
    with pytest.raises(StoreError, match="is not a perdure data directory"):
        Store(tmp_path)
    assert listing(tmp_path) == {"data.mdb": b"not lmdb at all"}


def test_a_copy_of_the_data_file_alone_is_a_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    store.put(Db.STATE, b"g", b"s", b"v")
    store.seal()
    store.close()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "data.mdb").write_bytes((tmp_path / "a" / "data.mdb").read_bytes())
    restored = Store(tmp_path / "b")
    assert restored.get(Db.STATE, b"g", b"s") == b"v"
    restored.close()


def test_a_newer_schema_is_refused_and_both_versions_are_named(tmp_path: Path) -> None:
    Store(tmp_path).close()
    write_meta(tmp_path, b"schema", (SCHEMA_VERSION + 6).to_bytes(4, "little"))
    with pytest.raises(StoreError, match=r"schema version 7; .* up to 1: install a newer"):
        Store(tmp_path)


def test_a_path_that_is_a_file_or_lies_in_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"is a file, or lies in one; name a directory"):
            Store(path)


def test_a_directory_without_the_rights_to_it_is_a_clear_error(tmp_path: Path) -> None:
    writable, locked = tmp_path / "writable", tmp_path / "locked"
    Store(writable).close()
    locked.mkdir()
    nobody = 65534

    def child() -> None:
        if os.geteuid() == 0:
            os.chmod(tmp_path, 0o755)
            for parent in tmp_path.parents[:-2]:
                os.chmod(parent, 0o755)
            os.setgid(nobody)
            os.setuid(nobody)
        else:
            os.chmod(locked, 0o500)
            os.chmod(writable, 0o500)
            (writable / "perdure.lock").unlink(missing_ok=True)
        with pytest.raises(StoreError, match=r"cannot write to .*locked: Permission denied: give"):
            Store(locked)
        with pytest.raises(StoreError, match="Permission denied: give"):
            Store(locked / "below")
        with pytest.raises(StoreError, match="Permission denied"):
            Store(writable)

    assert wait_for(fork_child(child)) == 0


def test_a_store_killed_before_its_first_commit_is_new(tmp_path: Path) -> None:
    Store(tmp_path).close()
    for content in (b"", None):
        if content is None:
            (tmp_path / "data.mdb").unlink()
        else:
            (tmp_path / "data.mdb").write_bytes(content)
        Store(tmp_path).close()


def test_os_durability_warns_after_another_boot_unless_it_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "read_boot_id", lambda: "boot-1")
    store = Store(tmp_path, durability="os")
    store.close(flush=False)
    same_boot = Store(tmp_path, durability="os")
    assert same_boot.warnings == []
    same_boot.close(flush=False)
    monkeypatch.setattr(directory, "read_boot_id", lambda: "boot-2")
    after = Store(tmp_path, durability="os")
    assert len(after.warnings) == 1
    assert "restore a backup" in after.warnings[0]
    after.close()
    monkeypatch.setattr(directory, "read_boot_id", lambda: "boot-3")
    clean = Store(tmp_path)
    assert clean.warnings == []
    clean.close()


def test_a_warning_is_given_once_the_next_store_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "read_boot_id", lambda: "boot-1")
    Store(tmp_path, durability="os").close(flush=False)
    monkeypatch.setattr(directory, "read_boot_id", lambda: "boot-2")
    for warnings in (1, 0):
        store = Store(tmp_path)
        store.close()
        assert len(store.warnings) == warnings


def test_what_a_killed_process_left_of_making_the_file_is_made_anew(tmp_path: Path) -> None:
    partial = tmp_path / ".perdure-new.partial"
    partial.mkdir()
    (partial / "data.mdb").write_bytes(b"half")
    Store(tmp_path).close()
    assert not partial.exists()
    assert (tmp_path / "data.mdb").exists()


def test_a_memory_store_leaves_nothing_behind_and_several_live_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        directory, "make_memory_directory", lambda: Path(make_numbered(tmp_path / "memory"))
    )
    stores = [Store("label", durability="memory") for _ in range(3)]
    for number, store in enumerate(stores):
        store.put(Db.STATE, b"g", b"s", b"%d" % number)
        store.wait_committed(store.seal())
        store.on_event()
    assert [store.get(Db.STATE, b"g", b"s") for store in stores] == [b"0", b"1", b"2"]
    assert list((tmp_path / "memory").iterdir()) == []
    for store in stores:
        store.close()
    assert not Path("label").exists()


def make_numbered(parent: Path) -> str:
    path = parent / "one"
    path.mkdir(parents=True)
    return str(path)


def test_an_unknown_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fsync', 'os' or 'memory'"):
        Store(tmp_path, durability="sometimes")  # type: ignore[arg-type]


def test_a_store_that_could_not_be_opened_lets_the_directory_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).close()
    data = (tmp_path / "data.mdb").read_bytes()
    (tmp_path / "data.mdb").write_bytes(data[:9000])
    with pytest.raises(StoreCorrupt):
        Store(tmp_path)
    (tmp_path / "data.mdb").write_bytes(data)
    Store(tmp_path).close()
