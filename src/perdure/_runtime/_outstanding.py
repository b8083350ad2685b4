"""What an invocation waits for, read off its journal without running it."""

from __future__ import annotations

from collections.abc import Iterable

from perdure._core._entries import Entry, Kind

_BEGIN = frozenset({Kind.RUN, Kind.TIMER, Kind.PROMISE_AWAIT})
_END = frozenset({Kind.CANCEL, Kind.STEP_DONE, Kind.TIMER_FIRED, Kind.PROMISE_DONE})


def outstanding_in(entries: Iterable[tuple[int, Entry]]) -> dict[int, Entry]:
    """The commands among (index, entry) that nothing has answered or cancelled, by index."""
    outstanding: dict[int, Entry] = {}
    follow(outstanding, entries)
    return outstanding


def follow(outstanding: dict[int, Entry], entries: Iterable[tuple[int, Entry]]) -> None:
    """Bring *outstanding* up to the (index, entry) that come next in the journal."""
    for index, entry in entries:
        if entry.kind in _BEGIN:
            outstanding[index] = entry
        elif entry.kind in _END:
            outstanding.pop(entry.ref, None)
