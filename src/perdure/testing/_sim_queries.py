"""The rows of a simulated store, and what may be asked of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Any

from perdure._journal import decode_entries
from perdure.errors import StoreClosed, StoreCorrupt

KEY_BYTES_MAX = 511
ROW_BYTES = 8
"""Of each row of a page, beside its key and value."""
CHECKSUM_BYTES = 4


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

    def _table(self, db: int) -> Table:
        tables = self._live()
        if not 0 <= db < len(tables):
            raise ValueError(f"there is no database {db}")
        return tables[db]

    def _check_key(self, db: int, key: bytes) -> Table:
        table = self._table(db)
        if not isinstance(key, bytes):
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
        return table

    def get(self, db: int, key: bytes) -> bytes | None:
        """The committed value of *key*, or None."""
        return self._check_key(db, key).values.get(key)

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
        values = self._table(db).values
        rows: list[tuple[bytes, bytes]] = []
        copied = 0
        for key in self._range(db, start, stop, reverse):
            rows.append((key, values[key]))
            copied += ROW_BYTES + len(key) + len(values[key]) + CHECKSUM_BYTES
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
        found: list[bytes] = []
        copied = 0
        for key in self._range(db, start, stop, reverse):
            found.append(key)
            copied += ROW_BYTES + len(key)
            if len(found) == limit or copied >= bytes_max:
                break
        return found

    def _range(self, db: int, start: bytes, stop: bytes | None, reverse: bool) -> list[bytes]:
        keys = self._table(db).keys
        if len(start) > KEY_BYTES_MAX or len(stop or b"") > KEY_BYTES_MAX:
            raise ValueError(f"a bound has at most {KEY_BYTES_MAX} bytes")
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
        if len(prefix) != 16:
            raise ValueError(f"the prefix has 16 bytes, not {len(prefix)}")
        table = self._table(db)
        first = bisect_left(table.keys, prefix + from_index.to_bytes(4, "big"))
        last = bisect_right(table.keys, prefix + b"\xff\xff\xff\xff")
        chunks: list[tuple[int, list[Any]]] = []
        copied = 0
        for key in table.keys[first:last]:
            value = table.values[key]
            if len(key) != 20:
                raise StoreCorrupt(f"{self.path}: {key.hex()} is not a journal key")
            chunks.append((int.from_bytes(key[16:], "big"), decode_entries(value, make)))
            copied += ROW_BYTES + len(key) + len(value) + CHECKSUM_BYTES
            if copied >= bytes_max:
                break
        return chunks

    def count(self, db: int) -> int:
        """How many rows a database holds."""
        return len(self._table(db).keys)


class SimSnapshot(SimQueries):
    """The rows of one moment; later commits do not change them."""

    @property
    def ended(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
