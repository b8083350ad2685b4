"""What one journal says of other databases: each entry that has left a row there is compared.

A row that may have changed since, or may have gone, proves nothing; where that is so is said at
each rule. Each broken rule is a phrase that has the invocation as its subject.
"""

from __future__ import annotations

from collections.abc import Set

import cbor2

from perdure._core._entries import FIRST_COMMAND, Entry, Flag, Kind, digest
from perdure._core._outgoing import child_id
from perdure._ids import parse_id
from perdure._runtime._layout import (
    Output,
    Record,
    key_group,
    unpack_promise,
    waiter,
)
from perdure._runtime._shown import plain_value
from perdure._store import Db, Store
from perdure.serde import decode_failure

_TELLS_OF_PROMISE = frozenset(
    {Kind.PROMISE_DONE, Kind.PROMISE_PEEK, Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT}
)
_PROMISES = _TELLS_OF_PROMISE | {Kind.PROMISE_AWAIT}
_STATE = frozenset({Kind.STATE_SET, Kind.STATE_CLEAR, Kind.STATE_CLEAR_ALL})
_NO_VALUE = frozenset({Kind.STATE_KEYS, Kind.LOOK_UP})  # their payloads have a form of their own
_REJECTS = frozenset({Kind.PROMISE_REJECT, Kind.AWAKEABLE_REJECT})


class Sayings:
    """Hears the entries of one journal, from its first to its last.

    Attributes:
      broken: What is wrong so far.
      missing_sites: Numbers of call sites that the store does not have.
      writes_state: It has changed the state of its key.
      uses_promises: It has to do with a promise, as only a workflow can.
      ended: How it ended, as its last entry says.
    """

    def __init__(
        self, store: Store, sites: Set[int], invocation_id: bytes, record: Record, *, is_run: bool
    ) -> None:
        self._store = store
        self._sites = sites
        self._id = invocation_id
        self._group = key_group(record.service, record.key)
        # What it has taken over from another's journal has left its rows with that one.
        self._is_run = is_run and not record.origin
        self._calls: dict[int, bytes] = {}
        self._time_ms = 0
        self._state: dict[str, Entry | None] = {}
        self._knows_all_state = False
        self.broken: list[str] = []
        self.missing_sites: set[int] = set()
        self.writes_state = False
        self.uses_promises = False
        self.ended: Output | None = None

    def hear(self, index: int, entry: Entry) -> None:
        kind = entry.kind
        if self.ended is not None:
            self.broken.append(f"has entry {index} after its end")
        if kind < FIRST_COMMAND:
            self._time_ms = entry.time_ms
            if (kind == Kind.START) != (index == 0) and (kind == Kind.START or not index):
                self.broken.append(f"has a start, or none, at entry {index}")
        if entry.site and entry.site not in self._sites:
            self.missing_sites.add(entry.site)
        self._payload(index, entry)
        if kind in _PROMISES:
            self.uses_promises = True
            if self._is_run and kind in _TELLS_OF_PROMISE:
                self.broken += told_of_promise(self._store, self._group, entry)
        elif kind in (Kind.CALL, Kind.SEND):
            self._begun(index, entry)
        elif kind == Kind.ATTACH:
            self._calls[index] = parse_id(entry.name)
        elif kind == Kind.CALL_DONE:
            self.answered(entry)
        elif kind in _STATE:
            self._state_written(entry)
        elif kind == Kind.OUTPUT:
            failed = bool(entry.flags & Flag.FAILED)
            self.ended = Output(entry.payload or b"", failed, self._time_ms)

    def _payload(self, index: int, entry: Entry) -> None:
        if entry.payload is None or entry.kind in _NO_VALUE or entry.flags & Flag.DIGEST:
            return
        try:
            check_payload(entry.payload, bool(entry.flags & Flag.FAILED) or entry.kind in _REJECTS)
        except Exception as error:
            self.broken.append(f"has no value in entry {index}: {error}")

    def _begun(self, index: int, entry: Entry) -> None:
        """It has begun another one, whose record may have gone since."""
        child = child_id(self._id, index, self._time_ms)
        if entry.kind == Kind.CALL:
            self._calls[index] = child
        value = self._store.get(Db.INVOCATIONS, child, b"")
        if value is None:
            return
        record = Record.unpack(value, child)
        target = f"{record.service}.{record.handler}" + (f"/{record.key}" if record.key else "")
        asked = (entry.name, waiter(self._id, index))
        if (target, record.caller) != asked or not _is_payload(entry, record.argument):
            self.broken.append(f"has begun another one by entry {index} than its record says")

    def answered(self, entry: Entry) -> None:
        """It has the answer of one whose outcome may be kept still, and never changes."""
        child = self._calls.get(entry.ref)
        value = None if child is None else self._store.get(Db.OUTPUTS, child, b"")
        if child is not None and value is not None:
            output = Output.unpack(value, child)
            answer = entry.payload, bool(entry.flags & Flag.FAILED)
            if (output.payload, output.failed) != answer:
                self.broken.append(f"has another answer to entry {entry.ref} than its outcome")

    def _state_written(self, entry: Entry) -> None:
        self.writes_state = True
        if entry.kind == Kind.STATE_CLEAR_ALL:
            self._state.clear()
            self._knows_all_state = True
        else:
            self._state[entry.name] = entry if entry.kind == Kind.STATE_SET else None

    def compare_state(self) -> None:
        """While a ``run`` has not ended, nobody but it writes the state of its key."""
        if not self._is_run:
            return
        for name, entry in self._state.items():
            value = self._store.get(Db.STATE, self._group, name.encode())
            if (value is None) != (entry is None) or (entry and not _is_payload(entry, value)):
                self.broken.append(f"has written its state {name!r} last as it is not")
        if self._knows_all_state:
            for suffix, _ in self._store.scan(Db.STATE, self._group):
                if suffix.decode() not in self._state:
                    self.broken.append(f"has cleared its state, but there is {suffix.decode()!r}")


def told_of_promise(store: Store, group: bytes, entry: Entry) -> list[str]:
    """What *entry* of a workflow's ``run`` says of a promise, which stays as long as that does."""
    if entry.payload is None:
        return []  # it was peeked at, and not completed then
    value = store.get(Db.PROMISES, group, entry.name.encode())
    if value is None:
        return [f"knows that the promise {entry.name!r} is completed, but it is not"]
    payload, rejected = unpack_promise(value)
    failed = bool(entry.flags & Flag.FAILED) or entry.kind == Kind.PROMISE_REJECT
    refused = bool(entry.flags & Flag.REFUSED)  # what it had been completed with is not said
    if not refused and (failed != rejected or not _is_payload(entry, payload)):
        return [f"knows another value of the promise {entry.name!r}"]
    return []


def check_payload(payload: bytes, failed: bool) -> None:
    """Raise if *payload* is no value, or no failure, that perdure has written."""
    if failed:
        decode_failure(payload)
    else:
        plain_value(payload, "the row")
    require_end(payload)


def require_end(payload: bytes) -> None:
    """What is left when the last byte is taken away from one item is never an item."""
    try:
        cbor2.loads(payload[:-1])
    except Exception:  # what it raises for half an item differs between releases
        return
    raise ValueError("there are bytes after its end")


def _is_payload(entry: Entry, payload: bytes | None) -> bool:
    if entry.flags & Flag.DIGEST and payload is not None:
        return entry.payload == digest(payload)
    return entry.payload == payload
