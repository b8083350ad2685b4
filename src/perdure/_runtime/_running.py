"""The steps that run now.

This module is compiled (see ``_running.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure._ids import format_id

if TYPE_CHECKING:
    import asyncio

    from perdure.futures import Step


class RunningStep:
    """One attempt of a step.

    Attributes:
      invocation_id, index: The operation.
      step: The function, its arguments and its declared type.
      task: What drives it on the host's loop, if it is async.
      expiry: Bounds an attempt in a thread.
      following: The next of the same invocation that runs.
      cancelled: Its outcome is dropped.
      interrupted: It failed because the program is being stopped, or somebody cancelled its task:
        no fault of the step's, so it does not use up its attempts.
    """

    __slots__ = (
        "cancelled",
        "expiry",
        "following",
        "index",
        "interrupted",
        "invocation_id",
        "step",
        "task",
    )

    def __init__(self, invocation_id: bytes, index: int, step: Step[Any]) -> None:
        self.invocation_id = invocation_id
        self.index = index
        self.step = step
        self.task: asyncio.Task[None] | None = None
        self.expiry: asyncio.Handle | None = None
        self.following: RunningStep | None = None
        self.cancelled = False
        self.interrupted = False

    @property
    def text_id(self) -> str:
        """The id of the invocation for people."""
        return format_id(self.invocation_id)

    def cancel(self) -> None:
        """End the attempt: its task is cancelled, a thread's outcome is dropped."""
        self.cancelled = True
        if self.expiry is not None:
            self.expiry.cancel()
        if self.task is not None:
            self.task.cancel()


class RunningSteps:
    """The attempts that run, by invocation: nearly always one each, so they are chained."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: dict[bytes, RunningStep] = {}

    def add(self, running: RunningStep) -> None:
        running.following = self._first.get(running.invocation_id)
        self._first[running.invocation_id] = running

    def take(self, invocation_id: bytes, index: int) -> RunningStep | None:
        """The attempt, which does not count as running any more; None if there is none."""
        before: RunningStep | None = None
        running = self._first.get(invocation_id)
        while running is not None and running.index != index:
            before, running = running, running.following
        if running is None:
            return None
        if before is not None:
            before.following = running.following
        elif running.following is not None:
            self._first[invocation_id] = running.following
        else:
            del self._first[invocation_id]
        running.following = None
        return running

    def has(self, invocation_id: bytes, index: int) -> bool:
        running = self._first.get(invocation_id)
        while running is not None:
            if running.index == index:
                return True
            running = running.following
        return False

    def any_of(self, invocation_id: bytes) -> bool:
        return invocation_id in self._first

    def any(self) -> bool:
        return bool(self._first)

    def all(self) -> list[RunningStep]:
        found = []
        for first in self._first.values():
            running: RunningStep | None = first
            while running is not None:
                found.append(running)
                running = running.following
        return found

    def clear(self) -> None:
        self._first.clear()
