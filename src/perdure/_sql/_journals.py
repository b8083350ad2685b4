"""The table of journal entries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property

from perdure._core._entries import FIRST_COMMAND, Entry, Kind, word
from perdure._core._outgoing import child_id
from perdure._ids import ID_BYTES, format_id, parse_id
from perdure._runtime._outstanding import Outstanding, follow
from perdure._runtime._shown import JournalEntry, shown_entry
from perdure._sql._tables import (
    Column,
    Given,
    Lookup,
    Reads,
    Table,
    blob,
    failure_text,
    plain_json,
    time_text,
)
from perdure._store import Db, next_prefix
from perdure.errors import InvalidInput

_RESTATE_NAMES = {
    Kind.START: "Command: Input",
    Kind.STEP_DONE: "Notification: Run",
    Kind.TIMER_FIRED: "Notification: Sleep",
    Kind.PROMISE_DONE: "Notification: GetPromise",
    Kind.CALL_DONE: "Notification: Call",
    Kind.AWAKEABLE_DONE: "Notification: Awakeable",
    Kind.SIGNAL_DONE: "Notification: Signal",
    Kind.CANCELLED: "Notification: Cancel",
    Kind.OUTPUT: "Command: Output",
    Kind.RUN: "Command: Run",
    Kind.TIMER: "Command: Sleep",
    Kind.PROMISE_AWAIT: "Command: GetPromise",
    Kind.CANCEL: "Command: Cancel",
    Kind.CALL: "Command: Call",
    Kind.AWAKEABLE: "Command: Awakeable",
    Kind.SIGNAL_AWAIT: "Command: GetSignal",
    Kind.ATTACH: "Command: AttachInvocation",
    Kind.SEND: "Command: OneWayCall",
    Kind.CANCEL_INVOCATION: "Command: SendSignal",
    Kind.PROMISE_PEEK: "Command: PeekPromise",
    Kind.PROMISE_RESOLVE: "Command: CompletePromise",
    Kind.PROMISE_REJECT: "Command: CompletePromise",
    Kind.STATE_GET: "Command: GetEagerState",
    Kind.STATE_KEYS: "Command: GetEagerStateKeys",
    Kind.STATE_SET: "Command: SetState",
    Kind.STATE_CLEAR: "Command: ClearState",
    Kind.STATE_CLEAR_ALL: "Command: ClearAllState",
    Kind.LOOK_UP: "Command: LookUp",
    Kind.AWAKEABLE_RESOLVE: "Command: CompleteAwakeable",
    Kind.AWAKEABLE_REJECT: "Command: CompleteAwakeable",
    Kind.PATCHED: "Command: Patched",
}
_OF_PROMISES = frozenset(
    {
        *(Kind.PROMISE_AWAIT, Kind.PROMISE_DONE, Kind.PROMISE_PEEK),
        *(Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT),
    }
)
_BEGINNING = frozenset({Kind.CALL, Kind.SEND})
_NAMING = frozenset({Kind.ATTACH, Kind.CANCEL_INVOCATION})


class Journal:
    """The journal of one invocation."""

    def __init__(self, reads: Reads, invocation_id: bytes) -> None:
        self.reads = reads
        self.raw_id = invocation_id
        self.id = format_id(invocation_id)

    @cached_property
    def unanswered(self) -> frozenset[int]:
        """The commands that wait for their answer at its end."""
        outstanding: dict[int, Outstanding] = {}
        for first_index, entries in self.reads.journal(self.raw_id):
            follow(outstanding, self.raw_id, enumerate(entries, first_index))
        return frozenset(outstanding)

    def rows(self) -> Iterator[JournalRow]:
        """Its entries."""
        for first_index, entries in self.reads.journal(self.raw_id):
            time_ms = entries[0].time_ms  # each chunk begins with a notification
            for index, entry in enumerate(entries, first_index):
                yield JournalRow(self, index, time_ms, entry)


class JournalRow:
    """A row, which decodes what it is asked for."""

    def __init__(self, journal: Journal, index: int, time_ms: int, entry: Entry) -> None:
        self.journal = journal
        self.index = index
        self.time_ms = time_ms
        self.entry = entry

    @cached_property
    def shown(self) -> JournalEntry:
        """The entry, for people."""
        return shown_entry(self.journal.reads, self.index, self.time_ms, self.entry)

    @property
    def completed(self) -> int | None:
        """Whether a command has its answer."""
        if self.entry.kind < FIRST_COMMAND:
            return None
        return int(self.index not in self.journal.unanswered)

    @property
    def invoked_id(self) -> str | None:
        """The invocation that a command begins or means."""
        if self.entry.kind in _BEGINNING:
            return format_id(child_id(self.journal.raw_id, self.index, self.time_ms))
        return self.entry.name if self.entry.kind in _NAMING else None

    @property
    def json(self) -> str | None:
        """The entry, with the names that ``engine.describe`` has."""
        shown = self.shown
        parts = {
            "index": self.index,
            "kind": shown.kind,
            "name": shown.name,
            "text": shown.text,
            "site": shown.site,
            "is_command": shown.is_command,
            "answers": shown.answers,
        }
        if shown.has_value:
            parts["value"] = shown.value
        if shown.failure is not None:
            parts["failure"] = failure_text(shown.failure)
        return plain_json(parts, "an entry")


def _find(reads: Reads, given: Given) -> Iterator[JournalRow]:
    if "id" in given.equal:
        with contextlib.suppress(InvalidInput):  # of what is no id
            yield from Journal(reads, parse_id(given.equal["id"])).rows()
        return
    position: bytes | None = b""
    while position is not None:
        key = reads.first_key(Db.JOURNAL, position, None)
        if key is None:
            return
        yield from Journal(reads, key[:ID_BYTES]).rows()
        position = next_prefix(key[:ID_BYTES])


SYS_JOURNAL: Table[JournalRow] = Table(
    "sys_journal",
    (
        Column("id", "TEXT", lambda row: row.journal.id),
        Column("index", "INTEGER", lambda row: row.index),
        Column(
            "entry_type",
            "TEXT",
            lambda row: _RESTATE_NAMES.get(row.entry.kind) or word(row.entry.kind),
        ),
        Column("kind", "TEXT", lambda row: word(row.entry.kind)),
        Column("name", "TEXT", lambda row: row.shown.name or None),
        Column("completed", "INTEGER", lambda row: row.completed),
        Column("answers", "INTEGER", lambda row: row.shown.answers),
        Column("appended_at", "TEXT", lambda row: time_text(row.time_ms)),
        Column("invoked_id", "TEXT", lambda row: row.invoked_id),
        Column(
            "invoked_target",
            "TEXT",
            lambda row: row.entry.name if row.entry.kind in _BEGINNING else None,
        ),
        Column(
            "sleep_wakeup_at",
            "TEXT",
            lambda row: time_text(row.entry.time_ms) if row.entry.kind == Kind.TIMER else None,
        ),
        Column(
            "promise_name",
            "TEXT",
            lambda row: row.entry.name if row.entry.kind in _OF_PROMISES else None,
        ),
        Column("site", "TEXT", lambda row: row.shown.site or None),
        Column("text", "TEXT", lambda row: row.shown.text),
        Column("entry_json", "TEXT", lambda row: row.json),
        Column("raw", "BLOB", lambda row: blob(row.entry.payload)),
        Column(
            "raw_length",
            "INTEGER",
            lambda row: None if row.entry.payload is None else len(row.entry.payload),
        ),
    ),
    find=_find,
    lookups=(Lookup(("id",), 100),),
    ascending=frozenset({"id"}),
)
