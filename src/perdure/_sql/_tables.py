"""What a table is: columns, and rows found in a snapshot by what a query says of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from perdure._core._entries import Entry
from perdure._runtime._layout import u32
from perdure._runtime._shown import VALUE_SHOWN_BYTES_MAX, plain_value
from perdure._runtime._times import EPOCH, utc
from perdure._store import CommittedSnapshot, Db
from perdure.errors import InvalidInput, TerminalError
from perdure.serde import UNTYPED, Serde, decode_failure, serde_for

R = TypeVar("R")
SqlValue: TypeAlias = "str | int | float | bytes | None"

BLOB_BYTES_MAX = 256 << 10
"""Of a value shown as it is stored; a longer one is NULL, and its length tells why."""

_BREATH_EVERY_S = 0.001
_BREATH_S = 0.00005
_ROWS_PER_PAGE = 256
_PAGE_BYTES = 32 * 1024
_perf_counter = time.perf_counter
_UNTYPED: Serde[Any] = serde_for(UNTYPED)
_WHOLE_SECOND = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")


class Reads:
    """What the tables of one query read; all of it is of one moment.

    *check* is called before each page, and raises what ends the query.
    """

    def __init__(self, snapshot: CommittedSnapshot, check: Callable[[], None]) -> None:
        self._snapshot = snapshot
        self._end_if_over = check
        self._breath = _perf_counter()

    def breathe(self) -> None:
        """Let the host's loop have the interpreter, if this thread has had it for a while.

        A loop that wants it waits for up to 5 ms else, and on a busy machine for many times that.
        """
        if _perf_counter() - self._breath > _BREATH_EVERY_S:
            time.sleep(_BREATH_S)  # 0 would give it up, and take it back before anybody wakes up
            self._breath = _perf_counter()

    def _check(self) -> None:
        self._end_if_over()
        self.breathe()

    def get(self, db: Db, key: bytes) -> bytes | None:
        """The value of a row, or None."""
        return self._snapshot.get_committed(db, key)

    def scan(
        self, db: Db, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in key order."""
        self._check()
        while page := self._snapshot.scan_committed(db, start, stop, limit=_ROWS_PER_PAGE):
            yield from page
            start = page[-1][0] + b"\0"
            self._check()

    def keys(self, db: Db, start: bytes = b"", stop: bytes | None = None) -> Iterator[bytes]:
        """As :meth:`scan`, the keys alone."""
        self._check()
        while page := self._snapshot.keys_committed(db, start, stop, limit=_ROWS_PER_PAGE):
            yield from page
            start = page[-1] + b"\0"
            self._check()

    def first_key(self, db: Db, start: bytes, stop: bytes | None) -> bytes | None:
        """The first key of a range, or None."""
        self._check()
        keys = self._snapshot.keys_committed(db, start, stop, limit=1)
        return keys[0] if keys else None

    def journal(self, invocation_id: bytes) -> Iterator[tuple[int, list[Entry]]]:
        """The activations of a journal: index of the first entry, entries."""
        position = 0
        self._check()
        while page := self._snapshot.journal(invocation_id, position, Entry, bytes_max=_PAGE_BYTES):
            yield from page
            position = page[-1][0] + len(page[-1][1])
            self._check()

    def text(self, site: int) -> str:
        """``file:line in function`` of a call site."""
        value = self.get(Db.SITES, u32(site)) if site else None
        return "" if value is None else value.decode()


@dataclass(frozen=True, slots=True)
class Given:
    """What a query says of the rows it wants; SQLite looks at each row again.

    Attributes:
      equal: Column to the text that it has.
      from_ms, until_ms: The times in question: of ``table.time``, from the first up to the second.
    """

    equal: Mapping[str, str] = field(default_factory=dict)
    from_ms: int = 0
    until_ms: int = 1 << 63


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """A column, and how it is read off a row."""

    name: str
    type: Literal["TEXT", "INTEGER", "REAL", "BLOB"]
    read: Callable[[R], SqlValue]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Columns that, all of them given, lead to few rows: about *rows* of them."""

    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """A table.

    Attributes:
      find: Its rows, at least those that fit what is given, each once.
      lookups: What leads to few rows, the best first.
      time: The column whose range leads to few rows, if there is one.
      ascending: Columns by any one of which the rows come in ascending order.
    """

    name: str
    columns: tuple[Column[R], ...]
    find: Callable[[Reads, Given], Iterator[R]]
    lookups: tuple[Lookup, ...] = ()
    time: str | None = None
    ascending: frozenset[str] = frozenset()

    @property
    def declaration(self) -> str:
        """Its columns, as SQLite wants to hear of them."""
        columns = [f'"{column.name}" {column.type}' for column in self.columns]
        return f"CREATE TABLE t({', '.join(columns)})"


def time_text(time_ms: int | None) -> str | None:
    """A time in UTC, as RFC 3339 with milliseconds: such texts sort as the times do."""
    if time_ms is None:
        return None
    shown = utc(time_ms)
    return f"{shown:%Y-%m-%dT%H:%M:%S}.{shown.microsecond // 1000:03}Z".rjust(24, "0")


def first_ms_of_second(text: object) -> int | None:
    """The first ms of the second that the text of a time begins with; None: it is no such text.

    Texts compare as their first 19 characters do, or have these in common.
    """
    if not isinstance(text, str) or not _WHOLE_SECOND.match(text):
        return None
    try:
        second = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0, (second - EPOCH) // timedelta(milliseconds=1))


def json_text(payload: bytes | None, place: str) -> str | None:
    """A stored value as JSON; None where it is long or has no JSON form."""
    if payload is None or len(payload) > VALUE_SHOWN_BYTES_MAX:
        return None
    return plain_json(plain_value(payload, place), place)


def plain_json(value: Any, place: str) -> str | None:  # Any: whatever was stored.
    """A value as JSON; None where it has no JSON form."""
    try:
        return _UNTYPED.to_json(value, place).decode()
    except InvalidInput:
        return None


def blob(payload: bytes | None) -> bytes | None:
    """A stored value as it is; None where it is long."""
    return None if payload is None or len(payload) > BLOB_BYTES_MAX else payload


def failure_text(failure: TerminalError) -> str:
    """A failure as Restate shows it."""
    return f"[{failure.code}] {failure}"


def stored_failure(payload: bytes) -> str:
    """A stored failure as Restate shows it."""
    return failure_text(decode_failure(payload))
