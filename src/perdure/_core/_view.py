"""What a live activation reads of its key: the store, and over it what it has itself written.

This module is compiled (see ``_view.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import enum
from typing import Any, Final, Literal, Protocol

from perdure._core._entries import Entry, Flag, encode_names, new_entry
from perdure._core._outgoing import Outgoing


class _LaterType(enum.Enum):
    LATER = "later"


LATER: Final = _LaterType.LATER
"""In place of an answer: the activation stops here until its driver has it."""

Unanswered = Literal[_LaterType.LATER]


class Reads(Protocol):
    """What a handler may read of its key, as of the end of the previous activation.

    A driver that has to ask somebody else first answers :data:`LATER`, always: what the activation
    has written itself is then for whoever it asks to add.
    """

    def state(self, name: str) -> bytes | Unanswered | None: ...

    def state_names(self) -> list[str] | Unanswered: ...

    def promise(self, name: str) -> tuple[bytes, bool] | Unanswered | None:
        """(payload, failed) of a completed promise."""
        ...

    def existing(self, outgoing: Outgoing, /) -> bytes | None:
        """The invocation that stands already where *outgoing* would begin one."""
        ...

    def awakeable_waits(self, name: str) -> bool:
        """Whether the awakeable with this id waits for its completion."""
        ...


class _Writes:
    """What an activation has written."""

    __slots__ = ("awakeables", "begun", "made", "promises", "state", "state_cleared")

    def __init__(self) -> None:
        self.state: dict[str, bytes | None] = {}
        self.state_cleared = False
        self.promises: dict[str, tuple[bytes, bool]] = {}
        self.begun: dict[tuple[str, str | None], bytes] = {}
        self.made: set[str] = set()  # awakeables
        self.awakeables: set[str] = set()  # completed


class KeyView:
    """Reads of one activation; :meth:`forget` begins the next."""

    __slots__ = ("_reads", "_written")

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._written: _Writes | None = None  # most activations write nothing that they read

    def forget(self) -> None:
        """What was written so far is in the store from here on."""
        self._written = None

    def _writes(self) -> _Writes:
        if self._written is None:
            self._written = _Writes()
        return self._written

    def set_state(self, name: str, payload: bytes | None) -> None:
        """None: cleared."""
        self._writes().state[name] = payload

    def clear_all_state(self) -> None:
        writes = self._writes()
        writes.state.clear()
        writes.state_cleared = True

    def complete_promise(self, name: str, payload: bytes, failed: bool) -> None:
        self._writes().promises[name] = payload, failed

    def answer_get(self, entry: Entry) -> Entry | None:
        """*entry*, a read of state, with its answer; None: the answer comes later."""
        written = self._written
        payload: Any
        if written is None:
            payload = self._reads.state(entry.name)
        elif entry.name in written.state:
            payload = written.state[entry.name]
        else:
            payload = None if written.state_cleared else self._reads.state(entry.name)
        if payload is LATER:
            return None
        return new_entry((entry.kind, 0, entry.name, payload, 0, 0, 0))

    def answer_keys(self, entry: Entry) -> Entry | None:
        written = self._written or _Writes()
        stored = self._reads.state_names()
        if stored is LATER:
            return None
        names = set() if written.state_cleared else set(stored)
        for name, payload in written.state.items():
            if payload is None:
                names.discard(name)
            else:
                names.add(name)
        return entry._replace(payload=encode_names(sorted(names)))

    def promise(self, name: str) -> tuple[bytes, bool] | Unanswered | None:
        written = self._written.promises.get(name) if self._written is not None else None
        return written or self._reads.promise(name)

    def answer_peek(self, entry: Entry) -> Entry | None:
        completed = self.promise(entry.name)
        if completed is LATER:
            return None
        if completed is None:
            return entry
        payload, failed = completed
        return entry._replace(payload=payload, flags=Flag.FAILED if failed else 0)

    def begin(self, outgoing: Outgoing) -> None:
        key = (outgoing.target, outgoing.idempotency_key)
        self._writes().begun.setdefault(key, outgoing.child)

    def existing(self, outgoing: Outgoing) -> bytes | None:
        begun = None
        if self._written is not None:
            begun = self._written.begun.get((outgoing.target, outgoing.idempotency_key))
        return begun or self._reads.existing(outgoing)

    def make_awakeable(self, name: str) -> None:
        self._writes().made.add(name)

    def complete_awakeable(self, name: str) -> None:
        self._writes().awakeables.add(name)

    def awakeable_waits(self, name: str) -> bool:
        written = self._written
        if written is None:
            return self._reads.awakeable_waits(name)
        if name in written.awakeables:
            return False
        return name in written.made or self._reads.awakeable_waits(name)
