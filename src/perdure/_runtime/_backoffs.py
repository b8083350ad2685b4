"""The rows of back-offs: failed attempts, and when the next one is due."""

from __future__ import annotations

from perdure._runtime._layout import (
    Backoff,
    TimerKey,
    backoff_group,
    number_of,
    u32,
    u64,
    unpack_due,
)
from perdure._runtime._timers import Timers
from perdure._store import Db, Store


class Backoffs:
    """Writes them to the open unit; index 0 is the whole attempt, any other a step."""

    def __init__(self, store: Store, timers: Timers) -> None:
        self._store = store
        self._timers = timers

    def begin(self, invocation_id: bytes, index: int, backoff: Backoff) -> None:
        """Have the attempt or the step tried again when it is due."""
        self.end(invocation_id, index)
        self._timers.put(TimerKey(backoff.due_ms, invocation_id, index), backoff.pack())
        self._store.put(Db.WAITERS, backoff_group(invocation_id), u32(index), u64(backoff.due_ms))

    def end(self, invocation_id: bytes, index: int) -> None:
        """Remove its rows, if it has any."""
        group = backoff_group(invocation_id)
        due = self._store.get(Db.WAITERS, group, u32(index))
        if due is not None:
            self._timers.delete(TimerKey(unpack_due(due, group), invocation_id, index))
            self._store.delete(Db.WAITERS, group, u32(index))

    def get(self, invocation_id: bytes, index: int) -> Backoff | None:
        """The failed attempts, if there are any."""
        group = backoff_group(invocation_id)
        due = self._store.get(Db.WAITERS, group, u32(index))
        if due is None:
            return None
        timer = TimerKey(unpack_due(due, group), invocation_id, index)
        value = self._store.get(Db.TIMERS, b"", timer.pack())
        return None if value is None else Backoff.unpack(value, key=timer.pack())

    def holds_attempt(self, invocation_id: bytes) -> bool:
        """Whether the attempt itself backs off."""
        return self._store.get(Db.WAITERS, backoff_group(invocation_id), u32(0)) is not None

    def resting_steps(self, invocation_id: bytes) -> dict[int, int]:
        """Steps that back off, index to due_ms."""
        group = backoff_group(invocation_id)
        resting = {
            number_of(suffix, 4, "waiters", group + suffix): unpack_due(value, group + suffix)
            for suffix, value in self._store.scan(Db.WAITERS, group)
        }
        resting.pop(0, None)  # the attempt's own
        return resting
