"""Reading the text of a history: whatever is wrong with it is told with its place and a remedy."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET

from perdure._core._entries import FIRST_COMMAND, Entry, Kind, new_entry
from perdure._history._format import (
    FLAGS,
    FORMAT,
    KINDS,
    VERSION,
    Head,
    WrittenEntry,
    WrittenHistory,
    WrittenInvocation,
)
from perdure._history._recorded import RecordedInvocation
from perdure._ids import parse_id
from perdure._runtime._layout import waiter
from perdure.errors import InvalidInput

T = TypeVar("T")

_ANEW: Final = "restore the file, or export it anew"
_UPGRADE: Final = "it was written by a newer perdure: upgrade, or export it anew"
_U32: Final = 1 << 32
_U64: Final = 1 << 64


def decode(content: bytes, place: str) -> tuple[list[RecordedInvocation], dict[str, str]]:
    """The invocations and the source lines in *content*; *place* names it in errors.

    Raises:
      InvalidInput: It is no history, or is damaged.
    """
    head = _decode(content, Head, place, "is it the file that `perdure export` wrote?")
    if head.format != FORMAT:
        raise InvalidInput(
            f"{place}: its format is {head.format!r:.60}, and not {FORMAT!r}: "
            "is it the file that `perdure export` wrote?"
        )
    if head.version != VERSION:
        remedy = _UPGRADE if head.version > VERSION else _ANEW
        raise InvalidInput(
            f"{place}: its version is {head.version}; this release reads version {VERSION}: "
            f"{remedy}"
        )
    written = _decode(content, WrittenHistory, place)
    return [
        _invocation(raw, f"{place}: invocations[{number}]")
        for number, raw in enumerate(written.invocations)
    ], written.sources


def _decode(content: Any, kind: type[T], place: str, remedy: str = _ANEW) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{place}: {error}: {remedy}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = re.search(r"byte (\d+)", str(error))
        if found is not None:
            line = bytes(content)[: int(found[1])].count(b"\n") + 1
            place = f"{place}, line {line}"
        raise InvalidInput(f"{place}: {error}: {remedy}") from error


def _invocation(raw: msgspec.Raw, place: str) -> RecordedInvocation:
    written = _decode(raw, WrittenInvocation, place)
    origin = b""
    try:
        parse_id(written.id)
        if written.restarted_from is not UNSET:
            origin = waiter(parse_id(written.restarted_from.id), written.restarted_from.entries)
    except (InvalidInput, OverflowError) as error:
        raise InvalidInput(f"{place}: {error}: {_ANEW}") from error
    journal = _Journal(f"{place} ({written.id}).journal")
    return RecordedInvocation(
        id=written.id,
        service=written.service,
        handler=written.handler,
        key=written.key,
        version=written.version,
        status=written.status,
        argument=written.argument,
        headers=written.headers,
        idempotency_key=written.idempotency_key,
        origin=origin,
        journal=[journal.activation(number, raw) for number, raw in enumerate(written.journal)],
        sites=journal.sites,
    )


class _Journal:
    """Reads a journal, and numbers its call sites."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.sites: list[str] = []
        self._numbers: dict[str, int] = {}
        self._decode = msgspec.json.Decoder(list[WrittenEntry]).decode

    def activation(self, number: int, raw: msgspec.Raw) -> list[Entry]:
        place = f"{self._place}[{number}]"
        try:
            written = self._decode(raw)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{place}: {error}: {_ANEW}") from error
        entries = [self._entry(each, place) for each in written]
        if not entries:
            raise InvalidInput(f"{place}: an activation has at least one entry: {_ANEW}")
        # A notification, and what the handler did about it; the first is the start.
        for position, entry in enumerate(entries):
            is_notification = entry.kind < FIRST_COMMAND
            is_start = entry.kind == Kind.START
            if is_notification is not (position == 0) or is_start is not (number == position == 0):
                raise InvalidInput(
                    f"{place}: a {written[position].kind!r} can not be entry {position} of "
                    f"activation {number}: {_ANEW}"
                )
        return entries

    def _entry(self, written: WrittenEntry, place: str) -> Entry:
        kind = KINDS.get(written.kind)
        if kind is None:
            raise InvalidInput(
                f"{place}: there is no kind of entry {written.kind!r:.60} in this release: "
                f"{_UPGRADE}"
            )
        flags = 0
        for flag in written.flags:
            if flag not in FLAGS:
                raise InvalidInput(
                    f"{place}: there is no flag {flag!r:.60} in this release: {_UPGRADE}"
                )
            flags |= FLAGS[flag]
        if not (0 <= written.ref < _U32 and 0 <= written.time_ms < _U64):
            raise InvalidInput(f"{place}: ref or time_ms is out of its range: {_ANEW}")
        site = self._site(written.site) if written.site else 0
        return new_entry(
            (kind, written.ref, written.name, written.payload, written.time_ms, site, flags)
        )

    def _site(self, text: str) -> int:
        number = self._numbers.get(text)
        if number is None:
            self.sites.append(text)
            number = self._numbers[text] = len(self.sites)
        return number
