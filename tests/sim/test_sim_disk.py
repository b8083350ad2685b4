"""The simulated disk: what a new process finds after any death, against what was committed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import StoreCorrupt
from perdure.testing._sim_device import SECTOR, Device, Landed
from perdure.testing._sim_disk import Faults, PowerFailed, SectorDisk
from perdure.testing._sim_environment import Unit
from perdure.testing._sim_loop import SimLoop

LOOPS: list[SimLoop] = []


@pytest.fixture(autouse=True, scope="module")
def _close_loops() -> Iterator[None]:
    yield
    for loop in LOOPS:
        loop.close()


CALM = Faults(slow=0, stalled=0)


def make_disk(seed: int = 0, faults: Faults = CALM) -> SectorDisk:
    chance = random.Random(seed)
    loop = SimLoop(chance)
    LOOPS.append(loop)
    return SectorDisk(2, loop=loop, chance=chance, faults=faults)


def rows(disk: SectorDisk) -> list[dict[bytes, bytes]]:
    return [dict(table.values) for table in disk.tables]


def commit(disk: SectorDisk, *units: Unit) -> str | None:
    said: list[str | None] = []
    disk.write(units, said.append)
    disk.finish()
    if not said:
        raise PowerFailed
    return said[0]


OPERATIONS = st.tuples(
    st.integers(0, 1),
    st.sampled_from([b"a", b"b", b"c"]),
    st.none() | st.binary(max_size=3) | st.integers(500, 3000).map(bytes),
)
BATCHES = st.lists(st.lists(st.lists(OPERATIONS, max_size=3), min_size=1, max_size=3), max_size=6)
LANDED: st.SearchStrategy[Landed] = st.sampled_from(["none", "all", "some"])


@settings(deadline=None)
@given(batches=BATCHES, cut=st.integers(1, 12), landed=LANDED, seed=st.integers(0, 1 << 16))
def test_after_a_power_loss_at_any_sync_each_batch_is_there_whole_or_not_at_all(
    batches: list[list[Unit]], cut: int, landed: Landed, seed: int
) -> None:
    disk = make_disk(seed)
    states = [rows(disk)]

    def cut_power(number: int) -> None:
        if number == cut:
            raise PowerFailed

    disk.sync_begins = cut_power
    shadow = make_disk()
    try:
        for batch in batches:
            shadow.commit(batch)
            states.append(rows(shadow))
            assert commit(disk, *batch) is None
    except PowerFailed:
        in_flight = states[-2:]
    else:
        in_flight = states[-1:]
    disk.sync_begins = lambda _: None
    disk.power_loss(landed)
    assert rows(disk) in in_flight
    commit(disk, [(0, b"more", b"of it")])
    found = rows(disk)
    disk.power_loss("none")
    assert rows(disk) == found, "the next process builds on what it found"


def test_what_a_killed_process_wrote_is_read_by_the_next_and_lost_with_the_power() -> None:
    for at, present in ((1, False), (2, True)):
        disk = make_disk()
        steps = disk._write_batch([[(0, b"k", b"v")]])
        for _ in range(at):
            next(steps)  # up to the sync with this number
        disk.kill()
        assert (disk.tables[0].values == {b"k": b"v"}) is present
        disk.power_loss("none")
        assert disk.tables[0].values == {}


def test_of_one_sector_any_of_the_unsynced_writes_may_have_landed() -> None:
    found = set()
    for seed in range(50):
        device = Device()
        device.write(0, b"durable")
        device.sync()
        device.write(0, b"first")
        device.write(0, b"second")
        assert device.read(0, 6) == b"second"
        device.lose("some", random.Random(seed))
        found.add(device.read(0, 7).rstrip(b"\0"))
    assert found == {b"durable", b"first", b"second"}


def test_a_long_write_is_torn_between_its_sectors() -> None:
    found = set()
    for seed in range(50):
        device = Device()
        assert device.write(3, b"x" * (3 * SECTOR)) == 3
        device.lose("some", random.Random(seed))
        content = device.read(3, 3 * SECTOR)
        found.add(tuple(bool(content[at]) for at in range(0, 3 * SECTOR, SECTOR)))
    assert len(found) == 8


def test_a_transaction_that_is_not_whole_is_corrupt_and_never_a_wrong_value() -> None:
    first_sector = 2
    for sector in range(first_sector, first_sector + 4):
        disk = make_disk()
        commit(disk, [(0, b"k", bytes(2000))])
        disk._device.write(sector, b"something else")
        with pytest.raises(StoreCorrupt):
            disk.kill()


@pytest.mark.parametrize("seed", range(20))
def test_a_failed_commit_is_told_and_the_disk_refuses_until_the_next_process(seed: int) -> None:
    disk = make_disk(seed, Faults(slow=0, stalled=0, failed=0.5))
    told: list[str] = []
    disk.failed = told.append
    before, count = rows(disk), 0
    while (failure := commit(disk, [(0, b"%d" % count, b"v")])) is None:
        before, count = rows(disk), count + 1
    assert failure in ("Input/output error", "No space left on device")
    assert commit(disk, [(0, b"k", b"v")]) == "the disk has failed before"
    assert told == [failure, "the disk has failed before"]
    assert rows(disk) == before
    disk.kill()
    landed = [{**before[0], b"%d" % count: b"v"}, {}]
    assert rows(disk) in (before, landed)
    assert not disk.refuses


def test_syncs_take_their_time_and_some_take_long() -> None:
    def duration(**faults: Any) -> float:
        disk = make_disk(1, Faults(**{"slow": 0, "stalled": 0, **faults}))
        before = disk._loop.time()
        commit(disk, [(0, b"k", b"v")])
        return disk._loop.time() - before

    assert duration() < 0.01
    assert duration(slow=1) >= 0.1
    assert duration(stalled=1) >= 1
