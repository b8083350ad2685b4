"""Times of the store, for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc(time_ms: int) -> datetime:
    """The time *time_ms* milliseconds after 1970 began."""
    return datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(milliseconds=time_ms % 1000)
