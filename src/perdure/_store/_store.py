"""The store of one engine: one stream of write units, and reads that see it at once.

Theory of operation. Writes go to the open unit of the environment and to an overlay. ``seal`` makes
them one atomic unit, numbered in order; a C thread commits units, in order, whole. Reads look at
the overlay first, then at what is committed. ``on_event``, called when ``fileno`` becomes readable,
drops the rows of committed units from the overlay.

All methods are for one thread, that of the engine's loop; none blocks on the disk, except opening,
``wait_committed`` and ``close``.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Any, Literal, TypeAlias

from perdure._journal import Environment, remedy_for
from perdure._store import _directory
from perdure._store._committed import StoreReads, next_prefix
from perdure._store._lock import DirectoryLock, ReaderLock
from perdure._store._overlay import Overlay, merge
from perdure._store._schema import DATABASES, MAGIC, SCHEMA_VERSION, Db, MetaKey
from perdure.errors import StoreBroken, StoreError

Durability: TypeAlias = Literal["fsync", "os", "memory"]
_DURABILITIES: dict[str, int] = {"fsync": 0, "os": 1, "memory": 2}

UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024
UNCOMMITTED_NS_MAX = 1_000_000_000


class Store(StoreReads):
    """Opens the data directory *path*, which one process owns until :meth:`close`.

    Keys are *group + suffix*. Within one database no group may be the beginning of another: give
    them one length, or a length in front. Then the rows of a group are one range.

    Args:
      path: Directory; made if missing, with its parents. Under ``memory`` only a label.
      durability: What a committed unit survives: power loss, a killed process, or nothing.
      map_size: Bytes of address space for the file; doubled whenever they run out.

    Attributes:
      warnings: What the user should know about the file as it was found; usually empty.

    Raises:
      DataDirectoryInUse: Another store has it open.
      StoreCorrupt: The file is damaged or was cut short.
      StoreError: It cannot be used; the text says why and what to do.
    """

    _now_ns: Callable[[], int] = staticmethod(monotonic_ns)

    def __init__(
        self, path: str | Path, *, durability: Durability = "fsync", map_size: int = 1 << 40
    ) -> None:
        if durability not in _DURABILITIES:
            raise ValueError(f"durability is 'fsync', 'os' or 'memory', not {durability!r}")
        self.path = Path(path)
        self.durability: Durability = durability
        self.warnings: list[str] = []
        self._closed = False
        self._lock: DirectoryLock | ReaderLock | None = None
        self._overlay = Overlay(len(DATABASES), self._now_ns)
        self._rows = self._overlay.rows
        if durability == "memory":
            directory = _directory.make_memory_directory()
            try:
                self._environment = self._open(directory, map_size)
                self._write_meta({})
            finally:
                # LMDB has its descriptors and the map: without names, nothing is left behind
                # even by a killed process.
                shutil.rmtree(directory)
        else:
            self._open_directory(map_size)
        self._bind()

    def _bind(self) -> None:
        self._unit = self._environment.sealed + 1  # number that the open unit will get
        self._put = self._environment.put
        self._delete = self._environment.delete
        self._get = self._environment.get

    def _open_directory(self, map_size: int) -> None:
        directory = self.path = Path(self.path).absolute()
        try:
            _directory.prepare(directory)
            lock = self._lock = DirectoryLock(directory)
            try:
                self._take_directory(directory, lock, map_size)
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise StoreError(
                f"cannot open {directory}: {error.strerror}{remedy_for(error.errno or 0)}"
            ) from error

    def _take_directory(self, directory: Path, lock: DirectoryLock, map_size: int) -> None:
        found = _directory.examine(directory)
        if found is None:
            _directory.make_file(directory)
            found = _directory.examine(directory)
        # Also if it was there: who made it may have been killed before its name was synced.
        _directory.sync_directory(directory)
        rows = {} if found is None else found.rows
        self.warnings += _directory.warnings_of(directory, rows, lock.left)
        if self.durability == "os":
            # First: what reached the disk before would damage the file without a word.
            lock.mark(self._durability_mark().decode())
        self._environment = self._open(directory, map_size)
        try:
            self._write_meta(rows)
            if self.durability != "os":
                lock.unmark()
        except BaseException:
            self._environment.close(flush=False)
            raise

    def _open(self, directory: Path, map_size: int) -> Environment:
        return Environment(
            str(directory),
            databases=DATABASES,
            map_size=map_size,
            durability=_DURABILITIES[self.durability],
        )

    def _write_meta(self, rows: dict[bytes, bytes]) -> None:
        openings = int.from_bytes(rows.get(MetaKey.OPENINGS, b""), "little")
        wanted = {
            MetaKey.MAGIC: MAGIC,
            MetaKey.SCHEMA: SCHEMA_VERSION.to_bytes(4, "little"),
            MetaKey.DURABILITY: self._durability_mark(),
            MetaKey.OPENINGS: (openings + 1).to_bytes(4, "little"),
        }
        self._arrival = openings << 40
        for key, value in wanted.items():
            if rows.get(key) != value:
                self._environment.put(Db.META, key, value)
        self._environment.wait(self._environment.seal())

    def _durability_mark(self) -> bytes:
        if self.durability != "os":
            return self.durability.encode()
        return f"os {_directory.read_boot_id()}".encode()

    # ---- writing ---------------------------------------------------------------------------------

    def put(self, db: Db, group: bytes, suffix: bytes, value: bytes) -> None:
        """Add to the open unit: the row *group + suffix* (1 to 511 bytes) gets *value*."""
        self._put(db, group + suffix, value)
        groups = self._rows[db]
        rows = groups.get(group)
        if rows is None:
            rows = groups[group] = {}
        self._overlay.changes.append((db, group, suffix, rows.get(suffix)))
        rows[suffix] = (self._unit, value)

    def delete(self, db: Db, group: bytes, suffix: bytes) -> None:
        """Add to the open unit: the row goes, if it is there."""
        self._delete(db, group + suffix)
        groups = self._rows[db]
        rows = groups.get(group)
        if rows is None:
            rows = groups[group] = {}
        self._overlay.changes.append((db, group, suffix, rows.get(suffix)))
        rows[suffix] = (self._unit, None)

    def put_journal(
        self, invocation_id: bytes, index: int, entries: Sequence[tuple[Any, ...]]
    ) -> None:
        """Add to the open unit: a chunk of *entries*, the first of which has this *index* (u32).

        The journal has no overlay: :meth:`journal` shows what is committed. Whoever wrote it has
        it in memory.
        """
        if len(invocation_id) != 16:
            raise ValueError(f"an invocation id has 16 bytes, not {len(invocation_id)}")
        self._environment.put_entries(Db.JOURNAL, invocation_id + index.to_bytes(4, "big"), entries)

    def seal(self) -> int:
        """Make the open unit atomic and send it to the disk; return its number, from 1 upwards.

        If nothing was added, the number of the last sealed unit is returned.

        Raises:
          StoreBroken: A commit has failed; nothing is written any more.
        """
        unit = self._environment.seal()
        if unit == self._unit:
            self._overlay.seal(unit)
            self._unit = unit + 1
        return unit

    def begin_batch(self) -> None:
        """Send units to the disk when :meth:`end_batch` is called, not one by one.

        Many small commits cost more than they bring: each is a sync, and an interrupt of whatever
        the processors are at.
        """
        self._environment.batch(True)

    def end_batch(self) -> None:
        """Send what was sealed since :meth:`begin_batch`."""
        self._environment.batch(False)

    def discard(self) -> None:
        """Drop the open unit; reads show again what was there before it."""
        self._environment.discard()
        self._overlay.undo()

    def next_arrival(self) -> int:
        """A number greater than all it has given out before, in this process and in earlier ones.

        At least 1; enough for 2**40 in one process and 2**24 processes.
        """
        self._arrival += 1
        return self._arrival

    # ---- progress --------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """Number of the last committed unit."""
        return self._environment.committed

    @property
    def sealed(self) -> int:
        """Number of the last sealed unit."""
        return self._environment.sealed

    @property
    def uncommitted_bytes(self) -> int:
        """Bytes sealed and not committed."""
        return self._environment.uncommitted_bytes

    @property
    def oldest_uncommitted_ns(self) -> int:
        """When the oldest uncommitted unit was sealed, by the monotonic clock; 0 if none is."""
        return self._overlay.oldest_ns(self._environment.committed)

    def congested(self) -> bool:
        """Whether so much is uncommitted that nothing new should start."""
        if self._environment.uncommitted_bytes >= UNCOMMITTED_BYTES_MAX:
            return True
        oldest_ns = self.oldest_uncommitted_ns
        return oldest_ns != 0 and self._now_ns() - oldest_ns >= UNCOMMITTED_NS_MAX

    def fileno(self) -> int:
        """A descriptor that becomes readable when units have committed, or the writer failed."""
        return self._environment.fileno()

    def watch(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        """Have *loop* call *callback* when there is news of commits; it calls :meth:`on_event`."""
        loop.add_reader(self.fileno(), callback)

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """End :meth:`watch`."""
        loop.remove_reader(self.fileno())

    def on_event(self) -> None:
        """Call it when :meth:`fileno` is readable.

        Raises:
          StoreBroken: A commit has failed. What had committed before is accounted for first.
        """
        environment = self._environment
        environment.clear_event()
        self._overlay.drop(environment.committed)
        failure = environment.failure
        if failure is not None:
            raise StoreBroken(f"{self.path}: {failure}")

    def wait_committed(self, unit: int, timeout: float | None = None) -> bool:
        """Block the thread until *unit* has committed; False once *timeout* seconds have passed.

        Raises:
          StoreBroken: A commit has failed.
        """
        return self._environment.wait(unit, timeout)

    def close(self, *, flush: bool = True) -> None:
        """Commit what is sealed (or drop it), drop the open unit, let go of the directory.

        Raises:
          StoreBroken: Something sealed could not be committed, and nothing has said so before.
        """
        if self._closed:
            return
        self._closed = True
        marked = flush and self.durability == "os" and self._environment.failure is None
        try:
            try:
                if marked:
                    self._mark_clean()
            finally:
                self._environment.close(flush=flush)
            if marked and isinstance(self._lock, DirectoryLock):
                self._lock.unmark()  # last: now all is on the disk
        finally:
            if self._lock is not None:
                self._lock.release()

    def _mark_clean(self) -> None:
        # In this order: a mark that reached the disk before the data would be a lie.
        environment = self._environment
        environment.discard()
        environment.wait(environment.sealed)
        environment.sync()
        environment.put(Db.META, MetaKey.DURABILITY, b"os clean")
        environment.seal()

    # ---- reading ---------------------------------------------------------------------------------

    def get(self, db: Db, group: bytes, suffix: bytes) -> bytes | None:
        """The value of a row, the store's own writes included; None if there is none.

        Raises:
          StoreCorrupt: The bytes on the disk do not match their checksum.
        """
        rows = self._rows[db].get(group)
        if rows is not None:
            row = rows.get(suffix)
            if row is not None:
                return row[1]
        return self._get(db, group + suffix)

    def scan(
        self, db: Db, group: bytes, *, after: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        """(suffix, value) of the rows of *group* in key order, the store's own writes included.

        Args:
          after: Only suffixes greater than this one. None: from the start.
          limit: At most so many rows; 0: all.
        """
        found = []
        rows = self._rows[db].get(group)
        # Each of the store's own writes may hide one row.
        page = limit + len(rows or ()) if limit else 0
        committed = self._committed(db, group, after, page)
        for row in committed if rows is None else merge(rows, after, committed):
            found.append(row)
            if len(found) == limit:
                break
        return found

    def _committed(
        self, db: Db, group: bytes, after: bytes | None, limit: int
    ) -> Iterator[tuple[bytes, bytes]]:
        start = group if after is None else group + after + b"\0"
        stop = next_prefix(group)
        skip = len(group)
        while page := self._environment.scan(db, start, stop, limit=limit):
            for key, value in page:
                yield key[skip:], value
            start = page[-1][0] + b"\0"

    def suffixes(
        self, db: Db, group: bytes, *, after: bytes | None = None, limit: int = 0
    ) -> list[bytes]:
        """The suffixes that :meth:`scan` would give; values are neither read nor checked.

        Of the journal, what is committed and has not been deleted since.
        """
        rows = self._rows[db].get(group, {})
        found = []
        for suffix, _ in merge(rows, after, self._committed_keys(db, group, after, limit)):
            found.append(suffix)
            if len(found) == limit:
                break
        return found

    def keys(self, db: Db, prefix: bytes) -> list[bytes]:
        """What comes after *prefix* in the keys of all groups that begin with it, in key order."""
        skip = len(prefix)
        found = {suffix for suffix, _ in self._committed_keys(db, prefix, None, 0)}
        for group, rows in self._rows[db].items():
            if group.startswith(prefix):
                for suffix, (_, value) in rows.items():
                    change = found.discard if value is None else found.add
                    change(group[skip:] + suffix)
        return sorted(found)

    def _committed_keys(
        self, db: Db, group: bytes, after: bytes | None, limit: int
    ) -> Iterator[tuple[bytes, bytes]]:
        start = group if after is None else group + after + b"\0"
        stop = next_prefix(group)
        skip = len(group)
        while page := self._environment.scan_keys(db, start, stop, limit=limit):
            for key in page:
                yield key[skip:], b""
            start = page[-1] + b"\0"
