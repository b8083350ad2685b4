"""Units, rows, scans and limits of one environment."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_support import JOURNAL, META, ROWS, Entry, commit, everything, open_environment

from perdure._journal import Environment, encode_entries
from perdure.errors import StoreClosed, StoreCorrupt, StoreError


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    opened = open_environment(tmp_path)
    yield opened
    opened.close()


def test_a_committed_row_is_read_back_and_an_open_one_is_not(environment: Environment) -> None:
    environment.put(ROWS, b"key", b"value")
    assert environment.get(ROWS, b"key") is None
    commit(environment)
    assert environment.get(ROWS, b"key") == b"value"


@pytest.mark.parametrize("value", [b"", b"\0", b"x" * 4095, b"x" * 100_000])
def test_a_value_of_any_length_comes_back_whole(environment: Environment, value: bytes) -> None:
    environment.put(ROWS, b"k" * 511, value)
    commit(environment)
    assert environment.get(ROWS, b"k" * 511) == value


def test_operations_of_a_unit_are_applied_in_their_order(environment: Environment) -> None:
    environment.put(ROWS, b"a", b"1")
    environment.delete(ROWS, b"a")
    environment.delete(ROWS, b"b")
    environment.put(ROWS, b"b", b"1")
    environment.put(ROWS, b"b", b"2")
    commit(environment)
    assert everything(environment) == {b"b": b"2"}


def test_units_are_numbered_from_one_and_an_empty_one_is_not_counted(
    environment: Environment,
) -> None:
    assert environment.seal() == 0
    for number in (1, 2):
        environment.put(ROWS, b"key", b"value")
        assert environment.seal() == number
    assert environment.seal() == 2
    assert environment.wait(2, None)
    assert (environment.sealed, environment.committed) == (2, 2)


def test_discarded_operations_are_never_written(environment: Environment) -> None:
    environment.put(ROWS, b"dropped", b"")
    environment.put_entries(JOURNAL, b"i" * 20, [Entry(1)])
    assert environment.open_bytes > 0
    environment.discard()
    assert environment.open_bytes == 0
    environment.put(ROWS, b"kept", b"")
    commit(environment)
    assert everything(environment) == {b"kept": b""}
    assert environment.count(JOURNAL) == 0


def test_bytes_count_as_uncommitted_until_their_unit_commits(environment: Environment) -> None:
    environment.put(ROWS, b"key", b"v" * 1000)
    unit = environment.seal()
    assert environment.wait(unit, None)
    assert environment.uncommitted_bytes == 0


def test_the_event_descriptor_is_readable_after_a_commit_and_not_once_cleared(
    environment: Environment,
) -> None:
    poll = select.poll()
    poll.register(environment.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    environment.put(ROWS, b"key", b"value")
    environment.seal()
    assert poll.poll(60_000)
    environment.clear_event()
    assert poll.poll(0) == []


@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_a_key_is_of_1_to_511_bytes(environment: Environment, key: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: environment.put(ROWS, key, b""),
        lambda: environment.delete(ROWS, key),
        lambda: environment.get(ROWS, key),
        lambda: environment.put_entries(ROWS, key, []),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="1 to 511 bytes"):
            call()
    assert environment.open_bytes == 0


@pytest.mark.parametrize("db", [-1, 3, 2**31 - 1])
def test_a_database_that_does_not_exist_is_refused(environment: Environment, db: int) -> None:
    for call in (
        lambda: environment.put(db, b"k", b""),
        lambda: environment.get(db, b"k"),
        lambda: environment.scan(db, b"", None),
        lambda: environment.count(db),
    ):
        with pytest.raises(ValueError, match="no database"):
            call()


@pytest.mark.parametrize(("key", "value"), [("k", b""), (b"k", "v"), (None, b""), (b"k", None)])
def test_keys_and_values_are_bytes(environment: Environment, key: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        environment.put(ROWS, key, value)
    assert environment.open_bytes == 0


def test_entries_that_cannot_be_encoded_leave_the_open_unit_as_it_was(
    environment: Environment,
) -> None:
    environment.put(ROWS, b"before", b"1")
    size = environment.open_bytes
    with pytest.raises(OverflowError):
        environment.put_entries(JOURNAL, b"j" * 20, [Entry(1), Entry(2**40)])
    assert environment.open_bytes == size
    environment.put(ROWS, b"after", b"2")
    commit(environment)
    assert everything(environment) == {b"before": b"1", b"after": b"2"}
    assert environment.count(JOURNAL) == 0


def test_entries_written_in_place_are_the_chunk_that_encode_entries_makes(
    environment: Environment,
) -> None:
    entries = [Entry(1, 2, "näme", b"payload", 3, 4, 5), Entry(9, payload=b"")]
    environment.put_entries(ROWS, b"key", entries)
    commit(environment)
    assert environment.get(ROWS, b"key") == encode_entries(entries)


@pytest.fixture
def filled(environment: Environment) -> Environment:
    for number in range(10):
        environment.put(ROWS, b"k%d" % number, b"v%d" % number)
    commit(environment)
    return environment


def keys(*numbers: int) -> list[bytes]:
    return [b"k%d" % number for number in numbers]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (b"", None, range(10)),
        (b"k3", b"k6", range(3, 6)),
        (b"k3", b"k6\0", range(3, 7)),
        (b"k3x", None, range(4, 10)),
        (b"k9", None, [9]),
        (b"k9x", None, []),
        (b"", b"k0", []),
        (b"", b"", []),
        (b"k5", b"k5", []),
        (b"k6", b"k3", []),
        (b"", b"z", range(10)),
    ],
)
def test_a_scan_is_half_open_in_both_directions(
    filled: Environment, start: bytes, stop: bytes | None, expected: list[int]
) -> None:
    forward = keys(*expected)
    assert [key for key, _ in filled.scan(ROWS, start, stop)] == forward
    assert filled.scan_keys(ROWS, start, stop) == forward
    assert filled.scan_keys(ROWS, start, stop, reverse=True) == forward[::-1]


def test_a_scan_ends_at_its_limit_or_when_enough_bytes_are_copied(filled: Environment) -> None:
    assert filled.scan_keys(ROWS, b"", None, limit=3) == keys(0, 1, 2)
    assert filled.scan_keys(ROWS, b"", None, limit=3, reverse=True) == keys(9, 8, 7)
    assert filled.scan(ROWS, b"", None, bytes_max=1) == [(b"k0", b"v0")]
    assert 1 < len(filled.scan(ROWS, b"", None, bytes_max=40)) < 10


def test_a_scan_of_an_empty_database_is_empty(environment: Environment) -> None:
    assert environment.scan(ROWS, b"", None) == []
    assert environment.scan(ROWS, b"", None, reverse=True) == []


def test_journal_chunks_are_read_in_the_order_of_their_index(environment: Environment) -> None:
    mine, other = b"m" * 16, b"n" * 16
    for index in (0, 1, 255, 256, 2**32 - 1):
        environment.put_entries(JOURNAL, mine + index.to_bytes(4, "big"), [Entry(1, index)])
    environment.put_entries(JOURNAL, other + bytes(4), [Entry(2)])
    commit(environment)
    chunks = environment.read_chunks(JOURNAL, mine, 1, Entry)
    assert [index for index, _ in chunks] == [1, 255, 256, 2**32 - 1]
    assert chunks[1] == (255, [Entry(1, 255)])
    assert type(chunks[1][1][0]) is Entry
    assert len(environment.read_chunks(JOURNAL, mine, 0, Entry, bytes_max=1)) == 1
    with pytest.raises(ValueError, match="16 bytes"):
        environment.read_chunks(JOURNAL, b"short", 0, Entry)


def test_a_journal_key_of_the_wrong_length_is_corrupt(environment: Environment) -> None:
    environment.put_entries(JOURNAL, b"m" * 16 + b"\0\0\0\0\0", [Entry(1)])
    commit(environment)
    with pytest.raises(StoreCorrupt, match="not a journal key"):
        environment.read_chunks(JOURNAL, b"m" * 16, 0, Entry)


def test_after_close_every_call_but_close_says_that_it_is_closed(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    environment.close()
    environment.close()
    for call in (
        lambda: environment.put(ROWS, b"k", b""),
        lambda: environment.delete(ROWS, b"k"),
        lambda: environment.put_entries(ROWS, b"k", []),
        environment.seal,
        environment.discard,
        environment.fileno,
        environment.clear_event,
        environment.sync,
        lambda: environment.get(ROWS, b"k"),
        lambda: environment.scan(ROWS, b"", None),
        lambda: environment.count(ROWS),
        lambda: environment.wait(0, None),
        lambda: environment.committed,
        lambda: environment.sealed,
        lambda: environment.uncommitted_bytes,
        lambda: environment.open_bytes,
        lambda: environment.failure,
    ):
        with pytest.raises(StoreClosed):
            call()


def test_close_commits_what_is_sealed_and_drops_what_is_open(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    for number in range(1000):
        environment.put(ROWS, b"%04d" % number, b"v" * 100)
        environment.seal()
    environment.put(ROWS, b"open", b"")
    environment.close()
    with_all = open_environment(tmp_path)
    assert with_all.count(ROWS) == 1000
    with_all.close()


def test_close_without_flush_leaves_a_prefix_of_the_sealed_units(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, durability=0)
    for number in range(1000):
        environment.put(ROWS, b"%04d" % number, b"")
        environment.seal()
    environment.close(flush=False)
    reopened = open_environment(tmp_path)
    rows = list(everything(reopened))
    assert rows == [b"%04d" % number for number in range(len(rows))]
    reopened.close()


def test_waiting_for_a_unit_that_was_never_sealed_is_an_error(environment: Environment) -> None:
    with pytest.raises(ValueError, match="not sealed"):
        environment.wait(1, 0)


def test_a_waiting_thread_learns_that_the_environment_was_closed(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    outcomes: list[object] = []

    def wait_for_each_unit() -> None:
        try:
            while True:
                outcomes.append(environment.wait(environment.sealed, None))
        except StoreClosed as error:
            outcomes.append(error)

    thread = threading.Thread(target=wait_for_each_unit)
    thread.start()
    for number in range(100):
        environment.put(ROWS, b"%d" % number, b"")
        environment.seal()
    environment.close()
    thread.join(60)
    assert isinstance(outcomes[-1], StoreClosed)


def test_one_file_is_not_opened_twice_in_a_process(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    with pytest.raises(StoreError, match="already open in this process"):
        open_environment(tmp_path)
    environment.close()
    open_environment(tmp_path).close()


def test_a_read_only_environment_reads_and_refuses_to_write(tmp_path: Path) -> None:
    with_rows = open_environment(tmp_path)
    with_rows.put(ROWS, b"k", b"v")
    with_rows.seal()
    with_rows.close()
    environment = open_environment(tmp_path, read_only=True)
    assert environment.get(ROWS, b"k") == b"v"
    with pytest.raises(StoreError, match="reading only"):
        environment.put(ROWS, b"k", b"w")
    with pytest.raises(StoreError, match="reading only"):
        environment.seal()
    environment.close()


def test_the_file_size_in_meta_is_that_of_the_file(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    for number in range(200):
        environment.put(ROWS, b"%d" % number, b"v" * 5000)
        environment.seal()
    environment.close()
    environment = open_environment(tmp_path)
    recorded = environment.get(META, b"file_size")
    assert recorded is not None
    assert int.from_bytes(recorded, "little") == (tmp_path / "data.mdb").stat().st_size
    environment.close()


@pytest.mark.parametrize(
    "bad",
    [
        {"databases": ()},
        {"databases": ("a", "a")},
        {"databases": ("a\0b",)},
        {"databases": ("",)},
        {"durability": 3},
        {"path": "a\0b"},
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"path": str(tmp_path), "databases": ("meta",), "durability": 1}
    arguments |= bad
    with pytest.raises(ValueError, match=r"databases|durability|path"):
        Environment(arguments.pop("path"), **arguments)


def test_a_directory_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*absent.*No such file"):
        open_environment(tmp_path / "absent")
