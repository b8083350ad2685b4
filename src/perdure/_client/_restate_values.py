"""What a Restate server keeps, as perdure shows it: values, failures, times; and texts in SQL."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from perdure.errors import PerdureError, StoreCorrupt, TerminalError
from perdure.serde import UNTYPED, decode_failure, serde_for

# Any, in this module: values are of any type.

_CBOR: Final = b"\xd9\xd9\xf7"
"""The tag of CBOR that describes itself: what perdure's handlers keep that JSON can not hold."""

_REJECTION: Final = b"\0"
"""Begins a failure that perdure's handlers have resolved a promise with, for it has a class."""

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


def completion_of(payload: bytes) -> tuple[Any, TerminalError | None]:
    """A value as JSON has it, or the failure in its place."""
    if payload.startswith(_REJECTION):
        try:
            return None, decode_failure(payload.removeprefix(_REJECTION))
        except StoreCorrupt:
            pass  # somebody else's bytes
    return plain_of(payload), None


def kept_of(value: Any, place: str) -> bytes:
    """*value* as handlers keep it: JSON where that is exact, else CBOR that describes itself.

    Raises:
      InvalidInput: It can not be encoded.
    """
    serde = serde_for(UNTYPED)
    exact = serde.encode(value, place)
    with contextlib.suppress(PerdureError):  # of keys that are no text there is no JSON
        text = serde.to_json(value, place)
        if serde.encode(msgspec.json.decode(text), place) == exact:
            return text
    return _CBOR + exact


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
