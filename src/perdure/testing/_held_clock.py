"""A wall clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable


class HeldClock:
    """The clock of an engine under test; see :class:`perdure._runtime._clock.Clock`."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._calls: list[tuple[int, int, asyncio.Handle, Callable[[], None]]] = []
        self._order = itertools.count()

    def now_ms(self) -> int:
        return self._now_ms

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        context = contextvars.copy_context()
        handle = asyncio.Handle(callback, (), loop)
        item = (when_ms, next(self._order), handle, lambda: context.run(callback))
        heapq.heappush(self._calls, item)
        if when_ms <= self._now_ms:
            # Not now: whoever asks is in the middle of something.
            loop.call_soon(self._call_due)
        return handle

    def next_ms(self) -> int | None:
        """When the next callback is due; None: there is none."""
        calls = self._calls
        while calls and calls[0][2].cancelled():
            heapq.heappop(calls)
        return calls[0][0] if calls else None

    def is_due(self) -> bool:
        """Whether a callback is due and has not been called."""
        next_ms = self.next_ms()
        return next_ms is not None and next_ms <= self._now_ms

    def move(self, to_ms: int) -> None:
        """Have it be *to_ms*, if that is later, and call what is due by then."""
        self._now_ms = max(self._now_ms, to_ms)
        self._call_due()

    def _call_due(self) -> None:
        while self.is_due():
            heapq.heappop(self._calls)[3]()
