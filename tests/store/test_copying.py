"""A copy of one snapshot is made while the environment is read and written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_support import META, ROWS, commit, open_environment

from perdure._journal import Environment
from perdure.errors import StoreClosed, StoreError


class SlowCopy:
    """A copy to a pipe that holds it up until :meth:`finish`, which gives what was copied."""

    def __init__(self, environment: Environment) -> None:
        self.error: BaseException | None = None
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(environment,))
        self._thread.start()
        self._begun = os.read(self._reading, 1)

    def _copy(self, environment: Environment) -> None:
        try:
            environment.copy(self._writing)
        except BaseException as error:
            self.error = error
        finally:
            os.close(self._writing)

    def finish(self) -> bytes:
        parts = [self._begun]
        while part := os.read(self._reading, 1 << 20):
            parts.append(part)
        os.close(self._reading)
        self._thread.join()
        return b"".join(parts)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """One with more than LMDB writes at a time."""
    environment = open_environment(tmp_path / "source", map_size=8 << 20)
    for number in range(40):
        environment.put(ROWS, b"%02d" % number, b"v" * 100_000)
    commit(environment)
    yield environment
    environment.close()


@pytest.fixture(autouse=True)
def _source(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()


def test_reads_and_commits_go_on_while_a_copy_is_made_and_are_not_in_it(
    environment: Environment, tmp_path: Path
) -> None:
    copy = SlowCopy(environment)
    environment.put(ROWS, b"later", b"1")
    commit(environment)
    assert environment.get(ROWS, b"later") == b"1"
    data = copy.finish()
    assert copy.error is None
    (tmp_path / "data.mdb").write_bytes(data)
    # Databases in another order: it is shorter than the size that it records.
    copied = Environment(str(tmp_path), databases=("rows", "meta"), map_size=1 << 30, durability=1)
    assert copied.get(0, b"00") == b"v" * 100_000
    assert copied.get(0, b"later") is None
    copied.close()


def test_growth_of_the_map_waits_for_the_end_of_a_copy(environment: Environment) -> None:
    copy = SlowCopy(environment)
    environment.put(ROWS, b"much", b"v" * (16 << 20))
    unit = environment.seal()
    assert not environment.wait(unit, 0.05)
    assert environment.get(ROWS, b"00") is not None
    copy.finish()
    assert environment.wait(unit, 10)
    assert copy.error is None


def test_closing_stops_a_copy(environment: Environment) -> None:
    copy = SlowCopy(environment)
    closing = threading.Thread(target=environment.close)
    closing.start()
    while not _is_closed(environment):
        pass
    copy.finish()
    closing.join(10)
    assert not closing.is_alive()
    assert isinstance(copy.error, StoreClosed)


def _is_closed(environment: Environment) -> bool:
    try:
        environment.get(META, b"file_size")
    except StoreClosed:
        return True
    return False


def test_a_stopped_copy_fails_and_the_next_one_is_whole(
    environment: Environment, tmp_path: Path
) -> None:
    copy = SlowCopy(environment)
    environment.stop_copy()
    copy.finish()
    assert isinstance(copy.error, StoreClosed)
    with (tmp_path / "next").open("wb") as file:
        environment.copy(file.fileno())
        assert os.fstat(file.fileno()).st_size > 4_000_000


def test_one_copy_is_made_at_a_time(environment: Environment, tmp_path: Path) -> None:
    copy = SlowCopy(environment)
    with (
        (tmp_path / "second").open("wb") as file,
        pytest.raises(StoreError, match="another copy is being made"),
    ):
        environment.copy(file.fileno())
    copy.finish()
    assert copy.error is None


def test_a_copy_that_can_not_be_written_is_an_error_and_harms_nothing(
    environment: Environment,
) -> None:
    with open("/dev/full", "wb") as full, pytest.raises(StoreError, match="No space left"):
        environment.copy(full.fileno())
    environment.put(ROWS, b"later", b"1")
    commit(environment)


def test_a_copy_has_no_unused_pages(environment: Environment, tmp_path: Path) -> None:
    for number in range(39):
        environment.delete(ROWS, b"%02d" % number)
    commit(environment)
    with (tmp_path / "copy").open("wb") as file:
        environment.copy(file.fileno())
    assert (tmp_path / "copy").stat().st_size < 200_000 < environment.file_bytes
