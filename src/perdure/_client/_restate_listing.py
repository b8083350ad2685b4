"""Invocations of a Restate server, as its table of them lists them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from perdure._client._restate_values import among, literal, time_of
from perdure._runtime._filter import Wanted
from perdure._runtime._listing import InvocationPage, InvocationSummary
from perdure._runtime._status import Status
from perdure.errors import InvalidInput, Unavailable

# Any, in this module: columns are of any type.

Row = Mapping[str, Any]

COLUMNS: Final = (
    "id, target_service_name, target_service_key, target_handler_name, status, created_at, "
    "completed_at, retry_count, last_failure"
)

_ORDER: Final = "ORDER BY created_at, id"
_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond that a ``datetime`` has."""


def ids_sql(wanted: Wanted, statuses: Iterable[Status]) -> str:
    """Selects the ids of those *wanted*; at one of *statuses*, unless that says otherwise."""
    return f"SELECT id FROM sys_invocation{_where(_conditions(wanted, statuses))} {_ORDER}"


def page_sql(wanted: Wanted, limit: int, cursor: str | None) -> str:
    """Selects a page of those *wanted*, and one more if there is one.

    Raises:
      InvalidInput: *cursor* is none of this listing.
    """
    conditions = _conditions(wanted, ())
    if cursor is not None:
        at, last_id = _read_cursor(wanted, cursor)
        time = f"to_timestamp_millis({at})"
        conditions.append(
            f"(created_at > {time} OR (created_at = {time} AND id > {literal(last_id)}))"
        )
    return f"SELECT {COLUMNS} FROM sys_invocation{_where(conditions)} {_ORDER} LIMIT {limit + 1}"


def page_of(rows: list[dict[str, Any]], wanted: Wanted, limit: int) -> InvocationPage:
    """The page in *rows*."""
    items = [summary_of(row) for row in rows[:limit]]
    return InvocationPage(items, _cursor(wanted, items[-1]) if len(rows) > limit else None)


def summary_of(row: Row) -> InvocationSummary:
    """The line of one invocation."""
    completed_at = row.get("completed_at")
    status = status_of(row)
    # Restate counts attempts when they begin; the current one of perdure's is then the next.
    attempts = int(row.get("retry_count") or 0) + (status is Status.BACKING_OFF)
    return InvocationSummary(
        id=row["id"],
        service=row["target_service_name"],
        key=row.get("target_service_key") or "",
        handler=row["target_handler_name"],
        version=1,
        status=status,
        created_at=time_of(row["created_at"]),
        completed_at=None if completed_at is None else time_of(completed_at),
        attempt=max(attempts, 1),
        last_failure=row.get("last_failure"),
    )


def status_of(row: Row) -> Status:
    """Where an invocation stands.

    Raises:
      Unavailable: The server is of a release that knows others.
    """
    try:
        return Status(row["status"])
    except ValueError as error:
        raise Unavailable(
            f"{row['status']!r:.100} is no status that is known here", maybe_accepted=True
        ) from error


def _conditions(wanted: Wanted, statuses: Iterable[Status]) -> list[str]:
    conditions = [
        f"{column} = {literal(value)}"
        for column, value in (
            ("target_service_name", wanted.service),
            ("target_handler_name", wanted.handler),
            ("target_service_key", wanted.key),
        )
        if value is not None
    ]
    meant = [each.value for each in sorted(wanted.statuses or statuses)]
    if meant:
        conditions.append(f"status IN {among(meant)}")
    if wanted.age_ms is not None:
        conditions.append(f"created_at <= now() - INTERVAL '{wanted.age_ms} milliseconds'")
    if wanted.before_ms <= _MS_MAX:
        conditions.append(f"created_at < to_timestamp_millis({wanted.before_ms})")
    if wanted.after_ms > 0:
        conditions.append(f"created_at >= to_timestamp_millis({wanted.after_ms})")
    return conditions


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _cursor(wanted: Wanted, last: InvocationSummary) -> str:
    """The place behind *last* in a listing of those *wanted*, as text."""
    at = round(last.created_at.timestamp() * 1000)
    content = msgspec.json.encode((wanted.digest().hex(), at, last.id))
    return base64.urlsafe_b64encode(content).decode("ascii").rstrip("=")


def _read_cursor(wanted: Wanted, cursor: Any) -> tuple[int, str]:
    """Time and id behind which a page begins."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        digest, at, last_id = msgspec.json.decode(raw, type=tuple[str, int, str])
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{cursor!r:.100} is no cursor; give what the page before had"
        ) from error
    if digest != wanted.digest().hex():
        raise InvalidInput(f"the cursor {cursor!r} is of a listing with another filter")
    return at, last_id
