"""The requests that one app works on, and those of them that only wait for an invocation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

TRAFFIC: Final = "perdure.traffic"
"""Name in the scope of a request."""


class Traffic:
    """Attributes:
    waiting_max: So many may wait at a time.
    working: Requests being worked on, without those that wait.
    waiting: The tasks of the requests that wait.
    stopping: No request is taken any more, and nothing is waited for.
    """

    def __init__(self, waiting_max: int) -> None:
        self.waiting_max = waiting_max
        self.working = 0
        self.waiting: set[asyncio.Task[Any]] = set()
        self.stopping = False

    def stop(self) -> None:
        """Take no request any more, and end the waits of those that are here, later ones too."""
        self.stopping = True
        for task in self.waiting:
            task.cancel()


def may_wait(scope: Mapping[str, Any]) -> bool:
    """Whether there is room for the wait of a request; to be asked before anything is begun.

    Only what would wait is refused where there is none: what is waited for has to come through.
    """
    traffic: Traffic | None = scope.get(TRAFFIC)
    return traffic is None or len(traffic.waiting) < traffic.waiting_max


class Waiting:
    """Around the wait of a request for the result of an invocation: ``with Waiting(scope): …``.

    There may be very many waits, as they cost next to nothing, and they do not hold up a stop of
    the server: it cancels them.
    """

    __slots__ = ("_task", "_traffic")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._traffic: Traffic | None = scope.get(TRAFFIC)
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        traffic = self._traffic
        if traffic is None:
            return
        task = self._task = asyncio.current_task()
        assert task is not None
        traffic.working -= 1
        traffic.waiting.add(task)
        if traffic.stopping:
            task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        traffic = self._traffic
        if traffic is not None and self._task is not None:
            traffic.waiting.discard(self._task)
            traffic.working += 1
