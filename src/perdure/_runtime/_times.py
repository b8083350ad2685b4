"""Times of the store, for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
"""Of the last time that there is for Python. A retention or a back-off may end later."""


def utc(time_ms: int) -> datetime:
    """The time *time_ms* milliseconds after 1970 began, or the last that there is."""
    return EPOCH + timedelta(milliseconds=min(time_ms, LAST_MS))
