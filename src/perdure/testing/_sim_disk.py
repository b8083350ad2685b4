"""A simulated disk that fails as disks do, below a commit protocol like LMDB's.

The fault model of the device stands at the head of :mod:`._sim_device`. On it, a batch of units is
committed as LMDB commits a transaction: what is new goes to sectors that nothing refers to yet;
sync; then one of two meta records, in turns, is written over the one before the last, and says
where the newest batch is; sync. A process that opens the disk takes the meta record of the later
transaction. So a batch is there whole or not at all, wherever the power goes.

It is not LMDB: a batch refers to the one before it, and no sector is used again. The pages, the
free list and the code of the real store are for tests that run the real store.

A sync takes some time, at times very long, and can fail, as can a write on a full disk. After a
failure the disk refuses all writes of this process.
"""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.errors import StoreCorrupt
from perdure.testing._sim_device import SECTOR, Device, Landed
from perdure.testing._sim_environment import SimDisk, Unit

if TYPE_CHECKING:
    from perdure.testing._sim_loop import SimLoop

_META = struct.Struct("<8sQQQQ")  # magic, transaction, first sector, length, units so far
_HEAD = struct.Struct("<8sQQQQ")  # the same of the batch before; its transaction is one less
_MAGIC = b"SIMDISK1"
_METAS = 2
_COUNT = struct.Struct("<I")
_OPERATION = struct.Struct("<BHi")  # database, length of the key, of the value or -1


@dataclass(frozen=True, slots=True)
class Faults:
    """How badly the simulated machine behaves, apart from crashes.

    Attributes:
      slow: Share of syncs that take 100 ms instead of some.
      stalled: Share of syncs that take one to three seconds.
      failed: Share of syncs that fail, and of writes that find the disk full.
      drift: The wall clock goes wrong by at most this share, fast or slow.
    """

    slow: float = 0.02
    stalled: float = 0.002
    failed: float = 0.0
    drift: float = 0.0


class PowerFailed(BaseException):
    """The power is gone, in the middle of something."""


class DiskError(Exception):
    """The disk refuses a write."""


class SectorDisk(SimDisk):
    """A disk of sectors, in the time of *loop*.

    Attributes:
      refuses: A commit has failed: nothing is written any more.
      syncs: How many syncs have begun.
      in_flight: The units of a commit that has begun, and of which nobody knows whether it is on
        the disk.
      sync_begins: Called with their number when one begins; may raise :class:`PowerFailed`.
      failed: Called with the reason when a commit has failed.
      committed: Called with each batch of units when its process is told that it is durable.
    """

    def __init__(
        self, databases: int, *, loop: SimLoop, chance: random.Random, faults: Faults
    ) -> None:
        super().__init__(databases)
        self._databases = databases
        self._loop = loop
        self._chance = chance
        self._faults = faults
        self._device = Device()
        self._newest = (0, 0, 0, 0)  # transaction, first sector, length, units
        self._free = _METAS  # the first sector that nothing refers to
        self._steps: Iterator[float] | None = None  # of the commit on its way
        self._timer: asyncio.Handle | None = None
        self.refuses = False
        self.syncs = 0
        self.in_flight: list[Unit] = []
        self.sync_begins: Callable[[int], None] = lambda _: None
        self.failed: Callable[[str], object] = lambda _: None
        self.committed: Callable[[Sequence[Unit]], None] = lambda _: None

    # -- a process writes -------------------------------------------------------------------

    def write(self, units: Sequence[Unit], done: Callable[[str | None], object]) -> None:
        assert self._steps is None, "one batch is written at a time"
        self.in_flight = list(units)
        self._steps = self._commit_slowly(units, done)
        self._go_on()

    def _go_on(self) -> None:
        """Take the next step of the commit, and come back when its time is over."""
        assert self._steps is not None
        try:
            seconds = next(self._steps, None)
        except PowerFailed:
            return
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._go_on)

    def finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        while self._steps is not None:
            seconds = next(self._steps, None)
            if seconds is not None:
                self._loop.pass_time(seconds)

    def _commit_slowly(
        self, units: Sequence[Unit], done: Callable[[str | None], object]
    ) -> Iterator[float]:
        """Commit step by step; yields how many seconds each takes."""
        failure: str | None = None
        try:
            yield from self._write_batch(units)
        except DiskError as error:
            self.refuses = True
            failure = str(error)
            self.failed(failure)
        else:
            self._tell(units)
        self._steps = None
        done(failure)

    def _tell(self, units: Sequence[Unit]) -> None:
        """The units are what the process reads from now on."""
        self.in_flight = []
        self.commit(units)
        self.committed(units)

    def _write_batch(self, units: Sequence[Unit]) -> Iterator[float]:
        if self.refuses:
            raise DiskError("the disk has failed before")
        if self._chance.random() < self._faults.failed / 2:
            raise DiskError("No space left on device")
        transaction, _, _, count = self._newest
        batch = _HEAD.pack(_MAGIC, *self._newest) + _encode(units)
        first = self._free
        self._free += self._device.write(first, batch)
        yield from self._sync()
        self._newest = (transaction + 1, first, len(batch), count + len(units))
        self._device.write((transaction + 1) % _METAS, _META.pack(_MAGIC, *self._newest))
        yield from self._sync()

    def _sync(self) -> Iterator[float]:
        self.syncs += 1
        self.sync_begins(self.syncs)
        yield self._sync_seconds()
        if self._chance.random() < self._faults.failed / 2:
            self._device.lose(self._draw_landed(), self._chance)
            raise DiskError("Input/output error")
        self._device.sync()

    def _sync_seconds(self) -> float:
        drawn = self._chance.random()
        if drawn < self._faults.stalled:
            return 1 + 2 * self._chance.random()
        if drawn < self._faults.stalled + self._faults.slow:
            return 0.1
        return 0.000_1 + 0.002 * self._chance.random() ** 2

    def _draw_landed(self) -> Landed:
        return self._chance.choice(("none", "all", "some"))

    # -- a process dies ---------------------------------------------------------------------

    def kill(self) -> None:
        """What a new process finds after the death of the one before: the cache is still there."""
        self._steps = None
        self.refuses = False
        self.in_flight = []
        self._recover()

    def power_loss(self, landed: Landed | None = None) -> None:
        """What a new process finds after the power was gone; None: how much landed is drawn."""
        self._device.lose(landed or self._draw_landed(), self._chance)
        self.kill()

    def _recover(self) -> None:
        metas = [_META.unpack(self._device.read(number, _META.size)) for number in range(_METAS)]
        magic, *newest = max(metas, key=lambda meta: (meta[0] == _MAGIC, meta[1]))
        if magic != _MAGIC:
            newest = [0, 0, 0, 0]
        transaction, first, length, units = newest
        self._newest = (transaction, first, length, units)
        self._free = first + -(-length // SECTOR) if transaction else _METAS
        batches = []
        while transaction:
            batch = self._device.read(first, length)
            magic, before, first, length, _ = _HEAD.unpack(batch[: _HEAD.size].ljust(_HEAD.size))
            if magic != _MAGIC or before != transaction - 1:
                raise StoreCorrupt(f"simulated disk: transaction {transaction} is not on it")
            batches.append(_decode(batch[_HEAD.size :]))
            transaction = before
        blank = SimDisk(self._databases)
        for batch_units in reversed(batches):
            blank.commit(batch_units)
        self.tables, self.units = blank.tables, blank.units
        if self.units != units:
            raise StoreCorrupt(f"simulated disk: {self.units} units are on it, not {units}")


def _encode(units: Sequence[Unit]) -> bytes:
    parts = []
    for unit in units:
        parts.append(_COUNT.pack(len(unit)))
        for db, key, value in unit:
            parts.append(_OPERATION.pack(db, len(key), -1 if value is None else len(value)))
            parts += (key, value or b"")
    content = b"".join(parts)
    # A batch of which a sector is missing must not be taken for one.
    return _COUNT.pack(zlib.crc32(content)) + content


def _decode(content: bytes) -> list[Unit]:
    if content[: _COUNT.size] != _COUNT.pack(zlib.crc32(content[_COUNT.size :])):
        raise StoreCorrupt("simulated disk: a part of a transaction is not on it")
    units: list[Unit] = []
    at = _COUNT.size
    while at < len(content):
        (count,) = _COUNT.unpack_from(content, at)
        at += _COUNT.size
        unit: Unit = []
        for _ in range(count):
            db, key_bytes, value_bytes = _OPERATION.unpack_from(content, at)
            at += _OPERATION.size
            key = content[at : at + key_bytes]
            at += key_bytes
            value = None if value_bytes < 0 else content[at : at + value_bytes]
            at += max(value_bytes, 0)
            unit.append((db, key, value))
        units.append(unit)
    return units
