"""The wall clock of an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

SLEEP_MAX_S = 60.0
"""Longest trust in the monotonic clock: a wall clock set forward is noticed within this time."""


class Clock(Protocol):
    """Where an engine gets the time from, and who wakes it."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        """Call *callback* at *when_ms*, or somewhat earlier, on *loop*."""
        ...


class WallClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        # One ms more than the difference: now_ms() is rounded down.
        delay = (when_ms - self.now_ms() + 1) / 1000
        return loop.call_later(min(max(delay, 0.0), SLEEP_MAX_S), callback)
