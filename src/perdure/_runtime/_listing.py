"""Pages of invocations, in the order in which they were accepted.

Theory of operation. Ids sort by time, so a listing is a scan over the keys of one database: of all
invocations, or of the one that holds just those with the status asked for. A page ends when it is
full, or when so many rows were looked at that whoever asked should hear of it. The place where it
ended goes into the cursor; nothing stays open in between.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure._ids import ID_BYTES, InvocationId, created_at_ms, format_id
from perdure._runtime._filter import Wanted
from perdure._runtime._layout import Output, Record
from perdure._runtime._slices import Slices
from perdure._runtime._status import Status, last_backoff, status_of
from perdure._runtime._times import utc
from perdure._store import Db
from perdure.errors import InvalidInput

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

PAGE_ITEMS_MAX = 10_000
"""Of the limit of one page."""

ROWS_LOOKED_AT_MAX = 10_000
"""For one page; a filter that few rows match gives short pages with a cursor."""

_KEYS_PER_SCAN = 256


@dataclass(frozen=True, slots=True)
class InvocationSummary:
    """One line of a listing; ``engine.describe`` tells more.

    Attributes:
      attempt: Number of the current attempt.
      last_failure: Of the attempt or step that failed last and has not succeeded since, or None.
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
    last_failure: str | None


@dataclass(frozen=True, slots=True)
class InvocationPage:
    """Part of a listing, those accepted first in front.

    Attributes:
      items: May be few, or none, although there are more.
      cursor: Where to go on; None: there are no more.
    """

    items: list[InvocationSummary]
    cursor: str | None


async def list_invocations(
    scheduler: Scheduler, wanted: Wanted, limit: int, after: bytes | None
) -> InvocationPage:
    """The next page of those *wanted*, behind the id *after*.

    What is accepted once the page has begun may be missing; each item is right as of when it was
    looked at.

    Raises:
      StoreClosed, StoreBroken: The engine has closed or failed meanwhile.
    """
    db = _database_of(wanted.statuses)
    position, stop = wanted.span(scheduler.clock.now_ms())
    if after is not None:
        position = max(position, after + b"\0")
    items: list[InvocationSummary] = []
    slices = Slices(scheduler)
    looked_at = 0
    while True:
        room = min(_KEYS_PER_SCAN, ROWS_LOOKED_AT_MAX - looked_at)
        # One more than is looked at: it tells whether there is more.
        keys = scheduler.store.keys_committed(db, position, stop, limit=room + 1)
        for key in keys:
            if len(items) == limit or looked_at == ROWS_LOOKED_AT_MAX:
                return InvocationPage(items, make_cursor(wanted, position[:ID_BYTES]))
            looked_at += 1
            item = _item(scheduler, wanted, key)
            if item is not None:
                items.append(item)
            position = key + b"\0"
            await slices.turn()
        if not keys:
            return InvocationPage(items, None)


def _database_of(statuses: frozenset[Status]) -> Db:
    """The smallest database that has every invocation with one of *statuses*, by id."""
    if statuses == {Status.PAUSED}:
        return Db.PAUSED
    if statuses == {Status.COMPLETED}:
        return Db.OUTPUTS
    if statuses and statuses <= {Status.READY, Status.RUNNING}:
        return Db.READY
    return Db.INVOCATIONS


def _item(scheduler: Scheduler, wanted: Wanted, invocation_id: bytes) -> InvocationSummary | None:
    record = scheduler.answers.record(invocation_id)
    if record is None or not wanted.matches(record):
        return None
    status = status_of(scheduler, invocation_id, record)
    if wanted.statuses and status not in wanted.statuses:
        return None
    return _summary(scheduler, invocation_id, record, status)


def summary_of(scheduler: Scheduler, invocation_id: bytes) -> InvocationSummary | None:
    """The line of one invocation; None: its rows are not there."""
    record = scheduler.answers.record(invocation_id)
    if record is None:
        return None
    status = status_of(scheduler, invocation_id, record)
    return _summary(scheduler, invocation_id, record, status)


def _summary(
    scheduler: Scheduler, invocation_id: bytes, record: Record, status: Status
) -> InvocationSummary:
    value = scheduler.store.get(Db.OUTPUTS, invocation_id, b"")
    output = None if value is None else Output.unpack(value, invocation_id)
    backoff = last_backoff(scheduler, invocation_id)
    return InvocationSummary(
        id=format_id(invocation_id),
        service=record.service,
        key=record.key,
        handler=record.handler,
        version=record.version,
        status=status,
        created_at=utc(created_at_ms(InvocationId(invocation_id))),
        completed_at=None if output is None else utc(output.completed_ms),
        attempt=1 if backoff is None else backoff.attempts + 1,
        last_failure=None if backoff is None else backoff.failure,
    )


def check_limit(limit: Any) -> int:  # Any: what a caller gave.
    """The limit of a page, checked."""
    if type(limit) is not int or not 1 <= limit <= PAGE_ITEMS_MAX:
        raise InvalidInput(f"limit must be an int from 1 to {PAGE_ITEMS_MAX:,}, not {limit!r:.100}")
    return limit


def make_cursor(wanted: Wanted, last_id: bytes) -> str:
    """The place behind *last_id* in a listing of those *wanted*, as text."""
    return base64.urlsafe_b64encode(wanted.digest() + last_id).decode("ascii").rstrip("=")


def read_cursor(wanted: Wanted, cursor: Any) -> bytes | None:  # Any: what a caller gave.
    """The id behind which a page begins; None: at the start."""
    if cursor is None:
        return None
    raw = b""
    if isinstance(cursor, str) and len(cursor) == 27:
        try:
            raw = base64.urlsafe_b64decode(cursor + "=")
        except (binascii.Error, ValueError):
            raw = b""
    # Other characters than those of the alphabet are skipped: only what comes back is a cursor.
    last_id = raw[-ID_BYTES:]
    if len(raw) != 4 + ID_BYTES or base64.urlsafe_b64encode(raw).decode()[:27] != cursor:
        raise InvalidInput(f"{cursor!r:.100} is no cursor; give what the page before had")
    if make_cursor(wanted, last_id) != cursor:
        raise InvalidInput(f"the cursor {cursor!r} is of a listing with another filter")
    return last_id
