"""An operation: something a handler began and the world will answer, once.

It is not an ``asyncio.Future``. Every ``await`` is a :class:`~perdure._core._task.Wait` of its own,
so cancelling the awaiting task ends that wait only, and the operation goes on and can be awaited
again.

This module is compiled (see ``_operation.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from asyncio import CancelledError, InvalidStateError
from collections.abc import Callable
from contextvars import Context, copy_context
from types import FrameType
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Flag, Kind
from perdure._core._future import LoopFuture
from perdure._core._task import Wait

if TYPE_CHECKING:
    from perdure._core._commands import Commands

_UNISSUED = 0  # no command yet: a promise nobody has waited for
_PENDING = 1
_DONE = 2
_CANCELLED = 3

_WORDS = ("unissued", "pending", "done", "cancelled")
_UNDECODED: Any = object()


class Operation:
    """The state of one operation and of those who wait for it.

    Attributes:
      index: Journal entry of the command, 0 until issued.
      time_ms: Deadline of a timer.
      ordinal: Position among the completions of this invocation, 0 until then.
      payload, failed: The answer as recorded, once done.
      function, arguments, options: What a step is to run, and how; None for the rest.
    """

    __slots__ = (
        "_callbacks",
        "_machine",
        "_number",
        "_progress",
        "_serde",
        "_value",
        "_wait",
        "_waits",
        "arguments",
        "failed",
        "function",
        "index",
        "kind",
        "name",
        "options",
        "ordinal",
        "payload",
        "time_ms",
    )

    def __init__(
        self,
        machine: Commands,
        kind: int,
        name: str,
        serde: Any = None,
        function: Any = None,
        arguments: tuple[Any, ...] = (),
        options: Any = None,
        time_ms: int = 0,
    ) -> None:
        # Checked before a number is taken: a use that is refused must not change the hashes of
        # what comes after it, for no replay repeats it.
        machine.check_usable()
        self._machine = machine
        self._number = machine.queue.next_number()
        self.kind = kind
        self.name = name
        self._serde = serde
        self.time_ms = time_ms
        self.function = function
        self.arguments = arguments
        self.options = options
        self.index = 0
        self.ordinal = 0
        self.payload: bytes | None = None
        self.failed = False
        self._value: Any = _UNDECODED
        self._progress = _UNISSUED
        self._wait: LoopFuture | None = None  # the first who waits
        self._waits: list[LoopFuture] | None = None  # the others
        self._callbacks: list[tuple[Callable[[Any], object], Context]] | None = None

    def __hash__(self) -> int:
        return self._number

    def progress(self) -> str:
        """How far it is, in a word."""
        return _WORDS[self._progress]

    def issue(self, frame: FrameType | None = None) -> None:
        """Issue the command, called for at *frame*; the machine gives the index."""
        self._progress = _PENDING
        self._machine.begin(self, frame)

    def recode(self) -> Any:
        """How replay compares the payload of its command; None: byte by byte."""
        return None

    def born_failed(self, failure: bytes) -> None:
        """It is over before it began, with an encoded *failure*."""
        self.payload = failure
        self.failed = True
        self._progress = _DONE

    # -- what the machine does to it --------------------------------------------------------

    def complete(self, payload: bytes | None, flags: int, ordinal: int) -> None:
        """The answer has come."""
        assert self._progress == _PENDING
        self.payload = payload
        self.failed = bool(flags & Flag.FAILED)
        self.ordinal = ordinal
        self._progress = _DONE
        self._wake()

    def _let_go(self) -> None:
        """Its machine is closed: drop who waits, which would be a circle."""
        self._wait = self._waits = self._callbacks = None

    def _wake(self) -> None:
        wait = self._wait
        waits = self._waits
        self._wait = self._waits = None
        if wait is not None and not wait.done():
            wait._resolve(self)
        if waits is not None:
            for wait in waits:
                if not wait.done():
                    wait._resolve(self)
        callbacks = self._callbacks
        if callbacks is not None:
            self._callbacks = None
            for callback, context in callbacks:
                self._machine.loop.call_soon(callback, self, context=context)

    # -- what user code does with it --------------------------------------------------------

    def _arm(self) -> None:
        if self._progress == _UNISSUED:
            self._machine.check_usable()
            self.issue()

    def done(self) -> bool:
        """Whether the answer has been delivered, or the operation was cancelled."""
        self._arm()
        return self._progress != _PENDING

    def cancelled(self) -> bool:
        """Whether the operation was ended by :meth:`cancel`."""
        return self._progress == _CANCELLED

    def cancel(self) -> bool:
        """End the operation, durably; False if it has completed before.

        A step is stopped and never starts again; a timer does not fire; for a promise, this
        handler stops waiting. Who awaits it gets ``asyncio.CancelledError``.
        """
        self._arm()
        if self._progress != _PENDING:
            return False
        self._machine.cancel_operation(self)
        self._progress = _CANCELLED
        self._wake()
        return True

    def result(self) -> Any:
        """The value, or the recorded failure raised; ``InvalidStateError`` before completion."""
        if self._progress == _CANCELLED:
            raise CancelledError(f"{self!r} was cancelled")
        if self._progress != _DONE:
            raise InvalidStateError(f"{self!r} has not completed")
        if self._value is _UNDECODED or self.failed:
            self._value = self._answer()
        return self._value

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
        """The decoded value; raises the recorded failure."""
        raise NotImplementedError  # the subclasses know how values and failures are written

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """Have *callback* called with this future once it is done, soon if it is already."""
        self._arm()
        if context is None:
            context = copy_context()
        if self._progress != _PENDING:
            self._machine.loop.call_soon(callback, self, context=context)
        elif self._callbacks is None:
            self._callbacks = [(callback, context)]
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Remove *callback*; how many times it was registered."""
        callbacks = self._callbacks or []
        self._callbacks = [pair for pair in callbacks if pair[0] != callback]
        return len(callbacks) - len(self._callbacks)

    def get_loop(self) -> Any:
        return self._machine.loop

    def __await__(self) -> Any:
        machine = self._machine
        if not machine.running or machine.is_over:
            machine.check_usable()
        if self._progress == _UNISSUED:
            self.issue()
        wait = Wait(machine.loop, machine.queue.next_number(), self, self._progress != _PENDING)
        if self._progress == _PENDING:
            self.watch(wait)
        return wait

    def wait_cancelled(self, wait: LoopFuture) -> None:
        """Who waited with *wait* was cancelled."""
        self.unwatch(wait)
        # A step nobody waits for any more must not overtake the compensation that follows.
        if (
            self.kind == Kind.RUN
            and self._progress == _PENDING
            and self._wait is None
            and not self._callbacks
        ):
            self.cancel()

    def watch(self, wait: LoopFuture) -> None:
        """Have *wait* completed with this operation; used by races, which cancel nothing."""
        if self._wait is None:
            self._wait = wait
        elif self._waits is None:
            self._waits = [wait]
        else:
            self._waits.append(wait)

    def unwatch(self, wait: LoopFuture) -> None:
        waits = self._waits
        if self._wait is wait:
            self._wait = waits.pop(0) if waits else None
        elif waits is not None and wait in waits:
            waits.remove(wait)
