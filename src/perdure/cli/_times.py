"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def span(length: timedelta) -> str:
    """A length of time by its two greatest units: ``2h 5m``."""
    left = max(0, int(length.total_seconds()))
    parts: list[str] = []
    for seconds, unit in _UNITS:
        count, left = divmod(left, seconds)
        if count or parts:
            parts.append(f"{count}{unit}" * bool(count))
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts)) or "0s"


def age(since: datetime) -> str:
    """How long ago *since* was."""
    return span(datetime.now(UTC) - since)


def moment(at: datetime | None) -> str:
    """A time with how far away it is, or an empty text."""
    if at is None:
        return ""
    now = datetime.now(UTC)
    distance = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, {distance}"
