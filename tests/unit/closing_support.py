"""What the tests of eviction share: a handler that is evicted where it waits, and a log."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

from core_support import Driver


def nothing() -> None:
    """What the steps of these tests do."""


def evicted(handler: Any) -> list[str]:
    """Start *handler*, evict it where it waits; the complaints. Nothing may be left to collect."""
    driver = Driver(handler)
    driver.start()
    complaints = driver.evict()
    assert driver.machine.queue.tasks == {}
    del driver
    gc.collect()  # what is left over would run here, and pytest would see it fail
    return complaints


class Log:
    """Collects what clean-ups say, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def leaving(self, what: str) -> Any:
        try:
            yield
        finally:
            self.lines.append(what)
