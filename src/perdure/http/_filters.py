"""The filter of a listing in a query string."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from starlette.datastructures import QueryParams

from perdure._runtime._filter import InvocationFilter
from perdure.errors import InvalidInput
from perdure.http._durations import parse_duration

NAMES = ("service", "handler", "key", "status", "older_than", "created_before", "created_after")
"""Parameters of a filter; ``status`` may come several times, or with commas."""


def filter_of(query: QueryParams) -> InvocationFilter | None:
    """The filter that a query string has; None: it has none.

    Raises:
      InvalidInput: A part of it makes no sense.
    """
    given = {name: query[name] for name in NAMES if name in query}
    if not given:
        return None
    statuses = [each for value in query.getlist("status") for each in value.split(",")]
    return InvocationFilter(
        service=given.get("service"),
        handler=given.get("handler"),
        key=given.get("key"),
        status=statuses or None,
        older_than=parse_duration(given["older_than"], "older_than")
        if "older_than" in given
        else None,
        created_before=_time(given, "created_before"),
        created_after=_time(given, "created_after"),
    )


def check_names(query: QueryParams, *others: str) -> None:
    """Refuse parameters that there are not: mistyped, they would let through what they were to
    keep out.
    """
    for name in query:
        if name not in NAMES and name not in others:
            known = ", ".join((*NAMES, *others))
            raise InvalidInput(f"there is no parameter {name[:60]!r}; there are {known}")


def number_of(query: QueryParams, name: str, default: int) -> int:
    """A whole number in a query string."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidInput(f"{name}: expected a whole number, got {text[:60]!r}")
    return int(text)


def _time(given: Mapping[str, str], name: str) -> datetime | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{name}: expected a time as 2026-01-31T12:00:00Z, got {text[:60]!r}"
        ) from error
