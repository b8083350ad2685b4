"""The rows of one invocation, put together from all databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from perdure._core._entries import Entry, Kind
from perdure._runtime._layout import ID_BYTES, Expiry, Output, Record, unpack_entry, unpack_waiter
from perdure._runtime._outstanding import Outstanding, follow
from perdure._runtime._setbacks import RESUMED
from perdure._store import Db, Store


@dataclass(slots=True)
class Elsewhere:
    """Rows that name an invocation and are not found by its id.

    Attributes:
      timers, backoff_timers: Journal index to due_ms.
      backoffs: Journal index to due_ms, by the rows of ``waiters``.
      waiters: Journal index to what is waited for.
      in_line: Place in the line of its key, 0 for who has it.
      line: Service and key of that line.
      twice: Rows of which there is one already.
    """

    timers: dict[int, int] = field(default_factory=dict)
    backoff_timers: dict[int, int] = field(default_factory=dict)
    backoffs: dict[int, int] = field(default_factory=dict)
    waiters: dict[int, str] = field(default_factory=dict)
    in_line: int | None = None
    line: bytes = b""
    twice: list[str] = field(default_factory=list)


NOWHERE_ELSE = Elsewhere()


@dataclass(slots=True)
class Rows:
    """What a store holds of one invocation.

    Attributes:
      resumed: It is ready, and perhaps with nothing to do.
      signals: Names of the messages that nobody has waited for yet.
      outstanding: Commands of its journal that nothing has answered, by index.
      length: Entries of its journal.
      is_cut: The journal is cut at its beginning.
      gaps: Indexes of entries that are missing in the middle.
      start: The first entry of the journal, if it is there.
      expiries: What rows of ``expiry`` remove of it.
    """

    record: Record
    elsewhere: Elsewhere
    expiries: list[Expiry]
    output: Output | None
    ready: bool
    resumed: bool
    paused: bool
    pending: list[Entry]
    awakeables: dict[int, bytes]
    signals: list[str]
    outstanding: dict[int, Outstanding] = field(default_factory=dict)
    length: int = 0
    is_cut: bool = False
    gaps: list[int] = field(default_factory=list)
    start: Entry | None = None


def read_rows(
    store: Store,
    invocation_id: bytes,
    record: Record,
    elsewhere: Elsewhere,
    expiries: list[Expiry],
    hear: Callable[[int, Entry], None],
) -> Rows:
    """The rows of an invocation; *hear* is given its journal, from the first entry to the last."""
    output = store.get(Db.OUTPUTS, invocation_id, b"")
    ready = store.get(Db.READY, invocation_id, b"")
    rows = Rows(
        record=record,
        elsewhere=elsewhere,
        expiries=expiries,
        output=None if output is None else Output.unpack(output, invocation_id),
        ready=ready is not None,
        resumed=ready == RESUMED,
        paused=store.get(Db.PAUSED, invocation_id, b"") is not None,
        pending=[unpack_entry(value) for _, value in store.scan(Db.PENDING, invocation_id)],
        awakeables={
            unpack_waiter(invocation_id + suffix)[1]: value
            for suffix, value in store.scan(Db.AWAKEABLES, invocation_id)
        },
        signals=[split_text(suffix)[0] for suffix, _ in store.scan(Db.SIGNALS, invocation_id)],
    )
    while page := store.journal(invocation_id, rows.length, Entry):
        for first_index, entries in page:
            if first_index != rows.length:
                if rows.length == 0:
                    rows.is_cut = True
                else:
                    rows.gaps.append(rows.length)
            if first_index == 0 and entries[0].kind == Kind.START:
                rows.start = entries[0]
            follow(rows.outstanding, invocation_id, enumerate(entries, first_index))
            for index, entry in enumerate(entries, first_index):
                hear(index, entry)
            rows.length = first_index + len(entries)
    return rows


def split_text(raw: bytes) -> tuple[str, bytes]:
    """The text that *raw* begins with, and the rest."""
    end = 2 + int.from_bytes(raw[:2], "big")
    if end > len(raw):
        raise ValueError("a text in its key is longer than the key")
    return raw[2:end].decode(), raw[end:]


def id_of(key: bytes) -> bytes:
    """The invocation whose id a key begins with."""
    return key[:ID_BYTES]
