"""The rows of one invocation, put together from all databases."""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure._core._entries import Entry, Kind
from perdure._runtime._layout import ID_BYTES, Output, Record, unpack_entry, unpack_waiter
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
    """

    timers: dict[int, int] = field(default_factory=dict)
    backoff_timers: dict[int, int] = field(default_factory=dict)
    backoffs: dict[int, int] = field(default_factory=dict)
    waiters: dict[int, str] = field(default_factory=dict)
    in_line: int | None = None


NOWHERE_ELSE = Elsewhere()


@dataclass(slots=True)
class Rows:
    """What a store holds of one invocation.

    Attributes:
      resumed: It is ready, and perhaps with nothing to do.
      outstanding: Commands of its journal that nothing has answered, by index.
      length: Entries of its journal.
      is_cut: The journal is cut at its beginning.
      gaps: Indexes of entries that are missing in the middle.
      start: The first entry of the journal, if it is there.
      expiries: What rows of ``expiry`` remove of it.
    """

    record: Record
    elsewhere: Elsewhere
    expiries: list[int]
    output: Output | None
    ready: bool
    resumed: bool
    paused: bool
    pending: list[Entry]
    awakeables: dict[int, bytes]
    signals: int
    outstanding: dict[int, Outstanding] = field(default_factory=dict)
    length: int = 0
    is_cut: bool = False
    gaps: list[int] = field(default_factory=list)
    start: Entry | None = None


def read_rows(
    store: Store, invocation_id: bytes, record: Record, elsewhere: Elsewhere, expiries: list[int]
) -> Rows:
    """The rows of an invocation, its journal read to the end."""
    output = store.get(Db.OUTPUTS, invocation_id, b"")
    ready = store.get(Db.READY, invocation_id, b"")
    rows = Rows(
        record=record,
        elsewhere=elsewhere,
        expiries=expiries,
        output=None if output is None else Output.unpack(output),
        ready=ready is not None,
        resumed=ready == RESUMED,
        paused=store.get(Db.PAUSED, invocation_id, b"") is not None,
        pending=[unpack_entry(value) for _, value in store.scan(Db.PENDING, invocation_id)],
        awakeables={
            unpack_waiter(invocation_id + suffix)[1]: value
            for suffix, value in store.scan(Db.AWAKEABLES, invocation_id)
        },
        signals=len(store.scan(Db.SIGNALS, invocation_id)),
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
            rows.length = first_index + len(entries)
    return rows


def id_of(key: bytes) -> bytes:
    """The invocation whose id a key begins with."""
    return key[:ID_BYTES]
