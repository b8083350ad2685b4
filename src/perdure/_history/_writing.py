"""A history as text: JSON, laid out for people and for ``git diff``, an entry a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from perdure._core._entries import Entry, Flag, Kind, decode_names
from perdure._history._format import FLAGS, FORMAT, KIND_NAMES, VERSION, Origin, WrittenEntry
from perdure._ids import created_at_ms, format_id, parse_id
from perdure._runtime._handlers import show_payload
from perdure._runtime._layout import unpack_waiter
from perdure._runtime._shown import plain_value
from perdure._runtime._times import LAST_MS, utc
from perdure.serde import decode_failure

if TYPE_CHECKING:
    from perdure._history._recorded import History, RecordedInvocation

# Any, in this module: what handlers and steps return.

_VALUE_BYTES_MAX: Final = 4096
"""Of a payload, encoded, that is also shown decoded."""

_REJECTIONS: Final = frozenset({Kind.PROMISE_REJECT, Kind.AWAKEABLE_REJECT})
_encode: Final = msgspec.json.Encoder().encode


def lines_of(history: History) -> Iterator[str]:
    """The text of a history, in parts."""
    yield f'{{\n"format": {_json(FORMAT)},\n"version": {VERSION},\n"sources": {{'
    separator = "\n"
    for site, line in sorted(history.sources.items()):
        yield f"{separator}  {_json(site)}: {_json(line)}"
        separator = ",\n"
    yield '\n},\n"invocations": ['
    separator = "\n"
    for invocation in history.invocations:
        yield separator
        yield from _invocation(invocation)
        separator = ",\n"
    yield "\n]\n}\n"


def _invocation(invocation: RecordedInvocation) -> Iterator[str]:
    fields: dict[str, Any] = {
        "id": invocation.id,
        "service": invocation.service,
        "handler": invocation.handler,
        "key": invocation.key,
        "version": invocation.version,
        "status": invocation.status,
        "created_at": _date(created_at_ms(parse_id(invocation.id))),
    }
    if invocation.argument is not None:
        fields["argument_value"] = _plain(invocation.argument)
        fields["argument"] = invocation.argument
    if invocation.headers:
        fields["headers"] = invocation.headers
    if invocation.idempotency_key is not None:
        fields["idempotency_key"] = invocation.idempotency_key
    if invocation.origin:
        origin, entries = unpack_waiter(invocation.origin)
        fields["restarted_from"] = Origin(format_id(origin), entries)
    yield " {"
    for name, value in fields.items():
        yield f"{_json(name)}: {_text(value)},\n  "
    yield '"journal": ['
    index, before_activation = 0, "\n"
    for activation in invocation.journal:
        separator = f"{before_activation}   ["
        for entry in activation:
            yield f"{separator}{_entry(invocation, index, entry)}"
            separator = ",\n    "
            index += 1
        yield "]"
        before_activation = ",\n"
    yield "\n  ]}"


def _entry(invocation: RecordedInvocation, index: int, entry: Entry) -> str:
    kind, ref, name, payload, time_ms, site, flags = entry
    written = WrittenEntry(
        index,
        KIND_NAMES[kind],
        ref,
        name,
        UNSET if payload is None else _value(entry, payload),
        payload,
        _date(time_ms) if time_ms else "",
        time_ms,
        [each for each, bit in FLAGS.items() if flags & bit] if flags else [],
        invocation.text(site),
    )
    try:
        return _encode(written).decode()
    except (TypeError, ValueError, RecursionError):  # a value that JSON does not know
        written.value = UNSET if payload is None else show_payload(payload)
        return _encode(written).decode()


def _value(entry: Entry, payload: bytes) -> Any:
    """The payload of an entry, for people."""
    if entry.flags & Flag.DIGEST or len(payload) > _VALUE_BYTES_MAX:
        return UNSET
    if entry.kind == Kind.STATE_KEYS:
        return decode_names(payload)
    if entry.kind == Kind.LOOK_UP:
        return format_id(payload)
    if entry.flags & Flag.FAILED or entry.kind in _REJECTIONS:
        failure = decode_failure(payload)
        return {"failed": failure.message, "code": failure.code}
    return _plain(payload)


def _plain(payload: bytes) -> Any:
    if len(payload) > _VALUE_BYTES_MAX:
        return f"{len(payload):,} bytes"
    try:
        return plain_value(payload, "value")
    except Exception:  # whatever it is: the bytes themselves are there too
        return show_payload(payload)


def _date(time_ms: int) -> str:
    if time_ms > LAST_MS:
        return f"{time_ms} ms after 1970"
    return f"{utc(time_ms):%Y-%m-%d %H:%M:%S}.{time_ms % 1000:03}"


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text(value: Any) -> str:
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return _json(repr(value))
