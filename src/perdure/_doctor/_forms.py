"""The form of each row by itself: what perdure never writes is damage, whatever its checksum."""

from __future__ import annotations

import re
from collections.abc import Callable

from perdure._doctor._rows import id_of, split_text
from perdure._doctor._sayings import check_payload, require_end
from perdure._runtime._layout import (
    ID_BYTES,
    Backoff,
    Expiry,
    Goes,
    Output,
    Record,
    TimerKey,
    split_group,
    target_digest,
    unpack_entry,
    unpack_group,
    unpack_promise,
    unpack_waiter,
)
from perdure._runtime._setbacks import RESUMED
from perdure._store import MAGIC, Db, MetaKey

_ARRIVAL_BYTES = 8
_SITE = re.compile(r".*:(\d+|None) in .*", re.DOTALL)
_META: dict[bytes, Callable[[bytes], bool]] = {
    MetaKey.MAGIC: lambda value: value == MAGIC,
    MetaKey.SCHEMA: lambda value: len(value) == 4,
    MetaKey.DURABILITY: lambda value: re.fullmatch(rb"fsync|os .+", value) is not None,
    MetaKey.FILE_SIZE: lambda value: len(value) == 8,
    MetaKey.OPENINGS: lambda value: len(value) == 4,
}


def check_form(db: Db, key: bytes, value: bytes) -> None:
    """Raise an error, of any class, if the row is none that perdure writes."""
    _FORMS[db](key, value)


def _require(is_so: bool, what: str) -> None:
    if not is_so:
        raise ValueError(what)


def _meta(key: bytes, value: bytes) -> None:
    _require(key in _META and _META[key](value), "it says nothing that an engine would")


def _site(key: bytes, value: bytes) -> None:
    _require(len(key) == 4 and _SITE.fullmatch(value.decode()) is not None, "it is no call site")


def _record(key: bytes, value: bytes) -> None:
    _require(len(key) == ID_BYTES, "its key is no id")
    record = Record.unpack(value, key)
    require_end(value)
    if record.argument is not None:
        check_payload(record.argument, failed=False)


def _journal(key: bytes, _: bytes) -> None:
    unpack_waiter(key)  # its entries are looked at with the invocation


def _output(key: bytes, value: bytes) -> None:
    _require(len(key) == ID_BYTES, "its key is no id")
    output = Output.unpack(value, key)
    check_payload(output.payload, output.failed)


def _ready(key: bytes, value: bytes) -> None:
    _require(len(key) == ID_BYTES and value in (b"", RESUMED), "its value has no meaning")


def _pending(key: bytes, value: bytes) -> None:
    _require(len(key) == ID_BYTES + _ARRIVAL_BYTES, "its key is no id and arrival")
    unpack_entry(value)


def _timer(key: bytes, value: bytes) -> None:
    timer = TimerKey.unpack(key)
    if value:
        due_ms = Backoff.unpack(value, key=key).due_ms
        require_end(value)
        _require(due_ms == timer.due_ms, "its key has another time than its value")


def _paused(key: bytes, value: bytes) -> None:
    _require(len(key) == ID_BYTES, "its key is no id")
    Backoff.unpack(value, "paused", key)
    require_end(value)


def _inbox(key: bytes, value: bytes) -> None:
    group, arrival = split_group(key)
    unpack_group(group)
    _require(len(arrival) == _ARRIVAL_BYTES, "its key has no arrival")
    _require(len(value) == ID_BYTES, "its value is no id")


def _state(key: bytes, value: bytes) -> None:
    group, name = split_group(key)
    unpack_group(group)
    name.decode()
    check_payload(value, failed=False)


def _promise(key: bytes, value: bytes) -> None:
    group, name = split_group(key)
    unpack_group(group)
    name.decode()
    check_payload(*unpack_promise(value))


def _waiter(key: bytes, value: bytes) -> None:
    what, rest = key[:1], key[1:]
    if what == b"p":
        group, rest = split_group(rest)
        unpack_group(group)
        unpack_waiter(split_text(rest)[1])
    elif what == b"o":
        unpack_waiter(rest[ID_BYTES:])
    elif what == b"s":
        _require(len(split_text(rest[ID_BYTES:])[1]) == 4, "its key has no index")
    elif what == b"b":
        unpack_waiter(rest)
    elif what == b"e":
        unpack_group(rest)
    else:
        raise ValueError(f"a waiter of the unknown kind {what!r}")
    _require(len(value) == (8 if what in b"be" else 0), "its value has no meaning")


def _target(key: bytes, value: bytes) -> None:
    _require(key == target_digest(value[:-ID_BYTES]), "its key is that of another target")
    group, _ = split_group(value[:-ID_BYTES])
    unpack_group(group)


def _awakeable(key: bytes, value: bytes) -> None:
    unpack_waiter(key)
    _require(value in (b"", b"\x01"), "its value has no meaning")


def _signal(key: bytes, value: bytes) -> None:
    _, arrival = split_text(key[len(id_of(key)) :])
    _require(len(arrival) == _ARRIVAL_BYTES, "its key has no arrival")
    check_payload(value, failed=False)


def _expiry(key: bytes, value: bytes) -> None:
    expiry = Expiry.unpack(key)
    if expiry.what == Goes.PROMISES:
        unpack_group(value)
        _require(Expiry.of_promises(expiry.due_ms, value) == expiry, "its key is of another key")
    else:
        _require(value == b"", "its value has no meaning")


_FORMS: dict[Db, Callable[[bytes, bytes], None]] = {
    Db.META: _meta,
    Db.SITES: _site,
    Db.INVOCATIONS: _record,
    Db.JOURNAL: _journal,
    Db.OUTPUTS: _output,
    Db.READY: _ready,
    Db.PENDING: _pending,
    Db.TIMERS: _timer,
    Db.PAUSED: _paused,
    Db.INBOX: _inbox,
    Db.STATE: _state,
    Db.PROMISES: _promise,
    Db.WAITERS: _waiter,
    Db.TARGETS: _target,
    Db.AWAKEABLES: _awakeable,
    Db.SIGNALS: _signal,
    Db.EXPIRY: _expiry,
}
