"""What a live activation reads of its key: the store, and over it what it has itself written."""

from __future__ import annotations

from typing import Protocol

from perdure._core._entries import Entry, Flag, encode_names
from perdure._core._outgoing import Outgoing


class Reads(Protocol):
    """What a handler may read of its key, as of the end of the previous activation."""

    def state(self, name: str) -> bytes | None: ...

    def state_names(self) -> list[str]: ...

    def promise(self, name: str) -> tuple[bytes, bool] | None:
        """(payload, failed) of a completed promise."""
        ...

    def existing(self, outgoing: Outgoing, /) -> bytes | None:
        """The invocation that stands already where *outgoing* would begin one."""
        ...

    def awakeable_waits(self, name: str) -> bool:
        """Whether the awakeable with this id waits for its completion."""
        ...


class KeyView:
    """Reads of one activation; :meth:`forget` begins the next."""

    __slots__ = (
        "_awakeable_writes",
        "_awakeables",
        "_begun",
        "_promise_writes",
        "_reads",
        "_state_cleared",
        "_state_writes",
    )

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._state_writes: dict[str, bytes | None] = {}
        self._state_cleared = False
        self._promise_writes: dict[str, tuple[bytes, bool]] = {}
        self._begun: dict[tuple[str, str | None], bytes] = {}
        self._awakeable_writes: set[str] = set()
        self._awakeables: set[str] = set()  # made in this activation

    def forget(self) -> None:
        """What was written so far is in the store from here on."""
        self._state_writes.clear()
        self._state_cleared = False
        self._promise_writes.clear()
        self._begun.clear()
        self._awakeable_writes.clear()
        self._awakeables.clear()

    def set_state(self, name: str, payload: bytes | None) -> None:
        """None: cleared."""
        self._state_writes[name] = payload

    def clear_all_state(self) -> None:
        self._state_writes.clear()
        self._state_cleared = True

    def complete_promise(self, name: str, payload: bytes, failed: bool) -> None:
        self._promise_writes[name] = payload, failed

    def answer_get(self, entry: Entry) -> Entry:
        """*entry*, a read of state, with its answer."""
        if entry.name in self._state_writes:
            payload = self._state_writes[entry.name]
        else:
            payload = None if self._state_cleared else self._reads.state(entry.name)
        return entry._replace(payload=payload)

    def answer_keys(self, entry: Entry) -> Entry:
        names = set() if self._state_cleared else set(self._reads.state_names())
        for name, payload in self._state_writes.items():
            if payload is None:
                names.discard(name)
            else:
                names.add(name)
        return entry._replace(payload=encode_names(sorted(names)))

    def promise(self, name: str) -> tuple[bytes, bool] | None:
        return self._promise_writes.get(name) or self._reads.promise(name)

    def answer_peek(self, entry: Entry) -> Entry:
        completed = self.promise(entry.name)
        if completed is None:
            return entry
        payload, failed = completed
        return entry._replace(payload=payload, flags=Flag.FAILED if failed else 0)

    def begin(self, outgoing: Outgoing) -> None:
        self._begun.setdefault((outgoing.target, outgoing.idempotency_key), outgoing.child)

    def existing(self, outgoing: Outgoing, /) -> bytes | None:
        begun = self._begun.get((outgoing.target, outgoing.idempotency_key))
        return begun or self._reads.existing(outgoing)

    def make_awakeable(self, name: str) -> None:
        self._awakeables.add(name)

    def complete_awakeable(self, name: str) -> None:
        self._awakeable_writes.add(name)

    def awakeable_waits(self, name: str) -> bool:
        if name in self._awakeable_writes:
            return False
        return name in self._awakeables or self._reads.awakeable_waits(name)
