"""An operation: something a handler began and the world will answer, once.

It is not an ``asyncio.Future``. Every ``await`` waits on a loop future of its own, so cancelling
the awaiting task ends that wait only, and the operation goes on and can be awaited again.
"""

from __future__ import annotations

import enum
from asyncio import CancelledError, Future, InvalidStateError
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from types import FrameType
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Entry, Flag, Kind

if TYPE_CHECKING:
    from perdure._core._machine import Machine


class Progress(enum.Enum):
    """How far an operation is."""

    UNISSUED = "unissued"  # no command yet: a promise nobody has waited for
    PENDING = "pending"
    DONE = "done"
    CANCELLED = "cancelled"


# Bound once: looking a member up in its class costs more than the comparison.
_UNISSUED, _PENDING, _DONE, _CANCELLED = Progress


class Operation:
    """The state of one operation and of those who wait for it.

    Attributes:
      index: Journal entry of the command, 0 until issued.
      ordinal: Position among the completions of this invocation, 0 until then.
      payload, failed: The answer as recorded, once done.
    """

    def __init__(self, machine: Machine, kind: int, name: str, time_ms: int = 0) -> None:
        self._machine = machine
        loop = machine.loop
        loop.number = self._number = loop.number + 1
        self.kind = kind
        self.name = name
        self.time_ms = time_ms
        self.index = 0
        self.ordinal = 0
        self.payload: bytes | None = None
        self.failed = False
        self._progress = _UNISSUED
        self._waiters: list[Future[Any]] = []
        self._callbacks: list[tuple[Callable[[Any], object], Context]] = []

    def __hash__(self) -> int:
        return self._number

    def issue(self, frame: FrameType | None = None) -> None:
        """Issue the command, called for at *frame*; the machine gives the index."""
        self._progress = _PENDING
        self._machine.begin(self, frame)

    # -- what the machine does to it --------------------------------------------------------

    def complete(self, notification: Entry, ordinal: int) -> None:
        assert self._progress is _PENDING
        self.payload = notification.payload
        self.failed = bool(notification.flags & Flag.FAILED)
        self.ordinal = ordinal
        self._progress = _DONE
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(self)
        callbacks, self._callbacks = self._callbacks, []
        for callback, context in callbacks:
            self._machine.loop.call_soon(callback, self, context=context)

    # -- what user code does with it --------------------------------------------------------

    def _arm(self) -> None:
        if self._progress is _UNISSUED:
            self.issue()

    def done(self) -> bool:
        """Whether the answer has been delivered, or the operation was cancelled."""
        self._arm()
        return self._progress is not _PENDING

    def cancelled(self) -> bool:
        """Whether the operation was ended by :meth:`cancel`."""
        return self._progress is _CANCELLED

    def cancel(self) -> bool:
        """End the operation, durably; False if it has completed before.

        A step is stopped and never starts again; a timer does not fire; for a promise, this
        handler stops waiting. Who awaits it gets ``asyncio.CancelledError``.
        """
        self._arm()
        if self._progress is not _PENDING:
            return False
        self._machine.cancel_operation(self)
        self._progress = _CANCELLED
        self._wake()
        return True

    def result(self) -> Any:
        """The value, or the recorded failure raised; ``InvalidStateError`` before completion."""
        if self._progress is _CANCELLED:
            raise CancelledError(f"{self!r} was cancelled")
        if self._progress is not _DONE:
            raise InvalidStateError(f"{self!r} has not completed")
        return self._answer()

    def exception(self) -> BaseException | None:
        """The recorded failure, or None; raises as :meth:`result` does before completion."""
        try:
            self.result()
        except (CancelledError, InvalidStateError):
            raise
        except Exception as failure:
            return failure
        return None

    def _answer(self) -> Any:
        raise NotImplementedError  # typed by the subclasses, which know the declared type

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """Have *callback* called with this future once it is done, soon if it is already."""
        self._arm()
        if context is None:
            context = copy_context()
        if self._progress is not _PENDING:
            self._machine.loop.call_soon(callback, self, context=context)
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Remove *callback*; how many times it was registered."""
        kept = [pair for pair in self._callbacks if pair[0] != callback]
        removed = len(self._callbacks) - len(kept)
        self._callbacks = kept
        return removed

    def get_loop(self) -> Any:
        return self._machine.loop

    def __await__(self) -> Generator[Any, Any, Any]:
        machine = self._machine
        if not machine.loop.running:
            machine.check_usable()
        if self._progress is _UNISSUED:
            self.issue()
        if self._progress is _PENDING:
            if machine.is_over:
                machine.check_usable()
            waiter = machine.loop.create_future()
            self._waiters.append(waiter)
            try:
                yield from waiter
            except CancelledError:
                self._wait_cancelled(waiter)
                raise
        return self.result()

    def _wait_cancelled(self, waiter: Future[Any]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        # A step nobody waits for any more must not overtake the compensation that follows.
        if (
            self.kind == Kind.RUN
            and self._progress is _PENDING
            and not self._waiters
            and not self._callbacks
        ):
            self.cancel()

    def watch(self, waiter: Future[Any]) -> None:
        """Have *waiter* completed with this operation; used by races, which cancel nothing."""
        self._waiters.append(waiter)

    def unwatch(self, waiter: Future[Any]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
