"""The environment of a simulated store: what ``perdure._journal.Environment`` does, in Python.

Theory of operation. A disk (:class:`SimDisk`) has the rows that are durable, and survives the
environments that are opened on it, one after the other. Units are sealed as in the real one; they
are committed when the schedule that was given calls back, all that are sealed in one batch. So
whoever gives the schedule decides when, and may never call back: that is a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from perdure._journal import encode_entries
from perdure.errors import StoreBroken
from perdure.testing._sim_queries import SimQueries, SimSnapshot, Table

VALUE_BYTES_MAX = 1 << 30
UNIT_BYTES = 8
OPERATION_BYTES = 8
"""Of each operation of a unit, beside its key and value."""

# Database, key, value or None for "deleted".
Operation: TypeAlias = "tuple[int, bytes, bytes | None]"
Unit: TypeAlias = "list[Operation]"
Schedule: TypeAlias = Callable[[Callable[[], None]], object]


class SimDisk:
    """What outlives an environment: the committed rows, and how many units have made them.

    Attributes:
      tables: The durable rows, by database.
      units: How many units have been committed, by all environments.
    """

    def __init__(self, databases: int) -> None:
        self.tables = [Table() for _ in range(databases)]
        self.units = 0

    def commit(self, units: Sequence[Unit]) -> None:
        """Make a batch of units durable, whole."""
        for unit in units:
            for db, key, value in unit:
                if value is None:
                    self.tables[db].delete(key)
                else:
                    self.tables[db].put(key, value)
        self.units += len(units)

    def write(self, units: Sequence[Unit], done: Callable[[str | None], object]) -> None:
        """Begin to make a batch durable; *done* gets None once it is, or why it never will be.

        Here that is at once. One batch is written at a time.
        """
        self.commit(units)
        done(None)

    def finish(self) -> None:
        """End what :meth:`write` has begun, while the thread waits."""

    def copy(self) -> SimDisk:
        """Another disk with the same contents."""
        copy = SimDisk(0)
        copy.tables = [table.copy() for table in self.tables]
        copy.units = self.units
        return copy


class SimEnvironment(SimQueries):
    """One environment on *disk*, which has the surface of ``perdure._journal.Environment``.

    Args:
      path: A label.
      databases: Their names; the disk has as many tables.
      schedule: Given a callback whenever something is sealed; called back, all that is sealed by
        then is committed. It need not do that at once, nor at all.

    """

    def __init__(
        self, path: str, disk: SimDisk, *, databases: Iterable[str], schedule: Schedule
    ) -> None:
        super().__init__(path, disk.tables)
        self.disk = disk
        self.names = tuple(databases)
        assert len(self.names) == len(disk.tables)
        self._schedule = schedule
        self._open: Unit = []
        self._queue: list[Unit] = []  # sealed, not given to the disk
        self.writing: list[Unit] = []  # given to the disk, not committed
        self._uncommitted_bytes = 0
        self._sealed = 0
        self._committed = 0
        self._failure: str | None = None
        self._batching = False
        self._scheduled = False
        self._watcher: Callable[[], object] | None = None

    # -- writing ----------------------------------------------------------------------------

    def _writing(self) -> Unit:
        self._live()
        return self._open

    def put(self, db: int, key: bytes, value: bytes) -> None:
        """Add to the open unit: *key* gets *value*."""
        self._check_key(db, key)
        if not isinstance(value, bytes):
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        if len(value) > VALUE_BYTES_MAX:
            raise ValueError(f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
        self._writing().append((db, key, value))

    def delete(self, db: int, key: bytes) -> None:
        """Add to the open unit: *key* goes."""
        self._check_key(db, key)
        self._writing().append((db, key, None))

    def put_entries(self, db: int, key: bytes, entries: Iterable[tuple[Any, ...]]) -> None:
        """Add to the open unit: *key* gets the chunk of *entries*."""
        self._check_key(db, key)
        self.put(db, key, encode_entries(entries))

    def seal(self) -> int:
        """Close the open unit; its number, or that of the last one where nothing was added."""
        unit = self._writing()
        if self._failure is not None:
            raise StoreBroken(f"{self.path}: {self._failure}")
        if unit:
            self._queue.append(unit)
            self._uncommitted_bytes += UNIT_BYTES + _bytes_of(unit)
            self._open = []
            self._sealed += 1
            if not self._batching:
                self._send()
        return self._sealed

    def batch(self, begins: bool) -> None:
        """Have units that are sealed from now on wait for ``batch(False)``."""
        self._live()
        self._batching = begins
        if not begins and self._queue:
            self._send()

    def discard(self) -> None:
        """Drop the open unit."""
        self._writing()
        self._open = []

    # -- committing -------------------------------------------------------------------------

    def _send(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._commit)

    def _commit(self) -> None:
        """What the schedule calls back."""
        if self.writing:
            return  # what is sealed goes when that is written
        self._scheduled = False
        if self._closed or self._failure is not None or not self._queue:
            return
        self.writing, self._queue = self._queue, []
        self._scheduled = True  # what is sealed meanwhile is the next batch
        self.disk.write(self.writing, self._written)

    def _written(self, failure: str | None) -> None:
        """What the disk calls back."""
        taken, self.writing = self.writing, []
        self._scheduled = False
        if failure is not None:
            self.fail(failure)
            return
        self._uncommitted_bytes -= sum(UNIT_BYTES + _bytes_of(unit) for unit in taken)
        self._committed += len(taken)
        if self._queue and not self._batching:
            self._send()
        if self._watcher is not None:
            self._watcher()

    def _commit_now(self) -> None:
        """Commit all that is sealed, while the thread waits."""
        self.disk.finish()
        self._commit()
        self.disk.finish()

    def fail(self, reason: str) -> None:
        """Have the disk refuse from now on: what is not committed never will be."""
        self._failure = reason
        if self._watcher is not None:
            self._watcher()

    def watch(self, callback: Callable[[], object] | None) -> None:
        """Have *callback* called after each commit and on failure."""
        self._watcher = callback

    def clear_event(self) -> None:
        """Nothing: a watcher is called, no descriptor becomes readable."""
        self._live()

    def wait(self, unit: int, timeout: float | None = None) -> bool:
        """Commit up to *unit* now: nothing else could happen while the thread waits."""
        self._live()
        if unit > self._sealed:
            raise ValueError(f"unit {unit} is not sealed")
        if self._committed < unit:
            self._commit_now()
        if self._committed < unit:
            raise StoreBroken(f"{self.path}: {self._failure}")
        return True

    @property
    def sealed(self) -> int:
        """Number of the last sealed unit."""
        self._live()
        return self._sealed

    @property
    def committed(self) -> int:
        """Number of the last committed unit."""
        self._live()
        return self._committed

    @property
    def failure(self) -> str | None:
        """Why nothing is committed any more."""
        self._live()
        return self._failure

    @property
    def uncommitted_bytes(self) -> int:
        """Bytes sealed and not yet committed."""
        self._live()
        return self._uncommitted_bytes

    @property
    def open_bytes(self) -> int:
        """Bytes in the open unit."""
        return _bytes_of(self._writing())

    @property
    def file_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(
            len(key) + len(value) for table in self._live() for key, value in table.values.items()
        )

    def sync(self) -> None:
        """Nothing: what is committed is durable."""
        self._live()

    def snapshot(self) -> SimSnapshot:
        """The rows that are committed now."""
        return SimSnapshot(self.path, [table.copy() for table in self._live()])

    def close(self, *, flush: bool = True) -> None:
        """Commit what is sealed, or drop it. Idempotent."""
        if self._closed:
            return
        if flush and self._failure is None:
            self._commit_now()
        self._watcher = None
        self._closed = True


def _bytes_of(unit: Unit) -> int:
    return sum(OPERATION_BYTES + len(key) + len(value or b"") for _, key, value in unit)
