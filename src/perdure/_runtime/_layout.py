"""Keys and values of the store's rows, apart from the journal.

All integers are big-endian, so keys sort by them. Texts inside keys are length-prefixed (2 bytes):
no key of one service, key or name is a prefix of another's.

| database    | key                                     | value                               |
|-------------|-----------------------------------------|-------------------------------------|
| invocations | id                                      | record: what was asked, immutable   |
| outputs     | id                                      | flags u8, completed_ms u64, payload |
| ready       | id                                      | empty                               |
| pending     | id, arrival u64                         | one encoded entry                   |
| timers      | due_ms u64, id, index u32               | empty, or a back-off                |
| paused      | id                                      | a back-off                          |
| state       | service, key, name                      | payload                             |
| promises    | service, key, name                      | flags u8, payload                   |
| waiters     | 'p', service, key, promise name, id, index u32 | empty                        |
| waiters     | 'o', id awaited, id, index u32          | empty                               |
| waiters     | 's', id, signal name, index u32         | empty                               |
| waiters     | 'b', id, index u32                      | due_ms u64 of the back-off's timer  |
| waiters     | 'e', service, key                       | due_ms u64 of what removes promises |
| inbox       | service, key, arrival u64               | id; the first has the key           |
| awakeables  | id, index u32                           | empty: it waits; 1: completed       |
| signals     | id, name, arrival u64                   | payload                             |
| targets     | BLAKE2b-256 of the target               | target, id                          |
| sites       | id u32                                  | text                                |
| expiry      | due_ms u64, id, 0                       | empty: the journal goes             |
| expiry      | due_ms u64, id, 1                       | empty: all of the invocation goes   |
| expiry      | due_ms u64, BLAKE2b-128 of the value, 2 | service, key: the promises go       |

A timer row with a value is a back-off: of the whole attempt at index 0, else of the step at that
index. One without a value is the delayed start at index 0, else the durable timer at that index. A
target is (service, key) for a workflow's ``run``, (service, key, handler, idempotency key) else.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import cbor2

from perdure._core._entries import FIRST_COMMAND, Entry
from perdure._journal import decode_entries, encode_entries
from perdure.errors import StoreCorrupt

ID_BYTES = 16

CANCELLED_FIRST = 0
"""Arrival of a cancel in ``pending``: before all else, which may be what fails."""


def stranger(db: str, key: bytes, why: object) -> StoreCorrupt:
    """The error of a row whose checksum is right, and which perdure never writes."""
    return StoreCorrupt(f"database {db}, key {key.hex()}: the row is none of perdure's: {why}")


def pack(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def key_group(service: str, key: str) -> bytes:
    """The group of all rows of one key of a service."""
    return pack(service) + pack(key)


def unpack_group(group: bytes) -> tuple[str, str]:
    """The service and the key that :func:`key_group` was given."""
    end = 2 + int.from_bytes(group[:2], "big")
    if end + 2 + int.from_bytes(group[end : end + 2], "big") != len(group):
        raise StoreCorrupt(f"{group.hex()} is no service and key")
    return _text(group[2:end]), _text(group[end + 2 :])


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise StoreCorrupt(f"{raw.hex()} is no text: {error}") from error


def split_group(key: bytes) -> tuple[bytes, bytes]:
    """The group at the beginning of a row's *key*, and what comes after it."""
    end = 2 + int.from_bytes(key[:2], "big")
    end += 2 + int.from_bytes(key[end : end + 2], "big")
    return key[:end], key[end:]


def promise_waiters(group: bytes, name: str) -> bytes:
    return b"p" + group + pack(name)


def early_promises(group: bytes) -> bytes:
    return b"e" + group


def backoff_group(invocation_id: bytes) -> bytes:
    return b"b" + invocation_id


def output_waiters(invocation_id: bytes) -> bytes:
    return b"o" + invocation_id


def signal_waiters(invocation_id: bytes, name: str) -> bytes:
    return b"s" + invocation_id + pack(name)


def waiter(invocation_id: bytes, index: int) -> bytes:
    return invocation_id + index.to_bytes(4, "big")


def unpack_waiter(suffix: bytes) -> tuple[bytes, int]:
    if len(suffix) != ID_BYTES + 4:
        raise StoreCorrupt(f"{suffix.hex()} is no id and index")
    return suffix[:ID_BYTES], int.from_bytes(suffix[ID_BYTES:], "big")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def number_of(raw: bytes, size: int, db: str, key: bytes) -> int:
    """The number in a part of the row *key* that is to have *size* bytes."""
    if len(raw) != size:
        raise stranger(db, key, f"{raw.hex()} is no number of {size} bytes")
    return int.from_bytes(raw, "big")


def unpack_due(value: bytes, key: bytes) -> int:
    """The time in a row of ``waiters``."""
    return number_of(value, 8, "waiters", key)


class TimerKey(NamedTuple):
    """A row of ``timers``; tuples sort as the rows do."""

    due_ms: int
    invocation_id: bytes
    operation: int  # its journal index; 0: the attempt itself

    def pack(self) -> bytes:
        return u64(self.due_ms) + self.invocation_id + u32(self.operation)

    @classmethod
    def unpack(cls, suffix: bytes) -> TimerKey:
        if len(suffix) != 8 + ID_BYTES + 4:
            raise stranger("timers", suffix, f"its key has {len(suffix)} bytes")
        return cls(
            int.from_bytes(suffix[:8], "big"), suffix[8:24], int.from_bytes(suffix[24:], "big")
        )


class Goes(enum.IntEnum):
    """What a row of ``expiry`` removes."""

    JOURNAL = 0
    ALL = 1
    PROMISES = 2


_GOES = frozenset(map(int, Goes))


class Expiry(NamedTuple):
    """A row of ``expiry``; tuples sort as the rows do.

    Attributes:
      subject: The invocation, or the digest of the key whose promises go.
      what: A :class:`Goes`.
    """

    due_ms: int
    subject: bytes
    what: int

    @classmethod
    def of_promises(cls, due_ms: int, group: bytes) -> Expiry:
        return cls(due_ms, hashlib.blake2b(group, digest_size=ID_BYTES).digest(), Goes.PROMISES)

    def pack(self) -> bytes:
        return u64(self.due_ms) + self.subject + bytes([self.what])

    @classmethod
    def unpack(cls, key: bytes) -> Expiry:
        if len(key) != 8 + ID_BYTES + 1 or key[-1] not in _GOES:
            raise stranger("expiry", key, "it does not say what goes")
        return cls(int.from_bytes(key[:8], "big"), key[8:24], key[24])


class Record(NamedTuple):
    """What was asked: written once when an invocation is accepted.

    Attributes:
      output_ms, journal_ms: How long its output and its journal stay after it has completed.
      caller: Id and journal index (u32) of the call or send that began it; empty: from outside.
      origin: Of one that was restarted from a part of another's journal: the id of that, and how
        many entries (u32) it has taken over; else empty.
      due_ms: When it was to begin, where it was sent with a delay; else 0.
    """

    service: str
    key: str
    handler: str
    version: int
    created_ms: int
    argument: bytes | None
    headers: dict[str, str]
    output_ms: int
    journal_ms: int
    caller: bytes = b""
    idempotency_key: str | None = None
    due_ms: int = 0
    origin: bytes = b""

    def pack(self) -> bytes:
        return cbor2.dumps(list(self))

    @classmethod
    def unpack(cls, value: bytes, key: bytes = b"") -> Record:
        """The record of the row *key*; raises :class:`StoreCorrupt` if it is none."""
        fields = _loaded("invocations", key, value)
        if tuple(map(type, fields)) not in _RECORDS:
            raise stranger("invocations", key, "it is no record")
        record = cls(*fields)
        headers = record.headers
        numbers = record.version, record.created_ms, record.output_ms, record.journal_ms
        if (
            min(*numbers, record.due_ms) < 0
            or not {len(record.caller), len(record.origin)} <= _WAITER_LENGTHS
            or any(type(each) is not str for each in itertools.chain(headers, headers.values()))
        ):
            raise stranger("invocations", key, "it is no record")
        return record


_FIELDS: tuple[tuple[type, ...], ...] = (
    *((str,), (str,), (str,), (int,), (int,), (bytes, type(None)), (dict,), (int,), (int,)),
    *((bytes,), (str, type(None)), (int,), (bytes,)),
)
# The last four have come one after the other.
_RECORDS = frozenset(
    types for length in range(9, 14) for types in itertools.product(*_FIELDS[:length])
)
_WAITER_LENGTHS = frozenset({0, ID_BYTES + 4})


def _loaded(db: str, key: bytes, value: bytes) -> list[Any]:  # Any: what CBOR can hold
    try:
        fields = cbor2.loads(value)
    except Exception as error:  # cbor2 raises what a tag's own decoder raised
        raise stranger(db, key, error) from error
    if type(fields) is not list:
        raise stranger(db, key, "it is no array")
    return fields


class Output(NamedTuple):
    """How an invocation ended."""

    payload: bytes
    failed: bool
    completed_ms: int

    def pack(self) -> bytes:
        return bytes([self.failed]) + u64(self.completed_ms) + self.payload

    @classmethod
    def unpack(cls, value: bytes, key: bytes = b"") -> Output:
        if len(value) < 9 or value[0] > 1:
            raise stranger("outputs", key, "it is no outcome")
        return cls(value[9:], bool(value[0]), int.from_bytes(value[1:9], "big"))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failed attempts of an invocation or of a step, and when the next begins.

    Attributes:
      attempts: Failed so far.
      since_ms: Time of the first failure.
      due_ms: Time of the next attempt.
      failure: The last one, for people.
    """

    attempts: int
    since_ms: int
    due_ms: int
    failure: str

    def pack(self) -> bytes:
        return cbor2.dumps([self.attempts, self.since_ms, self.due_ms, self.failure])

    @classmethod
    def unpack(cls, value: bytes, db: str = "timers", key: bytes = b"") -> Backoff:
        fields = _loaded(db, key, value)
        if tuple(map(type, fields)) != (int, int, int, str) or min(fields[:3]) < 0:
            raise stranger(db, key, "it is no back-off")
        return cls(*fields)


def pack_promise(payload: bytes, failed: bool) -> bytes:
    return bytes([failed]) + payload


def unpack_promise(value: bytes) -> tuple[bytes, bool]:
    if not value or value[0] > 1:
        raise StoreCorrupt("a promise's row is none of perdure's: it has no flag")
    return value[1:], bool(value[0])


def pack_entry(entry: Entry) -> bytes:
    return encode_entries([entry])


def unpack_entry(value: bytes) -> Entry:
    entries: list[Entry] = decode_entries(value, Entry)
    if len(entries) != 1 or entries[0].kind >= FIRST_COMMAND:
        raise StoreCorrupt("a row of pending is none of perdure's: it is no notification")
    return entries[0]


def run_target(service: str, key: str) -> bytes:
    """What stands for the one ``run`` of a workflow's key."""
    return key_group(service, key)


def idempotency_target(service: str, key: str, handler: str, idempotency_key: str) -> bytes:
    """What stands for the one invocation with an idempotency key."""
    return key_group(service, key) + pack(handler) + pack(idempotency_key)


def target_digest(target: bytes) -> bytes:
    return hashlib.blake2b(target, digest_size=32).digest()


def unpack_target(value: bytes, target: bytes) -> bytes:
    if value[:-ID_BYTES] != target:
        raise StoreCorrupt(f"the target row of {target!r} names another target")
    return value[-ID_BYTES:]
