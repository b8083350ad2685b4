"""What an invocation waits for, read off its journal without running it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from perdure._core._entries import FIRST_COMMAND, Entry, Kind
from perdure._core._outgoing import child_id

_BEGIN = frozenset(
    {
        *(Kind.RUN, Kind.TIMER, Kind.PROMISE_AWAIT, Kind.CALL, Kind.AWAKEABLE),
        *(Kind.SIGNAL_AWAIT, Kind.ATTACH),
    }
)
_NO_ANSWER = frozenset({Kind.START, Kind.CANCELLED})


class Outstanding(NamedTuple):
    """A command that nothing has answered; *child*: the invocation that a call began."""

    entry: Entry
    child: bytes


def outstanding_in(
    invocation_id: bytes, entries: Iterable[tuple[int, Entry]]
) -> dict[int, Outstanding]:
    """The commands among (index, entry) that nothing has answered or cancelled, by index."""
    outstanding: dict[int, Outstanding] = {}
    time_ms = 0
    for index, entry in entries:
        if entry.kind < FIRST_COMMAND:
            time_ms = entry.time_ms
            if entry.kind not in _NO_ANSWER:
                outstanding.pop(entry.ref, None)
        elif entry.kind == Kind.CANCEL:
            outstanding.pop(entry.ref, None)
        elif entry.kind in _BEGIN:
            child = child_id(invocation_id, index, time_ms) if entry.kind == Kind.CALL else b""
            outstanding[index] = Outstanding(entry, child)
    return outstanding
