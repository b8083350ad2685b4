"""Durations as they stand in query strings: ``10s``, ``2500ms``, ``1h 30m``, ``PT10S``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from perdure.errors import InvalidInput

_SECONDS: Final = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604_800.0),
}
# A decimal comma is one before a digit; one before a space stands between two parts.
_PART: Final = re.compile(r"\s*(\d{1,18}(?:[.,]\d{1,9})?)\s*([a-z]+)(?:,(?=\s+\d))?", re.ASCII)
_ISO: Final = re.compile(
    r"P(?:(\d{1,18})W)?(?:(\d{1,18})D)?"
    r"(?:T(?:(\d{1,18})H)?(?:(\d{1,18})M)?(?:(\d{1,18}(?:[.,]\d{1,9})?)S)?)?",
    re.ASCII,
)
_ISO_SECONDS: Final = (604_800.0, 86_400.0, 3600.0, 60.0, 1.0)


def parse_duration(text: str, what: str) -> timedelta:
    """Read a duration.

    Args:
      what: Whose it is, for the error: ``"bad delay query parameter"``.

    Raises:
      InvalidInput: It is none, or has no unit, or is too long for a timedelta.
    """
    seconds = _seconds(text)
    if seconds is not None:
        try:
            return timedelta(seconds=seconds)
        except OverflowError:
            pass
    raise InvalidInput(
        f"{what}, must be a ISO8601 duration: {text[:60]!r} is none; a number with a unit, as "
        "10s, 2500ms, 1h 30m or PT10S"
    )


def _seconds(text: str) -> float | None:
    iso = _ISO.fullmatch(text.upper())
    if iso is not None and any(iso.groups()):
        parts = zip(iso.groups(), _ISO_SECONDS, strict=True)
        return sum(_number(text) * unit for text, unit in parts if text)
    position, total = 0, 0.0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None or part[2] not in _SECONDS:
            return None
        total += _number(part[1]) * _SECONDS[part[2]]
        position = part.end()
    return total if text else None


def _number(text: str) -> float:
    return float(text.replace(",", "."))
