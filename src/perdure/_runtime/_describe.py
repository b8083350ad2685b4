"""Reading one invocation for people: its status, what it waits for, its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Entry
from perdure._ids import InvocationId, created_at_ms, format_id
from perdure._runtime._layout import Record, key_group
from perdure._runtime._outstanding import Outstanding, follow
from perdure._runtime._shown import JournalEntry, shown_entry
from perdure._runtime._slices import Slices
from perdure._runtime._stacks import Frame, frames_at, frames_in_memory
from perdure._runtime._status import Status, last_backoff, status_of
from perdure._runtime._times import utc
from perdure._runtime._waiting import (
    WaitingOn,
    blocks,
    delayed_start,
    held_key,
    registration,
    retry,
    waiting_on,
    waits_without_timeout,
)
from perdure.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

ENTRIES_SHOWN_MAX = 100_000
"""Of a journal, in one description."""

_PAGE_BYTES = 32 * 1024
"""Of a journal, read at a time: decoding it takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class Description:
    """One invocation, as ``engine.describe`` shows it.

    Attributes:
      attempt: Number of the current attempt.
      waiting_on: What could make it go on, ``str()`` of each is a line; first why it is blocked,
        if it is. At most 1,000 of them; ``waiting_count`` is how many there are.
      waits_without_timeout: It waits for a promise, say, and no timer is outstanding beside it: if
        nobody acts, it waits for ever. Steps do not count, for they end or fail by themselves.
      await_stack: Where its handler and the tasks of it wait, at most 1,000 frames. Of one that is
        not in memory, the lines that issued what it waits for.
      last_failure: Of the attempt or step that failed last and has not succeeded since, or None.
      blocks: The key that it has and that others wait for, and how many; else None.
      journal: The entries asked for; empty where ``journal_kept`` is false and it has completed.
      journal_length: How many entries there are.
      journal_next: Where to go on, as ``journal_from``; None after the last entry.
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
    waiting_on: list[WaitingOn]
    waiting_count: int
    waits_without_timeout: bool
    await_stack: list[Frame]
    last_failure: str | None
    blocks: str | None
    journal: list[JournalEntry]
    journal_length: int
    journal_next: int | None
    journal_kept: bool

    def timeline(self) -> str:
        """The journal as text, a line an entry."""
        if not self.journal_kept:
            return "(journal not kept)" if self.completed_at else "(nothing yet)"
        lines = [
            f"{entry.index:>5}  {entry.time:%Y-%m-%d %H:%M:%S}.{entry.time.microsecond // 1000:03}"
            f"  {'  ' if entry.is_command else '<-'} {entry.text}"
            for entry in self.journal
        ]
        if self.journal_next is not None:
            more = self.journal_length - self.journal_next
            lines.append(f"       … {more} more, from entry {self.journal_next}")
        return "\n".join(lines)


@dataclass(slots=True)
class _Reading:
    """What one pass over a journal has found.

    Attributes:
      outstanding: The commands that nothing has answered, by index.
      since_ms: When each of them was issued; of some others too.
      shown: The entries asked for.
      length: Entries read.
    """

    outstanding: dict[int, Outstanding] = field(default_factory=dict)
    since_ms: dict[int, int] = field(default_factory=dict)
    shown: list[JournalEntry] = field(default_factory=list)
    length: int = 0


async def describe_invocation(
    scheduler: Scheduler, invocation_id: bytes, journal_from: int, journal_limit: int
) -> Description:
    """What the store says of an invocation, its journal as committed.

    Raises:
      NotFound: There is none, or it has gone while its journal was read.
      StoreClosed, StoreBroken: The engine has closed or failed meanwhile.
    """
    _record(scheduler, invocation_id)
    reading = await _read(scheduler, invocation_id, journal_from, journal_limit)
    # From here to the end nothing else runs: all the rest is of one moment.
    record = _record(scheduler, invocation_id)
    output = scheduler.output(invocation_id)
    if output is not None:
        reading.outstanding.clear()
        if not scheduler.store.journal(invocation_id, 0, Entry, bytes_max=1):
            reading = _Reading()  # it completed while its journal was read, and that is not kept
    backoff = last_backoff(scheduler, invocation_id)
    status = status_of(scheduler, invocation_id, record)
    waiting = waiting_on(scheduler, invocation_id, reading.outstanding, reading.since_ms)
    frames = frames_in_memory(scheduler.residents.by_id.get(invocation_id)) or frames_at(
        [each.site for each in waiting]
    )
    before_all = _before_all(scheduler, invocation_id, record, status)
    if before_all is not None:
        waiting.insert(0, before_all)
    shown_to = journal_from + len(reading.shown)
    return Description(
        id=format_id(invocation_id),
        service=record.service,
        key=record.key,
        handler=record.handler,
        version=record.version,
        status=status,
        created_at=utc(created_at_ms(InvocationId(invocation_id))),
        completed_at=None if output is None else utc(output.completed_ms),
        attempt=1 if backoff is None else backoff.attempts + 1,
        waiting_on=waiting,
        waiting_count=len(reading.outstanding) + (before_all is not None),
        waits_without_timeout=waits_without_timeout(reading.outstanding),
        await_stack=frames,
        last_failure=None if backoff is None else backoff.failure,
        blocks=blocks(scheduler, invocation_id, record),
        journal=reading.shown,
        journal_length=reading.length,
        journal_next=shown_to if shown_to < reading.length else None,
        journal_kept=reading.length > 0,
    )


def _before_all(
    scheduler: Scheduler, invocation_id: bytes, record: Record, status: Status
) -> WaitingOn | None:
    """What has to happen before anything that its handler waits for counts."""
    if status is Status.BLOCKED:
        return registration(scheduler.registry.why_blocked(record))
    if status is Status.PENDING:
        holder = scheduler.ledger.inboxes.holder(key_group(record.service, record.key))
        return held_key(record, holder or invocation_id)
    if status is Status.SCHEDULED:
        return delayed_start(record)
    if status is Status.BACKING_OFF:
        backoff = scheduler.ledger.backoffs.get(invocation_id, 0)
        return None if backoff is None else retry(backoff)
    return None


def check_range(journal_from: Any, journal_limit: Any) -> None:  # Any: what a caller gave.
    """Refuse a part of a journal that can not be."""
    if type(journal_from) is not int or not 0 <= journal_from < 1 << 32:
        raise InvalidInput(
            f"journal_from must be an int from 0 to {(1 << 32) - 1:,}, not {journal_from!r:.100}"
        )
    if type(journal_limit) is not int or not 0 <= journal_limit <= ENTRIES_SHOWN_MAX:
        raise InvalidInput(
            f"journal_limit must be an int from 0 to {ENTRIES_SHOWN_MAX:,}, not "
            f"{journal_limit!r:.100}"
        )


def _record(scheduler: Scheduler, invocation_id: bytes) -> Record:
    record = scheduler.answers.record(invocation_id)
    if record is None:
        raise NotFound(f"there is no invocation {format_id(invocation_id)}")
    return record


async def _read(
    scheduler: Scheduler, invocation_id: bytes, journal_from: int, journal_limit: int
) -> _Reading:
    """Read a whole journal, for what is outstanding at its end, and keep the part asked for."""
    reading = _Reading()
    slices = Slices(scheduler)
    journal_to = journal_from + journal_limit
    while page := scheduler.store.journal(
        invocation_id, reading.length, Entry, bytes_max=_PAGE_BYTES
    ):
        for first_index, entries in page:
            time_ms = entries[0].time_ms  # each chunk begins with a notification
            follow(reading.outstanding, invocation_id, enumerate(entries, first_index))
            for index in reversed(reading.outstanding):
                if index < first_index:
                    break
                reading.since_ms[index] = time_ms
            reading.length = first_index + len(entries)
            for index in range(max(journal_from, first_index), min(journal_to, reading.length)):
                reading.shown.append(
                    shown_entry(scheduler.sites, index, time_ms, entries[index - first_index])
                )
                await slices.turn()
        await slices.turn()
    return reading
