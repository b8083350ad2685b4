"""The check of a data directory: what is damaged or missing is found, named, and has a remedy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run
from filled_support import fill
from introspection_support import Echo
from invariants import violations

from perdure._core._entries import LOGIC_VERSION, Entry, Kind
from perdure._doctor import DoctorReport, Severity, check_directory
from perdure._doctor import _outside as outside
from perdure._journal import encode_entries
from perdure._store import Db, Store
from perdure._store import _directory as directory
from perdure._viewing import View


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed data directory that has a row in every database."""
    return fill(tmp_path_factory.mktemp("doctor") / "data")


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


def rows_of(store: Store, db: Db) -> list[tuple[bytes, bytes]]:
    return store.scan_committed(db)


def remove(path: Path, db: Db, which: Callable[[bytes, bytes], bool] = lambda *_: True) -> None:
    """Remove the first row that is meant."""
    store = Store(path, durability="os")
    key = next(key for key, value in rows_of(store, db) if which(key, value))
    store.delete(db, b"", key)
    store.seal()
    store.close()


def put(path: Path, db: Db, key: bytes, value: bytes) -> None:
    store = Store(path, durability="os")
    store.put(db, b"", key, value)
    store.seal()
    store.close()


def flip(path: Path, needle: bytes) -> None:
    """Flip a bit in the last byte of *needle*, wherever it is in the file."""
    file = path / "data.mdb"
    data = bytearray(file.read_bytes())
    assert needle in data
    at = -1
    while (at := data.find(needle, at + 1)) >= 0:
        data[at + len(needle) - 1] ^= 0x10
    file.write_bytes(data)


def errors_of(report: DoctorReport) -> list[str]:
    assert report.ok == (not any(each.severity is Severity.ERROR for each in report.findings))
    return [f"{each.place}: {each.what}" for each in report.findings if each.severity == "error"]


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_directory_is_ok_and_no_byte_of_it_changes(path: Path, deep: bool) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    told: list[tuple[int, int]] = []
    report = check_directory(path, deep=deep, progress=lambda *each: told.append(each))
    assert report.findings == []
    assert report.ok
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    facts = report.facts
    assert facts["schema_version"] == 1
    assert facts["durability"] == "os clean"
    assert facts["recorded_bytes"] <= facts["file_bytes"] == (path / "data.mdb").stat().st_size
    assert facts["map_bytes"] == 1 << 40
    assert all(facts["rows"].values()), "every database has a row, so that every one is looked at"
    assert set(facts["logic_versions"]) == {str(LOGIC_VERSION)}
    assert "owner_pid" not in facts
    assert f"{path}: ok" in str(report)
    assert bool(told) == deep
    assert not told or told[-1][0] == told[-1][1]
    json.dumps(report.facts)


def test_a_flipped_bit_in_a_value_is_found_by_a_deep_check_with_database_and_key(
    path: Path,
) -> None:
    store = Store(path, durability="os")
    key, value = next(row for row in rows_of(store, Db.STATE))
    store.close()
    flip(path, key + value)
    (found,) = [each for each in check_directory(path, deep=True).findings if "state" in each.place]
    assert found.severity is Severity.ERROR
    assert found.what == "the checksum does not match"
    assert found.place.startswith("database state, key ")
    assert found.remedy == "restore it from a backup"


def test_a_damaged_row_does_not_hide_the_next_one(path: Path) -> None:
    store = Store(path, durability="os")
    for number in range(3):
        store.put(Db.SITES, b"", (1000 + number).to_bytes(4, "big"), b"site.py:%d in site" % number)
    store.seal()
    store.close()
    flip(path, b"site.py:0 in site")
    flip(path, b"site.py:2 in site")
    errors = errors_of(check_directory(path, deep=True))
    assert len(errors) == 2


def test_pages_that_end_the_process_that_reads_them_are_a_finding(
    filled: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"

    async def compact() -> None:  # so that no page of it is unused
        async with View(filled) as view:
            await view.backup(copy)

    run(compact())
    file = copy / "data.mdb"
    data = bytearray(file.read_bytes())
    for start in range(0, len(data), 4096):
        page = data[start : start + 4096]
        ours = b"durability" in page or b"awakeables" in page  # read before LMDB opens the file
        if start + 0xFFFE > len(data) and not ours:
            # Its rows lie beyond the file: LMDB goes there without a look.
            data[start + 16 : start + 216] = b"\xfe\xff" * 100
    file.write_bytes(data)
    (error,) = errors_of(check_directory(copy, deep=True))
    assert re.search("the process that read it was killed by SIG(SEGV|BUS|ABRT) at ", error), error
    assert "pages of the file are damaged" in error


def test_a_shortened_file_is_found_without_reading_the_rows(path: Path) -> None:
    file = path / "data.mdb"
    file.write_bytes(file.read_bytes()[:-4096])
    report = check_directory(path)
    (error,) = errors_of(report)
    assert "was cut short" in error
    assert report.findings[0].remedy == "restore it from a backup"
    assert "not ok" in str(report)


@pytest.mark.parametrize(
    ("db", "which", "expected"),
    [
        (Db.INVOCATIONS, lambda key, value: True, "has rows, but no record"),
        (Db.READY, lambda key, value: True, "but is not ready"),
        (Db.TIMERS, lambda key, value: key[24:] != bytes(4), "has no row for the timer of entry"),
        (Db.TIMERS, lambda key, value: value != b"", "but their timers are {}"),
        (Db.WAITERS, lambda key, value: key[:1] == b"p", "waits for promise 'go' by entry"),
        (Db.WAITERS, lambda key, value: key[:1] == b"o", "waits for the output of"),
        (Db.WAITERS, lambda key, value: key[:1] == b"s", "waits for signal 'go' by entry"),
        (Db.WAITERS, lambda key, value: key[:1] == b"b", "has back-offs {}"),
        (Db.WAITERS, lambda key, value: key[:1] == b"e", "no run, and no row by which they go"),
        (Db.AWAKEABLES, lambda key, value: True, "or a wrong one, for the awakeable of entry"),
        (Db.PAUSED, lambda key, value: True, "notifications that wait, but is not ready"),
        (Db.INBOX, lambda key, value: True, "is in several places|has not begun, but is not ready"),
        (Db.EXPIRY, lambda key, value: key[24] == 1, "but 0 rows say when it goes"),
        (Db.EXPIRY, lambda key, value: key[24] == 2, "has promises, and no row by which they go"),
        (Db.TARGETS, lambda key, value: b"Gate" in value, "has state or promises, but no run"),
        (Db.JOURNAL, lambda key, value: key[16:] == bytes(4), "which waits for none|has completed"),
    ],
    ids=lambda value: value.name if isinstance(value, Db) else "",
)
def test_a_missing_row_is_found(
    path: Path, db: Db, which: Callable[[bytes, bytes], bool], expected: str
) -> None:
    remove(path, db, which)
    found = violations(path)
    assert any(part in each for each in found for part in expected.split("|")), found


def test_an_idempotency_key_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        async with Place(tmp_path / "data", 10_000).engine(Echo()) as engine:
            await engine.send(Echo.say, 1, delay=3600, idempotency_key="once")

    run(main())
    assert check_directory(tmp_path / "data", deep=True).ok
    remove(tmp_path / "data", Db.TARGETS)
    (error,) = errors_of(check_directory(tmp_path / "data", deep=True))
    assert "is not found by its idempotency key" in error


def test_a_quick_check_reads_no_rows(path: Path) -> None:
    remove(path, Db.INVOCATIONS)
    assert not check_directory(path, deep=True).ok
    assert check_directory(path).ok


def test_an_invocation_in_two_places_is_found(path: Path) -> None:
    store = Store(path, durability="os")
    ((paused, _),) = rows_of(store, Db.PAUSED)
    store.close()
    put(path, Db.READY, paused, b"")
    (error,) = errors_of(check_directory(path, deep=True))
    assert "(Gate.run 'paused'): is in several places: ready, paused" in error


def test_a_row_with_a_good_checksum_that_perdure_did_not_write_is_found(path: Path) -> None:
    put(path, Db.WAITERS, b"?what", b"")
    (error,) = errors_of(check_directory(path, deep=True))
    assert "database waiters, key 3f77686174: the row is none of perdure's" in error


@pytest.mark.parametrize("db", [Db.INVOCATIONS, Db.OUTPUTS, Db.PENDING, Db.PAUSED, Db.PROMISES])
@pytest.mark.parametrize("value", [b"", b"\xff", b"\x83\x01", b"?"], ids=repr)
def test_no_value_with_a_good_checksum_ends_the_check(path: Path, db: Db, value: bytes) -> None:
    store = Store(path, durability="os")
    key = rows_of(store, db)[0][0]
    store.close()
    put(path, db, key, value)
    put(path, Db.WAITERS, b"?what", b"")
    errors = errors_of(check_directory(path, deep=True))
    assert any("database waiters, key 3f77686174" in error for error in errors), errors
    assert not any("the process that read it" in error for error in errors), errors


def test_a_journal_whose_entries_can_not_be_read_names_its_invocation(path: Path) -> None:
    store = Store(path, durability="os")
    key = rows_of(store, Db.JOURNAL)[0][0]
    store.close()
    put(path, Db.JOURNAL, key, b"\0\x01\0\0\0")
    errors = errors_of(check_directory(path, deep=True))
    assert any(error.startswith("inv_") and "can not be read" in error for error in errors)


@pytest.mark.parametrize("deep", [False, True])
def test_journals_begun_under_other_versions_are_told(path: Path, deep: bool) -> None:
    store = Store(path, durability="os")
    unfinished = rows_of(store, Db.PAUSED)[0][0]
    store.close()
    start = Entry(Kind.START, LOGIC_VERSION + 1, "3.1", None, 1_700_000_000_000)
    put(path, Db.JOURNAL, unfinished + bytes(4), encode_entries([start]))
    report = check_directory(path, deep=deep)
    whats = [each.what for each in report.findings]
    assert "1 unfinished invocations were begun by a newer perdure" in whats
    assert "1 unfinished invocations began under Python 3.1" in whats
    assert not report.ok


@pytest.mark.parametrize("deep", [False, True])
def test_a_directory_in_use_is_not_read_and_the_owner_is_named(
    resident_place: Place, deep: bool
) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            report = check_directory(resident_place.path, deep=deep)
        (finding,) = report.findings
        assert f"in use by process {os.getpid()}" in finding.what
        assert "Its rows were not read" in finding.what
        assert report.facts["owner_pid"] == os.getpid()
        assert report.ok is not deep

    run(main())


def test_what_is_no_data_directory_is_a_finding(tmp_path: Path) -> None:
    assert "there is no directory" in errors_of(check_directory(tmp_path / "missing"))[0]
    assert "is no data directory of perdure" in errors_of(check_directory(tmp_path))[0]
    (tmp_path / "data.mdb").write_text("a thesis")
    assert "not a perdure data directory" in errors_of(check_directory(tmp_path))[0]


def test_a_directory_left_by_another_boot_is_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(directory, "read_boot_id", lambda: "another boot")
        store = Store(path, durability="os")
        store.wait_committed(store.sealed)
        store.close(flush=False)
    report = check_directory(path)
    assert report.ok
    (finding,) = report.findings
    assert "was in use with durability='os' when the machine stopped" in finding.what


def test_a_full_disk_is_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_FREE_BYTES_MIN", 1 << 62)
    report = check_directory(path)
    assert report.ok
    assert "bytes left" in report.findings[0].what


def test_an_interrupted_check_leaves_no_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_directory(path, deep=True, progress=interrupt)
    assert started[0].returncode is not None
