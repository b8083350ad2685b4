"""What a Restate server keeps, as perdure shows it: values, failures, times; and texts in SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from perdure.errors import PerdureError, TerminalError
from perdure.serde import UNTYPED, serde_for

# Any, in this module: values are of any type.

_CBOR: Final = b"\xd9\xd9\xf7"
"""The tag of CBOR that describes itself: what perdure's handlers keep that JSON can not hold."""

_FAILURE: Final = re.compile(r"\[(\d{1,9})[^\]]*\] (.*)", re.DOTALL)


def plain_of(payload: bytes) -> Any:
    """A value as JSON has it; what is neither JSON nor CBOR, as text, or in base64."""
    serde = serde_for(UNTYPED)
    try:
        if payload.startswith(_CBOR):
            value = serde.decode(payload.removeprefix(_CBOR), "a value")
            return msgspec.json.decode(serde.to_json(value, "a value"))
        return msgspec.json.decode(payload or b"null")
    except (ValueError, PerdureError):
        pass
    try:
        return payload.decode()
    except ValueError:
        return msgspec.to_builtins(payload)


def failure_of_text(text: str) -> TerminalError:
    """A failure as the tables have it: ``[499] no way``."""
    match = _FAILURE.fullmatch(text)
    return TerminalError(text) if match is None else TerminalError(match[2], int(match[1]))


def time_of(text: str) -> datetime:
    """A time as the tables have it."""
    return datetime.fromisoformat(text).astimezone(UTC)


def literal(text: str) -> str:
    """*text* as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def among(texts: Iterable[str]) -> str:
    """A list of *texts* as SQL has it."""
    return f"({', '.join(literal(each) for each in texts)})"
