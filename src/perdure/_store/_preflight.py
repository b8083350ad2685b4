"""Reads the rows of ``meta`` from data.mdb by plain file reads, before LMDB opens it.

Theory of operation. LMDB maps the file, so a page that was cut off is a bus error, and it creates
databases in whatever it opens. Both questions must be answered first: is this a file of ours, and
is it as long as it was? The layout is that of LMDB 0.9 (struct MDB_page, MDB_meta, MDB_db, MDB_node
in its mdb.c), native byte order, 64 bits. Only the path to ``meta`` is walked: three pages or so.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from perdure._journal import crc32c, remedy_for
from perdure._store._schema import MAGIC, MetaKey
from perdure.errors import StoreCorrupt, StoreError

_LMDB_MAGIC = 0xBEEFC0DE
_META = struct.Struct("=16xII QQ 48s48s QQ")  # magic, version, address, map size, dbs, last, txn
_DB = struct.Struct("=IHHQQQQQ")  # pad (page size in the first), flags, depth, counts x 4, root
_PAGE = struct.Struct("=QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("=HHHH")  # low and high half of the size, flags, key size
_HEADER_BYTES = 16
_BRANCH, _LEAF = 0x01, 0x02
_BIG_DATA, _SUB_DATABASE = 0x01, 0x02
_NO_PAGE = 2**64 - 1
_PAGE_SIZES = frozenset(2**power for power in range(9, 17))


class NotLmdb(Exception):
    """The file is no LMDB 0.9 environment."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a file that may be ours says about itself.

    Attributes:
      file_bytes: Its length now.
      map_bytes: The address space that it was last written with.
      rows: The rows of ``meta``, checksums verified; empty if there is no such database.
    """

    file_bytes: int
    map_bytes: int
    rows: dict[bytes, bytes]

    @property
    def is_ours(self) -> bool:
        return self.rows.get(MetaKey.MAGIC) == MAGIC


def inspect(path: Path) -> Preflight:
    """Read ``meta`` of the LMDB file *path*.

    Raises:
      NotLmdb: It is some other kind of file.
      StoreCorrupt: It is an LMDB file, but shorter than it was, or damaged on the way to ``meta``.
      StoreError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}{remedy_for(error.errno or 0)}"
        ) from error
    try:
        file_bytes = os.fstat(descriptor).st_size
        if file_bytes == 0:  # killed while LMDB was making the file
            return Preflight(0, 0, {})
        walk = _Walk(path, descriptor, file_bytes)
        rows = walk.meta_rows()
        walk.check_end()
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}{remedy_for(error.errno or 0)}"
        ) from error
    finally:
        os.close(descriptor)
    recorded = int.from_bytes(rows.get(MetaKey.FILE_SIZE, b""), "little")
    if file_bytes < recorded:
        raise StoreCorrupt(
            f"{path} has {file_bytes} bytes, but had {recorded} when it was last written: it was "
            "cut short; restore it from a backup"
        )
    return Preflight(file_bytes, walk.map_bytes, rows)


class _Walk:
    def __init__(self, path: Path, descriptor: int, file_bytes: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.file_bytes = file_bytes
        self.page_bytes = 0
        self.map_bytes = 0
        self._free, self._main, self._last_page = self._newest()

    def corrupt(self, why: str) -> StoreCorrupt:
        return StoreCorrupt(f"{self.path} is damaged: {why}; restore it from a backup")

    def _cut_short(self, number: int) -> StoreCorrupt:
        end = (number + 1) * self.page_bytes
        return StoreCorrupt(
            f"{self.path} has {self.file_bytes} bytes, but page {number}, which is in use, ends at "
            f"{end}: it was cut short; restore it from a backup"
        )

    def meta_rows(self) -> dict[bytes, bytes]:
        record = dict(self._leaves(self._main, sub_databases=True)).get(b"meta")
        if record is None:
            return {}
        if len(record) != _DB.size:
            raise self.corrupt("the record of the database 'meta' has the wrong length")
        rows = {}
        for key, value in self._leaves(record, sub_databases=False):
            if len(value) < 4 or crc32c(value[:-4], crc32c(key)) != int.from_bytes(
                value[-4:], "little"
            ):
                # A program of another kind may well have a database of that name.
                if key in (MetaKey.MAGIC, MetaKey.SCHEMA, MetaKey.FILE_SIZE):
                    raise self.corrupt(f"database 'meta', key {key.hex()}: checksum mismatch")
                continue
            rows[key] = value[:-4]
        return rows

    def check_end(self) -> None:
        """See that all pages in use are in the file, even where its recorded size is not the last.

        Pages that one transaction took and gave back may never have been written.
        """
        missing = range(self.file_bytes // self.page_bytes, self._last_page + 1)
        if not missing:
            return
        free: set[int] = set()
        for _, numbers in self._leaves(self._free, sub_databases=False):
            if len(numbers) % 8 != 0:
                raise self.corrupt("its list of free pages is not one")
            free.update(number for (number,) in struct.iter_unpack("=Q", numbers[8:]))
        for number in missing:
            if number not in free:
                raise self._cut_short(number)

    def _newest(self) -> tuple[bytes, bytes, int]:
        """Of the newer of the two headers: the free pages, the databases, the last page."""
        first = os.pread(self.descriptor, _META.size, 0)
        if len(first) < _META.size:
            raise NotLmdb
        magic, version, _, self.map_bytes, free, main, last_page, txn = _META.unpack(first)
        self.page_bytes = _DB.unpack(free)[0]
        if magic != _LMDB_MAGIC or version & 0xFFFF != 1 or self.page_bytes not in _PAGE_SIZES:
            raise NotLmdb
        second = os.pread(self.descriptor, _META.size, self.page_bytes)
        if len(second) == _META.size:
            magic, _, _, map_bytes, other_free, other_main, other_last, other_txn = _META.unpack(
                second
            )
            if magic == _LMDB_MAGIC and other_txn > txn:
                free, main, last_page = other_free, other_main, other_last
                self.map_bytes = map_bytes
        return free, main, last_page

    def _page(self, number: int) -> bytes:
        start = number * self.page_bytes
        if start + self.page_bytes > self.file_bytes:
            raise self._cut_short(number)
        page = os.pread(self.descriptor, self.page_bytes, start)
        if len(page) < self.page_bytes or _PAGE.unpack_from(page)[0] != number:
            raise self.corrupt(f"page {number} is not where it belongs")
        return page

    def _leaves(self, record: bytes, *, sub_databases: bool) -> list[tuple[bytes, bytes]]:
        """All rows of the database with this MDB_db *record*, or the names and records in it."""
        rows: list[tuple[bytes, bytes]] = []
        root: int = _DB.unpack(record)[-1]
        pages = [] if root == _NO_PAGE else [root]
        seen: set[int] = set()
        while pages:
            number = pages.pop()
            if number in seen or len(seen) > 4096:
                raise self.corrupt("its pages form a loop")
            seen.add(number)
            page = self._page(number)
            _, _, flags, lower, _ = _PAGE.unpack_from(page)
            if flags & (_BRANCH | _LEAF) not in (_BRANCH, _LEAF) or lower > len(page):
                raise self.corrupt(f"page {number} is neither branch nor leaf")
            for slot in range(_HEADER_BYTES, lower - 1, 2):
                offset = int.from_bytes(page[slot : slot + 2], sys.byteorder)
                if offset + _NODE.size > len(page):
                    raise self.corrupt(f"page {number} has a row outside of it")
                low, high, node_flags, key_bytes = _NODE.unpack_from(page, offset)
                if flags & _BRANCH:
                    pages.append(low | high << 16 | node_flags << 32)
                    continue
                start = offset + _NODE.size + key_bytes
                size = low | high << 16
                if bool(node_flags & _SUB_DATABASE) != sub_databases:
                    continue
                key = page[offset + _NODE.size : start]
                if node_flags & _BIG_DATA:
                    rows.append((key, self._big_value(page[start : start + 8], size)))
                    continue
                if start + size > len(page):
                    raise self.corrupt(f"page {number} has a row outside of it")
                rows.append((key, page[start : start + size]))
        return rows

    def _big_value(self, place: bytes, size: int) -> bytes:
        """A value that has pages of its own, from the one whose number stands at *place* on."""
        first = int.from_bytes(place, sys.byteorder)
        last = first + (_HEADER_BYTES + size - 1) // self.page_bytes
        if len(place) < 8 or last > self._last_page:
            raise self.corrupt(f"a value of {size} bytes has no place in it")
        if (last + 1) * self.page_bytes > self.file_bytes:
            raise self._cut_short(last)
        return os.pread(self.descriptor, size, first * self.page_bytes + _HEADER_BYTES)
