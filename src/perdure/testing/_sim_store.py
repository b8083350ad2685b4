"""A store on a simulated disk, and the host that opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns
from typing import Any, cast

from perdure._store import DATABASES, CommittedSnapshot, Db, Store
from perdure._store._overlay import Overlay
from perdure._store._schema import MetaKey
from perdure.errors import StoreError
from perdure.testing._sim_environment import Schedule, SimDisk, SimEnvironment


def blank_disk() -> SimDisk:
    """A disk on which nothing has been written yet."""
    return SimDisk(len(DATABASES))


class SimStore(Store):
    """A store on *disk*, which is durable for as long as the object lives, and no longer.

    Args:
      disk: From :func:`blank_disk`, or from a store before this one.
      schedule: When commits are made (see :class:`SimEnvironment`).
      now_ns: A monotonic clock, by which too much that is uncommitted for too long is noticed.
    """

    def __init__(
        self, disk: SimDisk, *, schedule: Schedule, now_ns: Callable[[], int] = monotonic_ns
    ) -> None:
        self.path = Path("simulated")
        self.durability = "fsync"
        self.warnings = []
        self._now_ns = now_ns
        self._closed = False
        self._lock = None
        self._overlay = Overlay(len(DATABASES), now_ns)
        self._rows = self._overlay.rows
        self.simulated = SimEnvironment(
            str(self.path), disk, databases=DATABASES, schedule=schedule
        )
        # It has the surface of the compiled class, which can have no subclasses.
        self._environment = cast(Any, self.simulated)
        self._write_meta({})
        self._bind()

    def _write_meta(self, rows: dict[bytes, bytes]) -> None:
        meta = self.simulated.disk.tables[Db.META].values
        if MetaKey.FILE_SIZE not in meta:  # the writer's; a simulated file has none
            self.simulated.put(Db.META, MetaKey.FILE_SIZE, bytes(8))
        super()._write_meta(meta)

    def watch(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        # Later, as a descriptor would: who waits for a commit is in the middle of something.
        self.simulated.watch(lambda: loop.call_soon(callback))

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self.simulated.watch(None)

    def snapshot(self) -> CommittedSnapshot:
        snapshot = CommittedSnapshot.__new__(CommittedSnapshot)
        snapshot._environment = cast(Any, self.simulated.snapshot())
        return snapshot

    def copy(self, descriptor: int) -> None:
        raise StoreError("a simulated store has no file that could be copied")

    def stop_copy(self) -> None:
        """Nothing: no copy is ever made."""
