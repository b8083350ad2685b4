"""The table of invocations, and where each stands by its rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from perdure._ids import ID_BYTES, InvocationId, created_at_ms, format_id, parse_id
from perdure._runtime._layout import (
    Backoff,
    Output,
    Record,
    TimerKey,
    backoff_group,
    key_group,
    number_of,
    u32,
    unpack_due,
    unpack_waiter,
)
from perdure._runtime._status import Status
from perdure._sql._tables import (
    Column,
    Given,
    Lookup,
    Reads,
    Table,
    json_text,
    plain_json,
    stored_failure,
    time_text,
)
from perdure._store import Db, next_prefix
from perdure.errors import InvalidInput

_MS_END = 1 << 48  # of an id's milliseconds
_IDS_OF = {Status.COMPLETED: Db.OUTPUTS, Status.PAUSED: Db.PAUSED, Status.READY: Db.READY}
_STATUSES = frozenset(Status)


class Invocation:
    """A row, which reads what it is asked for."""

    def __init__(self, reads: Reads, invocation_id: bytes, value: bytes) -> None:
        self._reads = reads
        self._id = invocation_id
        self._value = value

    @property
    def id(self) -> str:
        """Its text form."""
        return format_id(self._id)

    @cached_property
    def record(self) -> Record:
        """What was asked."""
        return Record.unpack(self._value)

    @cached_property
    def output(self) -> Output | None:
        """How it ended."""
        value = self._reads.get(Db.OUTPUTS, self._id)
        return None if value is None else Output.unpack(value)

    @cached_property
    def status(self) -> Status:
        """Where it stands, as far as its rows tell.

        What runs is ready, and so may be what waits for its service to be registered: an engine
        has that in memory.
        """
        get = self._reads.get
        if self.output is not None:
            return Status.COMPLETED
        if self._paused is not None:
            return Status.PAUSED
        due_ms = self.record.due_ms
        if due_ms and get(Db.TIMERS, TimerKey(due_ms, self._id, 0).pack()) == b"":
            return Status.SCHEDULED
        if 0 in self._backoffs:
            return Status.BACKING_OFF
        if get(Db.READY, self._id) is not None:
            return Status.READY
        if self._backoffs:
            return Status.BACKING_OFF
        return Status.PENDING if self._waits_for_its_key() else Status.SUSPENDED

    @cached_property
    def backoff(self) -> Backoff | None:
        """The failed attempts of the invocation, else of one of its steps."""
        if self._paused is not None:
            return Backoff.unpack(self._paused)
        for index, due_ms in sorted(self._backoffs.items()):
            value = self._reads.get(Db.TIMERS, TimerKey(due_ms, self._id, index).pack())
            if value is not None:
                return Backoff.unpack(value)
        return None

    @property
    def next_retry_ms(self) -> int | None:
        """When it is tried again."""
        return None if self.backoff is None or self._paused is not None else self.backoff.due_ms

    @property
    def target(self) -> str:
        """Service, key if there is one, and handler."""
        record = self.record
        return "/".join(filter(None, (record.service, record.key, record.handler)))

    @property
    def caller(self) -> str | None:
        """The invocation that began it."""
        return format_id(self.record.caller[:ID_BYTES]) if self.record.caller else None

    @property
    def origin(self) -> str | None:
        """The invocation part of whose journal it has taken over."""
        return format_id(unpack_waiter(self.record.origin)[0]) if self.record.origin else None

    @property
    def created_ms(self) -> int:
        """When it was accepted."""
        return created_at_ms(InvocationId(self._id))

    @property
    def journal_size(self) -> int:
        """How many entries its journal has."""
        size = 0
        for first_index, entries in self._reads.journal(self._id):
            size = first_index + len(entries)
        return size

    @property
    def result(self) -> str | None:
        """``success`` or ``failure``, once it has ended."""
        if self.output is None:
            return None
        return "failure" if self.output.failed else "success"

    @property
    def failure(self) -> str | None:
        """What it failed with."""
        output = self.output
        return stored_failure(output.payload) if output is not None and output.failed else None

    @property
    def value(self) -> str | None:
        """What it returned."""
        output = self.output
        if output is None or output.failed:
            return None
        return json_text(output.payload, f"result of {self.id}")

    @cached_property
    def _paused(self) -> bytes | None:
        return self._reads.get(Db.PAUSED, self._id)

    @cached_property
    def _backoffs(self) -> dict[int, int]:
        """Index to due_ms of what backs off: 0 is the attempt itself, all else steps."""
        group = backoff_group(self._id)
        rows = self._reads.scan(Db.WAITERS, group, next_prefix(group))
        return {
            number_of(key[len(group) :], 4, "waiters", key): unpack_due(value, key)
            for key, value in rows
        }

    def _waits_for_its_key(self) -> bool:
        if not self.record.origin and self._reads.get(Db.JOURNAL, self._id + u32(0)) is not None:
            return False  # it has begun, so its key was its own: no need to read a long line
        group = key_group(self.record.service, self.record.key)
        line = self._reads.scan(Db.INBOX, group, next_prefix(group))
        return any(place > 0 and value == self._id for place, (_, value) in enumerate(line))


def _find(reads: Reads, given: Given) -> Iterator[Invocation]:
    ids = _ids(reads, given)
    if ids is None:
        span = _first_id(given.from_ms), _first_id(given.until_ms)
        for invocation_id, value in reads.scan(Db.INVOCATIONS, *span):
            yield Invocation(reads, invocation_id, value)
        return
    for invocation_id in ids:
        found = reads.get(Db.INVOCATIONS, invocation_id)
        if found is not None:
            yield Invocation(reads, invocation_id, found)


def _ids(reads: Reads, given: Given) -> Iterable[bytes] | None:
    """The ids in question, ascending; None: a database has not just those."""
    if "id" in given.equal:
        try:
            return (parse_id(given.equal["id"]),)
        except InvalidInput:
            return ()
    start, stop = _first_id(given.from_ms), _first_id(given.until_ms)
    status = given.equal.get("status")
    if status is not None and status not in _STATUSES:
        return ()
    if status == Status.BACKING_OFF:
        # One that has several rows there, of its steps, has them side by side.
        keys = reads.keys(Db.WAITERS, backoff_group(start), backoff_group(stop))
        return dict.fromkeys(key[1 : 1 + ID_BYTES] for key in keys)
    db = None if status is None else _IDS_OF.get(Status(status))
    return None if db is None else reads.keys(db, start, stop)


def _first_id(time_ms: int) -> bytes:
    """No id made at *time_ms* or later is less."""
    clipped = min(max(time_ms, 0), _MS_END)
    return clipped.to_bytes(7, "big")[1:] if clipped < _MS_END else b"\xff" * 17


SYS_INVOCATION: Table[Invocation] = Table(
    "sys_invocation",
    (
        Column("id", "TEXT", lambda row: row.id),
        Column("target", "TEXT", lambda row: row.target),
        Column("target_service_name", "TEXT", lambda row: row.record.service),
        Column("target_service_key", "TEXT", lambda row: row.record.key or None),
        Column("target_handler_name", "TEXT", lambda row: row.record.handler),
        Column("version", "INTEGER", lambda row: row.record.version),
        Column("status", "TEXT", lambda row: str(row.status)),
        Column("created_at", "TEXT", lambda row: time_text(row.created_ms)),
        Column("scheduled_start_at", "TEXT", lambda row: time_text(row.record.due_ms or None)),
        Column(
            "completed_at", "TEXT", lambda row: time_text(row.output and row.output.completed_ms)
        ),
        Column("completion_result", "TEXT", lambda row: row.result),
        Column("completion_failure", "TEXT", lambda row: row.failure),
        Column("result_utf8", "TEXT", lambda row: row.value),
        Column("attempt", "INTEGER", lambda row: row.backoff.attempts + 1 if row.backoff else 1),
        Column("retry_count", "INTEGER", lambda row: row.backoff.attempts if row.backoff else 0),
        Column("next_retry_at", "TEXT", lambda row: time_text(row.next_retry_ms)),
        Column("last_failure", "TEXT", lambda row: row.backoff.failure if row.backoff else None),
        Column("idempotency_key", "TEXT", lambda row: row.record.idempotency_key),
        Column("invoked_by", "TEXT", lambda row: "service" if row.caller else "ingress"),
        Column("invoked_by_id", "TEXT", lambda row: row.caller),
        Column("restarted_from", "TEXT", lambda row: row.origin),
        Column("journal_size", "INTEGER", lambda row: row.journal_size),
        Column("completion_retention", "REAL", lambda row: row.record.output_ms / 1000),
        Column("journal_retention", "REAL", lambda row: row.record.journal_ms / 1000),
        Column("headers", "TEXT", lambda row: plain_json(row.record.headers, "headers")),
        Column("argument_utf8", "TEXT", lambda row: json_text(row.record.argument, "an argument")),
    ),
    find=_find,
    lookups=(Lookup(("id",), 1), Lookup(("status",), 10_000)),
    time="created_at",
    ascending=frozenset({"id", "created_at"}),
)
