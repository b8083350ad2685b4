"""Bytes that perdure did not write like that are an error that names them, never a value."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest
from store_support import JOURNAL, META, ROWS, Entry, commit, open_environment

from perdure._journal import crc32c
from perdure._store import Db, Store
from perdure.errors import StoreCorrupt

PREFIX = b"i" * 16
CHUNK_KEY = PREFIX + b"\0\0\0\1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    environment = open_environment(tmp_path)
    environment.put(ROWS, b"before", b"1")
    environment.put(ROWS, b"key", b"a value to be found")
    environment.put_entries(JOURNAL, CHUNK_KEY, [Entry(1, name="an entry to be found")])
    commit(environment)
    environment.close()
    return tmp_path


def overwrite(path: Path, database: bytes, key: bytes, value: bytes) -> None:
    """Store *value* as it is, without our checksum, by another program."""
    with (
        lmdb.open(str(path), max_dbs=20) as other,
        other.begin(write=True, db=other.open_db(database, create=False)) as transaction,
    ):
        transaction.put(key, value)


def sealed(key: bytes, value: bytes) -> bytes:
    return value + crc32c(value, crc32c(key)).to_bytes(4, "little")


def flip(path: Path, needle: bytes) -> None:
    file = path / "data.mdb"
    data = bytearray(file.read_bytes())
    assert needle in data
    at = -1
    while (at := data.find(needle, at + 1)) >= 0:
        data[at] ^= 0x10
    file.write_bytes(data)


def test_a_flipped_bit_in_a_value_is_found_by_get_and_scan(path: Path) -> None:
    flip(path, b"a value to be found")
    environment = open_environment(path)
    where = f"database 'rows', key {b'key'.hex()}: the checksum"
    with pytest.raises(StoreCorrupt, match=where):
        environment.get(ROWS, b"key")
    with pytest.raises(StoreCorrupt, match=where):
        environment.scan(ROWS, b"", None)
    assert environment.get(ROWS, b"before") == b"1"
    environment.close()


def test_a_flipped_bit_in_a_key_is_found_too(path: Path) -> None:
    flip(path, b"keya value")
    environment = open_environment(path)
    with pytest.raises(StoreCorrupt, match=f"key {b'{ey'.hex()}: the checksum"):
        environment.get(ROWS, b"{ey")
    environment.close()


def test_a_flipped_bit_in_a_journal_chunk_is_found(path: Path) -> None:
    flip(path, b"an entry to be found")
    environment = open_environment(path)
    with pytest.raises(StoreCorrupt, match=f"'journal', key {CHUNK_KEY.hex()}: the checksum"):
        environment.read_chunks(JOURNAL, PREFIX, 0, Entry)
    environment.close()


@pytest.mark.parametrize("value", [b"", b"abc"])
def test_a_value_too_short_for_a_checksum_is_found(path: Path, value: bytes) -> None:
    overwrite(path, b"rows", b"key", value)
    environment = open_environment(path)
    for read in (
        lambda: environment.get(ROWS, b"key"),
        lambda: environment.scan(ROWS, b"", None),
    ):
        with pytest.raises(StoreCorrupt, match="too short"):
            read()
    environment.close()


def test_a_chunk_with_a_good_checksum_and_bad_entries_names_its_key(path: Path) -> None:
    overwrite(path, b"journal", CHUNK_KEY, sealed(CHUNK_KEY, b"\0\x01\0\0\0"))
    environment = open_environment(path)
    with pytest.raises(StoreCorrupt, match=rf"{CHUNK_KEY.hex()}: .*byte 2: an entry has kind 0"):
        environment.read_chunks(JOURNAL, PREFIX, 0, Entry)
    environment.close()


def test_values_written_by_another_program_with_the_checksum_are_read(path: Path) -> None:
    overwrite(path, b"rows", b"key", sealed(b"key", b"new"))
    environment = open_environment(path)
    assert environment.get(ROWS, b"key") == b"new"
    environment.close()


def test_a_file_shorter_than_recorded_is_not_opened(path: Path) -> None:
    size = (path / "data.mdb").stat().st_size
    overwrite(path, b"meta", b"file_size", sealed(b"file_size", (10**9).to_bytes(8, "little")))
    with pytest.raises(StoreCorrupt, match=rf"has {size} bytes, but had 1000000000"):
        open_environment(path)


def test_a_corrupt_file_size_is_not_believed(path: Path) -> None:
    overwrite(path, b"meta", b"file_size", b"\0" * 12)
    with pytest.raises(StoreCorrupt, match="checksum"):
        open_environment(path)
    overwrite(path, b"meta", b"file_size", b"\0" * 3)
    with pytest.raises(StoreCorrupt, match="too short"):
        open_environment(path)
    assert META == 0


def test_a_file_that_is_not_lmdb_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no such thing " * 1000)
    with pytest.raises(StoreCorrupt, match="not an LMDB file"):
        open_environment(tmp_path)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    store = Store(path)
    for number in range(300):
        store.put(Db.STATE, b"g", b"%04d" % number, b"v" * 1000)
    store.wait_committed(store.seal())
    store.close()
    return path


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1])
def test_a_store_that_was_cut_short_is_corrupt_and_both_sizes_are_named(
    store_path: Path, keep: float
) -> None:
    file = store_path / "data.mdb"
    size = file.stat().st_size
    with file.open("r+b") as data:
        data.truncate(int(size * keep))
    with pytest.raises(StoreCorrupt, match=rf"has {int(size * keep)} bytes.* \d+.*cut short"):
        Store(store_path)


def test_a_store_of_any_shorter_length_is_refused_and_left_as_it_is(store_path: Path) -> None:
    file = store_path / "data.mdb"
    whole = file.read_bytes()
    for length in (*range(1, 40_000, 977), len(whole) - 4096, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(StoreCorrupt):
            Store(store_path)
        assert file.stat().st_size == length
    file.write_bytes(whole)
    Store(store_path).close()


def test_a_damaged_first_page_is_corrupt(store_path: Path) -> None:
    file = store_path / "data.mdb"
    file.write_bytes(b"\xff" * 4096 + file.read_bytes()[4096:])
    with pytest.raises(StoreCorrupt, match="damaged"):
        Store(store_path)
