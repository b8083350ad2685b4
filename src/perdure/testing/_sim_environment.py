"""The environment of a simulated store: what ``perdure._journal.Environment`` does, in Python.

Theory of operation. A disk (:class:`SimDisk`) has the rows that are durable, and survives the
environments that are opened on it, one after the other. Units are sealed as in the real one; they
are committed when the schedule that was given calls back, all that are sealed in one batch. So
whoever gives the schedule decides when, and may never call back: that is a crash.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from perdure._journal import decode_entries, encode_entries
from perdure.errors import StoreBroken, StoreClosed

KEY_BYTES_MAX = 511
VALUE_BYTES_MAX = 1 << 30

# Database, key, value or None for "deleted".
Operation: TypeAlias = "tuple[int, bytes, bytes | None]"
Unit: TypeAlias = "list[Operation]"
Schedule: TypeAlias = Callable[[Callable[[], None]], object]


class Table:
    """The rows of one database, in key order."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self.values:
            insort(self.keys, key)
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        if self.values.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def copy(self) -> Table:
        """Another table with the same rows."""
        copy = Table()
        copy.keys, copy.values = list(self.keys), dict(self.values)
        return copy


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

    def copy(self) -> SimDisk:
        """Another disk with the same contents."""
        copy = SimDisk(0)
        copy.tables = [table.copy() for table in self.tables]
        copy.units = self.units
        return copy


class SimQueries:
    """What may be asked of the rows; the same in an environment and in a snapshot of it."""

    def __init__(self, path: str, tables: Sequence[Table]) -> None:
        self.path = path
        self._tables = tables
        self._closed = False

    def _live(self) -> Sequence[Table]:
        if self._closed:
            raise StoreClosed(f"{self.path} is closed")
        return self._tables

    def get(self, db: int, key: bytes) -> bytes | None:
        """The committed value of *key*, or None."""
        return self._live()[db].values.get(key)

    def scan(
        self,
        db: int,
        start: bytes,
        stop: bytes | None,
        *,
        limit: int = 0,
        bytes_max: int = 262144,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """Rows with start <= key < stop; fewer than *limit* or *bytes_max* only at the end."""
        values = self._live()[db].values
        rows: list[tuple[bytes, bytes]] = []
        copied = 0
        for key in self._range(db, start, stop, reverse):
            rows.append((key, values[key]))
            copied += len(key) + len(values[key])
            if len(rows) == limit or copied >= bytes_max:
                break
        return rows

    def scan_keys(
        self,
        db: int,
        start: bytes,
        stop: bytes | None,
        *,
        limit: int = 0,
        bytes_max: int = 262144,
        reverse: bool = False,
    ) -> list[bytes]:
        """As :meth:`scan`, the keys alone."""
        keys = self._range(db, start, stop, reverse)
        return keys[:limit] if limit else keys

    def _range(self, db: int, start: bytes, stop: bytes | None, reverse: bool) -> list[bytes]:
        keys = self._live()[db].keys
        end = len(keys) if stop is None else bisect_left(keys, stop)
        found = keys[bisect_left(keys, start) : end]
        return found[::-1] if reverse else found

    def read_chunks(
        self,
        db: int,
        prefix: bytes,
        from_index: int,
        make: Any = None,
        *,
        bytes_max: int = 262144,
    ) -> list[tuple[int, list[Any]]]:
        """Journal chunks of *prefix* from *from_index* on: (index, entries as *make*)."""
        table = self._live()[db]
        first = bisect_left(table.keys, prefix + from_index.to_bytes(4, "big"))
        last = bisect_right(table.keys, prefix + b"\xff\xff\xff\xff")
        chunks: list[tuple[int, list[Any]]] = []
        copied = 0
        for key in table.keys[first:last]:
            value = table.values[key]
            chunks.append((int.from_bytes(key[16:], "big"), decode_entries(value, make)))
            copied += len(value)
            if copied >= bytes_max:
                break
        return chunks

    def count(self, db: int) -> int:
        """How many rows a database holds."""
        return len(self._live()[db].keys)


class SimSnapshot(SimQueries):
    """The rows of one moment; later commits do not change them."""

    @property
    def ended(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True


class SimEnvironment(SimQueries):
    """One environment on *disk*, which has the surface of ``perdure._journal.Environment``.

    Args:
      path: A label.
      databases: Their names; the disk has as many tables.
      schedule: Given a callback whenever something is sealed; called back, all that is sealed by
        then is committed. It need not do that at once, nor at all.

    Attributes:
      uncommitted_bytes: Sealed and not yet committed.
    """

    failure: str | None = None

    def __init__(
        self, path: str, disk: SimDisk, *, databases: Iterable[str], schedule: Schedule
    ) -> None:
        super().__init__(path, disk.tables)
        self.disk = disk
        self.names = tuple(databases)
        assert len(self.names) == len(disk.tables)
        self._schedule = schedule
        self._open: Unit = []
        self._queue: list[Unit] = []  # sealed, not committed
        self.uncommitted_bytes = 0
        self.sealed = 0
        self.committed = 0
        self._batching = False
        self._scheduled = False
        self._watcher: Callable[[], object] | None = None

    # -- writing ----------------------------------------------------------------------------

    def _writing(self) -> Unit:
        self._live()
        return self._open

    def _check_key(self, key: bytes) -> None:
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")

    def put(self, db: int, key: bytes, value: bytes) -> None:
        """Add to the open unit: *key* gets *value*."""
        self._check_key(key)
        if len(value) > VALUE_BYTES_MAX:
            raise ValueError(f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
        self._writing().append((db, key, bytes(value)))

    def delete(self, db: int, key: bytes) -> None:
        """Add to the open unit: *key* goes."""
        self._check_key(key)
        self._writing().append((db, key, None))

    def put_entries(self, db: int, key: bytes, entries: Iterable[tuple[Any, ...]]) -> None:
        """Add to the open unit: *key* gets the chunk of *entries*."""
        self.put(db, key, encode_entries(entries))

    def seal(self) -> int:
        """Close the open unit; its number, or that of the last one where nothing was added."""
        if self.failure is not None:
            raise StoreBroken(f"{self.path}: {self.failure}")
        unit = self._writing()
        if unit:
            self._queue.append(unit)
            self.uncommitted_bytes += _bytes_of(unit)
            self._open = []
            self.sealed += 1
            if not self._batching:
                self._send()
        return self.sealed

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
        self._scheduled = False
        if self._closed or self.failure is not None or not self._queue:
            return
        taken, self._queue = self._queue, []
        self.uncommitted_bytes = 0
        self.disk.commit(taken)
        self.committed += len(taken)
        if self._watcher is not None:
            self._watcher()

    def fail(self, reason: str) -> None:
        """Have the disk refuse from now on: what is not committed never will be."""
        self.failure = reason
        if self._watcher is not None:
            self._watcher()

    def watch(self, callback: Callable[[], object] | None) -> None:
        """Have *callback* called after each commit and on failure."""
        self._watcher = callback

    def clear_event(self) -> None:
        """Nothing: a watcher is called, no descriptor becomes readable."""

    def wait(self, unit: int, timeout: float | None = None) -> bool:
        """Commit up to *unit* now: nothing else could happen while the thread waits."""
        self._live()
        if unit > self.sealed:
            raise ValueError(f"unit {unit} is not sealed")
        if self.committed < unit:
            self._commit()
        if self.committed < unit:
            raise StoreBroken(f"{self.path}: {self.failure}")
        return True

    @property
    def open_bytes(self) -> int:
        """Bytes in the open unit."""
        return _bytes_of(self._open)

    @property
    def file_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(
            len(key) + len(value) for table in self._live() for key, value in table.values.items()
        )

    def sync(self) -> None:
        """Nothing: what is committed is durable."""

    def snapshot(self) -> SimSnapshot:
        """The rows that are committed now."""
        return SimSnapshot(self.path, [table.copy() for table in self._live()])

    def close(self, *, flush: bool = True) -> None:
        """Commit what is sealed, or drop it. Idempotent."""
        if self._closed:
            return
        if flush and self._queue and self.failure is None:
            self._commit()
        self._watcher = None
        self._closed = True


def _bytes_of(unit: Unit) -> int:
    return sum(len(key) + len(value or b"") for _, key, value in unit)
