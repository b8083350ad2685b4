"""The durable timers that are due soon.

The database ``timers`` holds all of them. Memory holds a window: every timer due before its end,
so a million far timers cost nothing, and the next one to fire is always known.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from perdure._runtime._clock import Clock
from perdure._runtime._layout import TimerKey
from perdure._store import Db, Store

WINDOW_MAX = 100_000
"""Timers read into memory at a time."""

FOREVER_MS = (1 << 64) - 1


class Timers:
    """Owner of the window and of the one host timer that wakes the engine.

    Every timer of the store with ``due_ms < self._window_end_ms`` is in the heap. A heap item
    whose row is gone was cancelled, and is skipped when its time comes.

    Attributes:
      taken_ms: Timers due up to then have been taken; a clock that was set back is behind it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_due: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._loop = loop
        self._on_due = on_due
        self._heap: list[TimerKey] = []
        self._window_end_ms = 0
        self._handle: asyncio.Handle | None = None
        self._armed = False
        self._armed_for_ms = FOREVER_MS
        self.taken_ms = 0
        self._fill()

    def put(self, timer: TimerKey, value: bytes = b"") -> None:
        """Append the row to the open unit and remember it."""
        self._store.put(Db.TIMERS, b"", timer.pack(), value)
        self.watch(timer)

    def watch(self, timer: TimerKey) -> None:
        """Remember a timer that has its row."""
        if timer.due_ms < self._window_end_ms:
            heapq.heappush(self._heap, timer)
            if len(self._heap) > 2 * WINDOW_MAX:
                self._shrink()
            if self._armed and timer.due_ms < self._armed_for_ms:
                self.arm()

    def delete(self, timer: TimerKey) -> None:
        """Append the row's removal to the open unit."""
        self._store.delete(Db.TIMERS, b"", timer.pack())

    def due(self, now_ms: int, limit: int) -> list[tuple[TimerKey, bytes]]:
        """Take up to *limit* timers whose time has come, in deadline order, with their values."""
        taken: list[tuple[TimerKey, bytes]] = []
        self.taken_ms = max(self.taken_ms, now_ms)
        while len(taken) < limit:
            if not self._heap and not self._fill():
                break
            if self._heap[0].due_ms > now_ms:
                break
            timer = heapq.heappop(self._heap)
            value = self._store.get(Db.TIMERS, b"", timer.pack())
            if value is not None:
                taken.append((timer, value))
        return taken

    def _fill(self) -> bool:
        """Move an exhausted window on; False if the store has no further timer."""
        if self._window_end_ms == FOREVER_MS:
            return False
        start = self._window_end_ms.to_bytes(8, "big")
        rows = self._store.scan(Db.TIMERS, b"", after=start, limit=WINDOW_MAX)
        self._heap = [TimerKey.unpack(suffix) for suffix, _ in rows]
        if len(rows) < WINDOW_MAX:
            self._window_end_ms = FOREVER_MS
            return bool(rows)
        # The last millisecond may be cut in two: leave it whole to the next window. If all are
        # due in one millisecond, take the rest of that millisecond too.
        last_ms = self._heap[-1].due_ms
        if self._heap[0].due_ms < last_ms:
            self._heap = [timer for timer in self._heap if timer.due_ms < last_ms]
            self._window_end_ms = last_ms
        else:
            while rows and self._heap[-1].due_ms == last_ms:
                rows = self._store.scan(
                    Db.TIMERS, b"", after=self._heap[-1].pack(), limit=WINDOW_MAX
                )
                self._heap += [TimerKey.unpack(suffix) for suffix, _ in rows]
            self._heap = [timer for timer in self._heap if timer.due_ms == last_ms]
            self._window_end_ms = last_ms + 1
        return True

    def _shrink(self) -> None:
        """Forget the far half of the window; the store has it."""
        self._heap.sort()
        self._window_end_ms = self._heap[WINDOW_MAX].due_ms
        while self._heap and self._heap[-1].due_ms >= self._window_end_ms:
            self._heap.pop()

    def arm(self) -> None:
        """Have the host loop call back when the next timer is due."""
        self.disarm()
        self._armed = True
        if self._heap or self._fill():
            self._armed_for_ms = self._heap[0].due_ms
            self._handle = self._clock.call_at(self._loop, self._armed_for_ms, self._on_due)
        else:
            self._armed_for_ms = FOREVER_MS

    def disarm(self) -> None:
        self._armed = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
