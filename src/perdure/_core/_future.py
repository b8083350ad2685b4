"""Futures of the deterministic loop.

Their hash is their creation number within the invocation, equality stays identity. So a set of
them, whoever built it (the standard library, anyio, the user), iterates in one order in every
process, and a replay cancels and collects in the order of the first run.

This module is compiled (see ``_future.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import contextvars
from asyncio import AbstractEventLoop, CancelledError, InvalidStateError
from collections.abc import Callable, Generator
from typing import Any

PENDING = 0
CANCELLED = 1
FINISHED = 2


class LoopFuture:
    """A future of the deterministic loop, with the interface of ``asyncio.Future``."""

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "_callbacks",
        "_cancel_message",
        "_exception",
        "_log_destroy_pending",
        "_log_traceback",
        "_loop",
        "_number",
        "_result",
        "_state",
    )

    def __init__(self, loop: AbstractEventLoop, number: int) -> None:
        self._loop = loop
        self._number = number
        self._state = PENDING
        self._asyncio_future_blocking = False
        self._callbacks: list[tuple[Callable[[Any], object], contextvars.Context]] | None = None
        self._result: Any = None
        self._exception: BaseException | None = None
        self._cancel_message: Any = None
        self._log_traceback = False  # failed, and nobody has asked
        self._log_destroy_pending = False  # set by asyncio; nothing here asks for it

    def __hash__(self) -> int:
        return self._number

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {('pending', 'cancelled', 'finished')[self._state]}>"

    def __del__(self) -> None:
        if self._log_traceback:
            self._loop.call_exception_handler(
                {
                    "message": f"{type(self).__name__} exception was never retrieved",
                    "exception": self._exception,
                    "future": self,
                }
            )

    def get_loop(self) -> AbstractEventLoop:
        return self._loop

    def done(self) -> bool:
        return self._state != PENDING

    def cancelled(self) -> bool:
        return self._state == CANCELLED

    def cancel(self, msg: Any | None = None) -> bool:
        if self._state != PENDING:
            return False
        self._cancel_message = msg
        self._end(CANCELLED)
        return True

    def set_result(self, result: Any) -> None:
        if self._state != PENDING:
            raise InvalidStateError(f"{self!r} is done already")
        self._resolve(result)

    def set_exception(self, exception: Any) -> None:
        if self._state != PENDING:
            raise InvalidStateError(f"{self!r} is done already")
        if isinstance(exception, type):
            exception = exception()
        if isinstance(exception, StopIteration):
            raise TypeError("StopIteration cannot be raised into a future")
        self._fail(exception)

    def result(self) -> Any:
        if self._state == FINISHED:
            self._log_traceback = False
            if self._exception is not None:
                raise self._exception
            return self._result
        if self._state == CANCELLED:
            raise self._make_cancelled_error()
        raise InvalidStateError("the result is not set")

    def exception(self) -> BaseException | None:
        if self._state == FINISHED:
            self._log_traceback = False
            return self._exception
        if self._state == CANCELLED:
            raise self._make_cancelled_error()
        raise InvalidStateError("the exception is not set")

    def add_done_callback(
        self, fn: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        if context is None:
            context = contextvars.copy_context()
        if self._state != PENDING:
            self._loop.call_soon(fn, self, context=context)
        elif self._callbacks is None:
            self._callbacks = [(fn, context)]
        else:
            self._callbacks.append((fn, context))

    def remove_done_callback(self, fn: Callable[[Any], object]) -> int:
        callbacks = self._callbacks or []
        self._callbacks = [pair for pair in callbacks if pair[0] != fn]
        return len(callbacks) - len(self._callbacks)

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._state == PENDING:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def __iter__(self) -> Generator[Any, Any, Any]:
        return self.__await__()

    def _resolve(self, result: Any) -> None:
        self._result = result
        self._end(FINISHED)

    def _fail(self, exception: BaseException) -> None:
        self._exception = exception
        self._log_traceback = True
        self._end(FINISHED)

    def _end(self, state: int) -> None:
        self._state = state
        callbacks = self._callbacks
        if callbacks is not None:
            self._callbacks = None
            for callback, context in callbacks:
                self._loop.call_soon(callback, self, context=context)

    def _make_cancelled_error(self) -> CancelledError:
        if self._cancel_message is None:
            return CancelledError()
        return CancelledError(self._cancel_message)
