"""SIGKILL at every point, and at any time: whole units, in order, all acknowledged ones."""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Literal

import pytest
from store_support import Entry, fork_child, kill_myself, wait_for

from perdure._store import Db, Store

UNITS = 6
GROUP = b"g" * 16
SEEDS = [*range(10), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(10, 100))]


def unit_rows(number: int) -> Iterator[tuple[Db, bytes, bytes]]:
    """What unit *number* puts, apart from its journal chunk and its predecessor's deletion."""
    yield Db.STATE, b"counter", str(number).encode()
    yield Db.STATE, b"only%06d" % number, b"x" * (number * 997 % 9000)
    yield Db.PROMISES, b"p%06d" % number, b"promise"
    yield Db.READY, b"r%06d" % number, b""


def workload(store: Store, acknowledge: int, units: int) -> Iterator[int]:
    """Yields between every two things it does: the number of the last unit it has sealed."""
    for number in range(1, units + 1):
        for db, suffix, value in unit_rows(number):
            store.put(db, GROUP, suffix, value)
            yield number - 1
        store.delete(Db.READY, GROUP, b"r%06d" % (number - 1))
        yield number - 1
        store.put_journal(GROUP, number, [Entry(1, number), Entry(2, number)])
        yield number - 1
        unit = store.seal()
        yield number
        if number % 2 == 0:
            store.wait_committed(unit)
            yield number
            store.on_event()
            os.write(acknowledge, number.to_bytes(4, "big"))
            yield number


def points() -> list[int]:
    """For each place where the workload can be killed, the units it has sealed by then."""
    store = Store("label", durability="memory")
    sink = os.open(os.devnull, os.O_WRONLY)
    sealed = [0, *workload(store, sink, UNITS)]
    os.close(sink)
    store.close()
    return sealed


def survivor(path: Path) -> int:
    """Reopen after the crash, check that whole units are there, return the last one's number."""
    store = Store(path)
    counter = store.get(Db.STATE, GROUP, b"counter")
    last = int(counter or b"0")
    states: dict[bytes, bytes] = {}
    promises: list[bytes] = []
    for number in range(1, last + 1):
        for db, suffix, value in unit_rows(number):
            if db is Db.STATE:
                states[suffix] = value
            elif db is Db.PROMISES:
                promises.append(suffix)
    assert dict(store.scan(Db.STATE, GROUP)) == states
    assert [suffix for suffix, _ in store.scan(Db.PROMISES, GROUP)] == promises
    assert [suffix for suffix, _ in store.scan(Db.READY, GROUP)] == (
        [b"r%06d" % last] if last else []
    )
    chunks: list[int] = []
    while page := store.journal(GROUP, chunks[-1] + 1 if chunks else 0, Entry):
        for index, entries in page:
            assert entries == [Entry(1, index), Entry(2, index)]
            chunks.append(index)
    assert chunks == list(range(1, last + 1))
    store.close()
    return last


def read_acknowledged(descriptor: int) -> list[int]:
    data = b""
    while part := os.read(descriptor, 65536):
        data += part
    os.close(descriptor)
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data) - 3, 4)]


@pytest.mark.parametrize("writer", ["busy", "idle"])
@pytest.mark.parametrize(("crash_at", "sealed"), list(enumerate(points())))
def test_a_kill_between_any_two_steps_leaves_whole_units_and_all_acknowledged(
    tmp_path: Path, crash_at: int, sealed: int, writer: str
) -> None:
    reading, writing = os.pipe()

    def child() -> None:
        store = Store(tmp_path / "data")
        for _ in islice(workload(store, writing, UNITS), crash_at):
            pass
        if writer == "idle":  # whatever reached the writer is on the disk, were it half a unit
            store.wait_committed(store.sealed)
        kill_myself()

    pid = fork_child(child)
    os.close(writing)
    acknowledged = read_acknowledged(reading)
    assert wait_for(pid) == -signal.SIGKILL
    last = survivor(tmp_path / "data")
    assert max(acknowledged, default=0) <= last <= sealed
    if writer == "idle":
        assert last == sealed


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_at_any_time_leaves_whole_units_and_all_acknowledged(
    tmp_path: Path, seed: int, durability: Literal["fsync", "os"]
) -> None:
    choose = random.Random(seed)
    path = tmp_path / "data"
    before = 0
    for _ in range(3 if seed % 2 else 1):  # crash again, in a store that has crashed before
        reading, writing = os.pipe()

        def child(first: int = before, writing: int = writing) -> None:
            store = Store(path, durability=durability)
            for number, _ in enumerate(workload_from(store, writing, first + 1)):
                if number % 5 == 0:
                    store.on_event()

        pid = fork_child(child)
        os.close(writing)
        # Killed after a random number of acknowledgements and a random stretch of time.
        data = b""
        for _ in range(choose.randrange(1, 40)):
            data += os.read(reading, 4)
        for _ in range(choose.randrange(20_000)):
            pass
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        acknowledged = [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]
        acknowledged += read_acknowledged(reading)
        assert wait_for(pid) == -signal.SIGKILL
        last = survivor(path)
        assert last >= max(acknowledged) > before
        before = last


def workload_from(store: Store, acknowledge: int, first: int) -> Iterator[None]:
    """The workload without an end, from unit *first* on, with the writer always behind."""
    in_flight: deque[tuple[int, int]] = deque()
    for number in count(first):
        for db, suffix, value in unit_rows(number):
            store.put(db, GROUP, suffix, value)
        store.delete(Db.READY, GROUP, b"r%06d" % (number - 1))
        store.put_journal(GROUP, number, [Entry(1, number), Entry(2, number)])
        in_flight.append((number, store.seal()))
        yield
        if len(in_flight) > 5:
            oldest, unit = in_flight.popleft()
            store.wait_committed(unit)
            os.write(acknowledge, oldest.to_bytes(4, "big"))
            yield
