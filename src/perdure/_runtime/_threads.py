"""The engine's own threads, in which synchronous steps run.

They are daemons, unlike those of ``ThreadPoolExecutor``, which the interpreter joins at exit: a
step that blocks for ever must not keep a process from stopping. Its outcome is not journalled, so
it starts anew when the directory is opened again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class StepThreads:
    """At most *count* threads, started when first needed."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"step_threads must be at least 1, not {count}")
        self._count = count
        self._started = 0
        self._idle = 0  # threads that have not taken work
        self._waiting = 0  # work that no thread has taken; both are counted under the lock
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Run *work*, which must not raise, in one of the threads; in order of submission."""
        with self._lock:
            self._waiting += 1
            start = self._idle < self._waiting and self._started < self._count
            if start:
                self._started += 1
                self._idle += 1
        self._work.put(work)
        if start:
            threading.Thread(
                target=self._serve, name=f"perdure-step-{self._started}", daemon=True
            ).start()

    def close(self) -> None:
        """Let each thread end after its work; waits for none."""
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            with self._lock:
                self._idle -= 1
                self._waiting -= 1
            work()
            del work  # holds the step's arguments and result
            with self._lock:
                self._idle += 1
