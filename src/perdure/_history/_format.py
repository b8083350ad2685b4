"""The form of a history's text: names of kinds and flags, and what its objects have.

What is there for people alone (decoded values, dates, indexes) is written and never read.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from perdure._core._entries import Flag, Kind
from perdure._runtime._status import Status

FORMAT: Final = "perdure-history"
VERSION: Final = 1
"""Raised when a release writes what those before it would read wrongly."""

KINDS: Final = {name.lower(): number for name, number in vars(Kind).items() if name.isupper()}
KIND_NAMES: Final = {number: name for name, number in KINDS.items()}
FLAGS: Final = {name.lower(): bit for name, bit in vars(Flag).items() if name.isupper()}


class WrittenEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One journal entry; ``index``, ``value`` and ``time`` are for people."""

    index: int
    kind: str
    ref: int = 0
    name: str = ""
    value: Any = UNSET  # Any: what handlers and steps return
    payload: bytes | None = None
    time: str = ""
    time_ms: int = 0
    flags: list[str] = []
    site: str = ""


class Origin(msgspec.Struct, forbid_unknown_fields=True):
    """Whose journal one that was restarted has taken over, and how many entries of it."""

    id: str
    entries: int


class WrittenInvocation(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One invocation; ``created_at`` and ``argument_value`` are for people."""

    id: str
    service: str
    handler: str
    status: Status
    journal: list[msgspec.Raw]
    key: str = ""
    version: int = 1
    created_at: str = ""
    argument: bytes | None = None
    argument_value: Any = UNSET  # Any: as of an entry
    headers: dict[str, str] = {}
    idempotency_key: str | None = None
    restarted_from: Origin | UnsetType = UNSET


class Head(msgspec.Struct):
    """What tells whether the rest can be read."""

    format: str
    version: int


class WrittenHistory(msgspec.Struct, forbid_unknown_fields=True):
    """The whole text."""

    format: str
    version: int
    invocations: list[msgspec.Raw]
    sources: dict[str, str] = {}
