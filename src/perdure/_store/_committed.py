"""Reads of what is committed, without the store's own writes."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from perdure._journal import Environment, Queries, Snapshot
from perdure._store._schema import Db

# Any: a NamedTuple of seven fields, whatever the types it declares for them.
_E = TypeVar("_E", bound=tuple[Any, ...])
_Q = TypeVar("_Q", bound=Queries)


class CommittedReads(Generic[_Q]):
    """The part of a store that only reads its environment, or a snapshot of it."""

    _environment: _Q

    def get_committed(self, db: Db, key: bytes) -> bytes | None:
        """The committed value of a whole key; None if there is none."""
        return self._environment.get(db, key)

    def scan_committed(
        self, db: Db, start: bytes = b"", stop: bytes | None = None, *, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        """A page of committed rows with start <= key < stop, without the store's own writes.

        At most *limit* rows (0: no limit) and about 256 KiB, at least one row; go on from the last
        key and a zero byte until the list is empty.
        """
        return self._environment.scan(db, start, stop, limit=limit)

    def keys_committed(
        self, db: Db, start: bytes = b"", stop: bytes | None = None, *, limit: int = 0
    ) -> list[bytes]:
        """As :meth:`scan_committed`, the keys alone: the values are neither read nor checked."""
        return self._environment.scan_keys(db, start, stop, limit=limit)

    def count_committed(self, db: Db) -> int:
        """How many rows a database has on the disk."""
        return self._environment.count(db)

    def journal(
        self,
        invocation_id: bytes,
        from_index: int,
        make: type[_E],
        *,
        bytes_max: int = 256 * 1024,
    ) -> list[tuple[int, list[_E]]]:
        """A page of the committed journal: (index of the first entry, entries as *make*).

        About *bytes_max*, at least one chunk; go on from the index after the last entry until the
        list is empty.
        """
        return self._environment.read_chunks(
            Db.JOURNAL, invocation_id, from_index, make, bytes_max=bytes_max
        )


class CommittedSnapshot(CommittedReads[Snapshot]):
    """All that was committed at one moment, as ``store.snapshot()`` gives it.

    Keep it for seconds, never across an await: what it needs is kept in the file meanwhile. It is
    for one thread; :meth:`close` may come from another.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = Snapshot(environment)

    @property
    def ended(self) -> bool:
        """Whether reads raise: it was closed, its store was, or the file had to be mapped anew."""
        return self._environment.ended

    def close(self) -> None:
        """Let it go; a second time nothing happens."""
        self._environment.close()


class StoreReads(CommittedReads[Environment]):
    """The part of a store that only reads its environment."""

    def snapshot(self) -> CommittedSnapshot:
        """All that is committed now, for a read that takes long. From any thread.

        Raises:
          StoreClosed: The store is closed.
        """
        return CommittedSnapshot(self._environment)

    def file_bytes(self) -> int:
        """How long the file is."""
        return self._environment.file_bytes

    def copy(self, descriptor: int) -> None:
        """Write one committed snapshot, without unused pages, to a file; in any thread.

        Raises:
          StoreClosed: :meth:`stop_copy` was called, or the store closed.
          StoreError: It could not be read, or not be written.
        """
        self._environment.copy(descriptor)

    def stop_copy(self) -> None:
        """Have the copy that another thread makes, if there is one, fail soon."""
        self._environment.stop_copy()


def next_prefix(prefix: bytes) -> bytes | None:
    """The least key above all that begin with *prefix*; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
