"""Restoring: a data directory made of a backup, checked before it has its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from engine_support import Place, run, until_idle
from introspection_support import Echo, Gate
from invariants import assert_invariants
from store_support import fork_child, kill_myself, wait_for

from perdure import DataDirectoryInUse, Engine, StoreCorrupt, StoreError, _restoring
from perdure._restoring import restore
from perdure._store import Db, Store


@pytest.fixture
def backup(resident_place: Place, tmp_path: Path) -> Path:
    """A backup in which a workflow waits."""

    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            await engine.send(Gate.run, 1, key="k")
            await until_idle(engine)
            await engine.backup(tmp_path / "backup")

    run(main())
    return tmp_path / "backup"


async def _goes_on(path: Path) -> None:
    async with Engine(path, [Gate()]) as engine:
        await engine.call(Gate.go, 41, key="k")
        assert await engine.submit(Gate.run, 0, key="k") == 42
    assert_invariants(path)


def test_an_engine_goes_on_from_the_moment_of_the_backup(backup: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    before = (backup / "data.mdb").read_bytes()
    restore(backup, tmp_path / "new", progress=lambda *each: told.append(each))
    size = len(before)
    assert told[-1] == (size, size)
    assert os.listdir(tmp_path / "new") == ["data.mdb"]
    assert os.listdir(backup) == ["data.mdb"]
    run(_goes_on(tmp_path / "new"))
    assert (backup / "data.mdb").read_bytes() == before


def test_the_file_of_a_backup_will_do(backup: Path, tmp_path: Path) -> None:
    file = (backup / "data.mdb").rename(tmp_path / "friday.mdb")
    restore(file, tmp_path / "new")
    run(_goes_on(tmp_path / "new"))


def test_the_directory_of_a_closed_engine_will_do(
    backup: Path, resident_place: Place, tmp_path: Path
) -> None:
    restore(resident_place.path, tmp_path / "new")
    run(_goes_on(tmp_path / "new"))


def test_an_empty_directory_is_filled_for_it_may_be_a_mount_point(
    backup: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    number = (tmp_path / "new").stat().st_ino
    restore(backup, tmp_path / "new")
    assert (tmp_path / "new").stat().st_ino == number
    run(_goes_on(tmp_path / "new"))


def test_a_directory_that_is_not_empty_is_refused_and_left_as_it_is(
    backup: Path, resident_place: Place
) -> None:
    before = {file.name: file.read_bytes() for file in resident_place.path.iterdir()}
    with pytest.raises(StoreError, match="is not empty: restore to a new directory"):
        restore(backup, resident_place.path)
    assert {file.name: file.read_bytes() for file in resident_place.path.iterdir()} == before


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "is no backup: a backup is a directory with a file data.mdb"),
        (lambda path: path.mkdir(), "is no backup: a backup is a directory with a file data.mdb"),
        (lambda path: path.write_text("a thesis"), "it is no file that perdure has written"),
        (lambda path: path.write_bytes(b""), "it is no file that perdure has written"),
        (lambda path: lmdb.open(str(path)).close(), "it is no file that perdure has written"),
    ],
    ids=["missing", "empty directory", "text", "empty file", "other LMDB file"],
)
def test_what_is_no_backup_is_refused_and_nothing_is_made(
    tmp_path: Path, make: Callable[[Path], object], expected: str
) -> None:
    make(tmp_path / "backup")
    with pytest.raises(StoreError, match=expected):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backup_that_was_cut_short_is_refused(backup: Path, tmp_path: Path) -> None:
    data = (backup / "data.mdb").read_bytes()
    (backup / "data.mdb").write_bytes(data[:-4096])
    with pytest.raises(StoreCorrupt, match="cut short"):
        restore(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_backup_is_refused_and_what_is_wrong_is_named(
    backup: Path, tmp_path: Path
) -> None:
    store = Store(backup, durability="os")
    key, value = store.scan_committed(Db.STATE)[0]
    store.close()
    data = bytearray((backup / "data.mdb").read_bytes())
    data[data.find(key + value) + len(key)] ^= 0x10
    (backup / "data.mdb").write_bytes(data)
    with pytest.raises(StoreCorrupt, match=r"backup/data\.mdb is no backup to restore: database"):
        restore(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_directory_of_an_open_engine_is_refused(resident_place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            with pytest.raises(DataDirectoryInUse):
                restore(resident_place.path, tmp_path / "new")

    run(main())
    assert not (tmp_path / "new").exists()


def test_nothing_else_comes_to_a_directory_that_is_being_restored(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, refused = _restoring._check, 0

    def intrude(source: Path, copy: Path) -> None:
        nonlocal refused
        monkeypatch.setattr(_restoring, "_check", check)
        with pytest.raises(DataDirectoryInUse, match="is restored to it"):
            restore(backup, tmp_path / "new")
        with pytest.raises(StoreError):
            Store(tmp_path / "new")
        refused += 1
        check(source, copy)

    monkeypatch.setattr(_restoring, "_check", intrude)
    restore(backup, tmp_path / "new")
    assert refused == 1
    run(_goes_on(tmp_path / "new"))


def test_an_engine_that_opens_a_directory_as_a_restore_begins_is_refused(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def intrude(*_: object) -> None:
        with pytest.raises(DataDirectoryInUse):
            Store(tmp_path / "new")
        raise OSError(0, "enough seen")

    monkeypatch.setattr(_restoring, "_fill", intrude)
    with pytest.raises(StoreError, match="enough seen"):
        restore(backup, tmp_path / "new")


def test_a_kill_in_the_middle_leaves_no_data_directory_and_the_next_restore_makes_one(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_restoring, "_check", lambda *_: kill_myself())
        pid = fork_child(lambda: restore(backup, tmp_path / "new"))
    assert wait_for(pid) == -9
    with pytest.raises(StoreError, match="not a perdure data directory"):
        Store(tmp_path / "new")
    restore(backup, tmp_path / "new")
    run(_goes_on(tmp_path / "new"))
