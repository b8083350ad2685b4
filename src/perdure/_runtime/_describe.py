"""Reading one invocation for people: its status, what it waits for, its journal."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from perdure._core._entries import FIRST_COMMAND, Entry, Flag, Kind, describe, word
from perdure._ids import format_id
from perdure._runtime._handlers import show_payload
from perdure._runtime._layout import Backoff
from perdure._runtime._outstanding import outstanding_in
from perdure._store import Db
from perdure.errors import NotFound
from perdure.serde import decode_failure

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler


class Status(enum.StrEnum):
    """Where an invocation stands."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    SUSPENDED = "suspended"
    BACKING_OFF = "backing-off"
    PAUSED = "paused"
    BLOCKED = "blocked"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of a journal, for people.

    Attributes:
      index: Position, from 0.
      time: When its activation was delivered.
      kind: A term such as ``step`` or ``timer fired``.
      name: Of the step, promise or state; may be empty.
      text: Kind, name and value in one line.
      site: ``file:line in function`` of the command, or empty.
      is_command: The handler asked for it; else the world answered.
    """

    index: int
    time: datetime
    kind: str
    name: str
    text: str
    site: str
    is_command: bool


@dataclass(frozen=True, slots=True)
class Description:
    """One invocation, as ``engine.describe`` shows it.

    Attributes:
      waiting_on: What could make it go on, one line each; first why it is blocked, if it is.
      last_failure: Of the attempt or step that failed last and has not succeeded since, or None.
      attempt: Number of the current attempt.
      journal: Its entries; empty where ``journal_kept`` is false and it has completed.
    """

    id: str
    service: str
    key: str
    handler: str
    version: int
    status: Status
    created_at: datetime
    completed_at: datetime | None
    attempt: int
    waiting_on: list[str]
    last_failure: str | None
    journal: list[JournalEntry]
    journal_kept: bool

    def timeline(self) -> str:
        """The journal as text, a line an entry."""
        if not self.journal:
            return "(journal not kept)"
        return "\n".join(
            f"{entry.index:>5}  {entry.time:%Y-%m-%d %H:%M:%S}.{entry.time.microsecond // 1000:03}"
            f"  {'  ' if entry.is_command else '<-'} {entry.text}"
            for entry in self.journal
        )


def describe_invocation(scheduler: Scheduler, invocation_id: bytes) -> Description:
    """What the store, as committed, says of an invocation."""
    store = scheduler.store
    record = scheduler.answers.record(invocation_id)
    if record is None:
        raise NotFound(f"there is no invocation {format_id(invocation_id)}")
    rows: list[tuple[int, Entry]] = []
    position = 0
    while page := store.journal(invocation_id, position, Entry):
        for first_index, entries in page:
            rows += list(enumerate(entries, first_index))
        position = rows[-1][0] + 1
    output = scheduler.output(invocation_id)
    backoff = _backoff(scheduler, invocation_id)
    waiting = [] if output is not None else _waiting_on(scheduler, invocation_id, rows)
    status = status_of(scheduler, invocation_id)
    if status is Status.BLOCKED:
        waiting.insert(0, scheduler.registry.why_blocked(record))
    return Description(
        id=format_id(invocation_id),
        service=record.service,
        key=record.key,
        handler=record.handler,
        version=record.version,
        status=status,
        created_at=_time(record.created_ms),
        completed_at=None if output is None else _time(output.completed_ms),
        attempt=1 if backoff is None else backoff.attempts + 1,
        waiting_on=waiting,
        last_failure=None if backoff is None else backoff.failure,
        journal=_journal(scheduler, rows),
        journal_kept=bool(rows),
    )


def status_of(scheduler: Scheduler, invocation_id: bytes) -> Status:
    """Where an invocation stands that there is."""
    store = scheduler.store
    record = scheduler.answers.record(invocation_id)
    if store.get(Db.OUTPUTS, invocation_id, b"") is not None:
        return Status.COMPLETED
    if store.get(Db.PAUSED, invocation_id, b"") is not None:
        return Status.PAUSED
    if record is not None and not scheduler.registry.is_registered(record):
        return Status.BLOCKED
    if scheduler.ledger.is_held(invocation_id):
        return Status.BACKING_OFF
    if scheduler.running.any_of(invocation_id):
        return Status.RUNNING
    if store.get(Db.READY, invocation_id, b"") is not None:
        return Status.READY
    if scheduler.ledger.backoffs.resting_steps(invocation_id):
        return Status.BACKING_OFF
    return Status.SUSPENDED


def _backoff(scheduler: Scheduler, invocation_id: bytes) -> Backoff | None:
    paused = scheduler.store.get(Db.PAUSED, invocation_id, b"")
    if paused is not None:
        return Backoff.unpack(paused)
    ledger = scheduler.ledger
    for index in (0, *ledger.backoffs.resting_steps(invocation_id)):
        backoff = ledger.backoffs.get(invocation_id, index)
        if backoff is not None:
            return backoff
    return None


def _waiting_on(
    scheduler: Scheduler, invocation_id: bytes, rows: list[tuple[int, Entry]]
) -> list[str]:
    waiting: list[str] = []
    for index, entry in outstanding_in(rows).items():
        text = describe(entry)
        if entry.kind == Kind.TIMER:
            text = f"timer due {_time(entry.time_ms):%Y-%m-%d %H:%M:%S} UTC"
        elif entry.kind == Kind.PROMISE_AWAIT:
            text = f"promise {entry.name!r}"
        elif backoff := scheduler.ledger.backoffs.get(invocation_id, index):
            text += (
                f", attempt {backoff.attempts + 1} at {_time(backoff.due_ms):%H:%M:%S} UTC"
                f" after {backoff.failure}"
            )
        waiting.append(text)
    return waiting


def _journal(scheduler: Scheduler, rows: list[tuple[int, Entry]]) -> list[JournalEntry]:
    journal: list[JournalEntry] = []
    time = _time(0)
    for index, entry in rows:
        is_command = entry.kind >= FIRST_COMMAND
        if not is_command:
            time = _time(entry.time_ms)
        journal.append(
            JournalEntry(
                index=index,
                time=time,
                kind=word(entry.kind),
                name="" if entry.kind == Kind.START else entry.name,
                text=describe(entry) + _value(entry),
                site=scheduler.sites.text(entry.site),
                is_command=is_command,
            )
        )
    return journal


def _value(entry: Entry) -> str:
    if entry.kind == Kind.TIMER:
        return f" due {_time(entry.time_ms):%Y-%m-%d %H:%M:%S}"
    if entry.payload is None or entry.kind == Kind.STATE_KEYS:
        return ""
    if entry.flags & Flag.DIGEST:
        return f": {int.from_bytes(entry.payload[16:], 'big')} bytes"
    if entry.flags & Flag.FAILED or entry.kind == Kind.PROMISE_REJECT:
        failure: Any = decode_failure(entry.payload)
        return f" failed: {failure} (code {failure.code})"
    shown = show_payload(entry.payload)
    return f": {shown if len(shown) <= 200 else shown[:200] + ' …'}"


def _time(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(milliseconds=time_ms % 1000)
