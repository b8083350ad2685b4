"""The tables of what keys have: state, promises, who waits for the key. And that of timers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from perdure._ids import InvocationId, created_at_ms, format_id
from perdure._runtime._layout import (
    Backoff,
    TimerKey,
    pack,
    split_group,
    u64,
    unpack_group,
    unpack_promise,
)
from perdure._sql._tables import (
    Column,
    Given,
    Lookup,
    Reads,
    Table,
    blob,
    json_text,
    stored_failure,
    time_text,
)
from perdure._store import Db, next_prefix

_OF_A_KEY = (Lookup(("service_name", "service_key"), 10), Lookup(("service_name",), 10_000))

_TEXT_MAX = 256
"""No service and no key has more characters."""
_PREFIX_BYTES_MAX = 400
"""Nor both of them more bytes."""


def _span(given: Given, before: bytes = b"") -> tuple[bytes, bytes | None]:
    """The rows of the service, or of its key, behind *before*."""
    prefix = before
    for column in ("service_name", "service_key"):
        text = given.equal.get(column)
        if text is None:
            break
        if len(text) > _TEXT_MAX:
            return b"", b""
        prefix += pack(text)
    if len(prefix) > _PREFIX_BYTES_MAX:
        return b"", b""
    return prefix, next_prefix(prefix)


class StateRow(NamedTuple):
    """A value of a key's state."""

    service: str
    key: str
    name: str
    payload: bytes


def _state(reads: Reads, given: Given) -> Iterator[StateRow]:
    for key, payload in reads.scan(Db.STATE, *_span(given)):
        group, name = split_group(key)
        yield StateRow(*unpack_group(group), name.decode(), payload)


STATE: Table[StateRow] = Table(
    "state",
    (
        Column("service_name", "TEXT", lambda row: row.service),
        Column("service_key", "TEXT", lambda row: row.key),
        Column("key", "TEXT", lambda row: row.name),
        Column("value_utf8", "TEXT", lambda row: json_text(row.payload, f"state {row.name!r}")),
        Column("value", "BLOB", lambda row: blob(row.payload)),
        Column("value_length", "INTEGER", lambda row: len(row.payload)),
    ),
    find=_state,
    lookups=_OF_A_KEY,
)


class PromiseRow(NamedTuple):
    """A promise that is completed, or waited for: then it has no payload."""

    service: str
    key: str
    name: str
    payload: bytes | None = None
    failed: bool = False


def _promises(reads: Reads, given: Given) -> Iterator[PromiseRow]:
    for key, value in reads.scan(Db.PROMISES, *_span(given)):
        group, name = split_group(key)
        yield PromiseRow(*unpack_group(group), name.decode(), *unpack_promise(value))
    position, stop = _span(given, b"p")
    # One look for each name, however many wait.
    while (waiter := reads.first_key(Db.WAITERS, position, stop)) is not None:
        group, rest = split_group(waiter[1:])
        end = 2 + int.from_bytes(rest[:2], "big")
        name = rest[2:end]
        if reads.get(Db.PROMISES, group + name) is None:
            yield PromiseRow(*unpack_group(group), name.decode())
        after = next_prefix(b"p" + group + rest[:end])
        assert after is not None  # the prefix begins with a letter
        position = after


SYS_PROMISE: Table[PromiseRow] = Table(
    "sys_promise",
    (
        Column("service_name", "TEXT", lambda row: row.service),
        Column("service_key", "TEXT", lambda row: row.key),
        Column("key", "TEXT", lambda row: row.name),
        Column("completed", "INTEGER", lambda row: int(row.payload is not None)),
        Column(
            "completion_success_value_utf8",
            "TEXT",
            lambda row: None if row.failed else json_text(row.payload, f"promise {row.name!r}"),
        ),
        Column(
            "completion_success_value",
            "BLOB",
            lambda row: None if row.failed else blob(row.payload),
        ),
        Column(
            "completion_failure",
            "TEXT",
            lambda row: stored_failure(row.payload) if row.failed and row.payload else None,
        ),
    ),
    find=_promises,
    lookups=_OF_A_KEY,
)


class InboxRow(NamedTuple):
    """An invocation that waits for its key."""

    service: str
    key: str
    arrival: int
    id: bytes
    holder: bytes


def _inbox(reads: Reads, given: Given) -> Iterator[InboxRow]:
    line, holder = b"", b""
    for key, invocation_id in reads.scan(Db.INBOX, *_span(given)):
        group, arrival = split_group(key)
        if group != line:  # the first of a line has the key
            line, holder = group, invocation_id
            continue
        yield InboxRow(*unpack_group(group), int.from_bytes(arrival, "big"), invocation_id, holder)


SYS_INBOX: Table[InboxRow] = Table(
    "sys_inbox",
    (
        Column("service_name", "TEXT", lambda row: row.service),
        Column("service_key", "TEXT", lambda row: row.key),
        Column("id", "TEXT", lambda row: format_id(row.id)),
        Column("sequence_number", "INTEGER", lambda row: row.arrival),
        Column("created_at", "TEXT", lambda row: time_text(created_at_ms(InvocationId(row.id)))),
        Column("held_by", "TEXT", lambda row: format_id(row.holder)),
    ),
    find=_inbox,
    lookups=_OF_A_KEY,
)


class TimerRow(NamedTuple):
    """Something that is due: a timer, a delayed start, the next attempt after a failed one."""

    timer: TimerKey
    backoff: Backoff | None

    @property
    def kind(self) -> str:
        """What happens then."""
        if self.backoff is None:
            return "timer" if self.timer.operation else "start"
        return "step" if self.timer.operation else "attempt"


def _timers(reads: Reads, given: Given) -> Iterator[TimerRow]:
    for key, value in reads.scan(Db.TIMERS, u64(given.from_ms), u64(given.until_ms)):
        yield TimerRow(TimerKey.unpack(key), Backoff.unpack(value) if value else None)


SYS_TIMER: Table[TimerRow] = Table(
    "sys_timer",
    (
        Column("fire_at", "TEXT", lambda row: time_text(row.timer.due_ms)),
        Column("id", "TEXT", lambda row: format_id(row.timer.invocation_id)),
        Column("index", "INTEGER", lambda row: row.timer.operation),
        Column("kind", "TEXT", lambda row: row.kind),
        Column("attempts", "INTEGER", lambda row: row.backoff.attempts if row.backoff else None),
        Column("last_failure", "TEXT", lambda row: row.backoff.failure if row.backoff else None),
    ),
    find=_timers,
    time="fire_at",
    ascending=frozenset({"fire_at"}),
)
