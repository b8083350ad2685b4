"""Entries of a journal and values of the store, for people and their programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from perdure._core._entries import (
    FIRST_COMMAND,
    Entry,
    Flag,
    Kind,
    decode_names,
    describe,
    word,
)
from perdure._ids import format_id
from perdure._runtime._handlers import show_payload
from perdure._runtime._times import utc
from perdure.errors import TerminalError
from perdure.serde import UNTYPED, decode_failure, serde_for

VALUE_SHOWN_BYTES_MAX = 65_536
"""Of a value in a journal, encoded; a longer one is told by its size: decoding it takes long."""

_TEXT_SHOWN_MAX = 200
_REJECTIONS = frozenset({Kind.PROMISE_REJECT, Kind.AWAKEABLE_REJECT})


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of a journal, for people.

    Attributes:
      index: Position, from 0.
      time: When its activation was delivered.
      kind: A term such as ``step`` or ``timer fired``.
      name: Of the step, promise or state; may be empty.
      text: Kind, name and value in one line.
      site: ``file:line in function`` of the command, or empty.
      is_command: The handler asked for it; else the world answered.
      answers: Index of the command that a notification answers or a cancel ends, else None.
      has_value: Whether ``value`` is one: None may be a value. False where there is none, and
        where the journal keeps its digest, or it has more than 65,536 bytes.
      value: Decoded without its type: records are dicts.
      failure: What the step, the promise or the handler failed with, else None.
    """

    index: int
    time: datetime
    kind: str
    name: str
    text: str
    site: str
    is_command: bool
    answers: int | None
    has_value: bool
    value: Any
    failure: TerminalError | None


class SiteTexts(Protocol):
    """Where call sites have their texts."""

    def text(self, site: int) -> str:
        """``file:line in function``, or empty."""
        ...


def shown_entry(sites: SiteTexts, index: int, time_ms: int, entry: Entry) -> JournalEntry:
    """*entry* as it is shown; *time_ms*: of its activation."""
    kind = entry.kind
    has_value, failure, text = False, None, ""
    value: Any = None
    payload = entry.payload
    if kind == Kind.TIMER:
        text = f" due {utc(entry.time_ms):%Y-%m-%d %H:%M:%S}"
    elif payload is None:
        pass
    elif entry.flags & Flag.DIGEST:
        text = f": {int.from_bytes(payload[16:], 'big')} bytes"
    elif kind == Kind.STATE_KEYS:
        has_value, value = True, decode_names(payload)
    elif kind == Kind.LOOK_UP:
        has_value, value = True, format_id(payload)
        text = f": {value}"
    elif entry.flags & Flag.FAILED or kind in _REJECTIONS:
        failure = decode_failure(payload)
        text = f" failed: {failure} (code {failure.code})"
    elif len(payload) > VALUE_SHOWN_BYTES_MAX:
        text = f": {len(payload)} bytes"
    else:
        has_value, value = True, plain_value(payload, "value of an entry")
        shown = show_payload(payload)
        text = f": {shown if len(shown) <= _TEXT_SHOWN_MAX else shown[:_TEXT_SHOWN_MAX] + ' …'}"
    is_command = kind >= FIRST_COMMAND
    return JournalEntry(
        index=index,
        time=utc(time_ms),
        kind=word(kind),
        name="" if kind == Kind.START else entry.name,
        text=describe(entry) + text,
        site=sites.text(entry.site),
        is_command=is_command,
        answers=None if kind == Kind.START else entry.ref or None,
        has_value=has_value,
        value=value,
        failure=failure,
    )


def plain_value(payload: bytes, place: object) -> Any:
    """A stored value, decoded without its type: builtins, times, UUID and Decimal."""
    return serde_for(UNTYPED).decode(payload, place)
