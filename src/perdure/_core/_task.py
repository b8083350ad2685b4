"""Futures and tasks of the deterministic loop.

Their hash is their creation number within the invocation, equality stays identity. So a set of
them, whoever built it (the standard library, anyio, the user), iterates in one order in every
process, and a replay cancels and collects in the order of the first run.

A task drives its coroutine itself instead of leaving that to ``asyncio.Task``: it can refuse a
future of another loop by name, is in no global registry, and can be closed on eviction.
"""

from __future__ import annotations

import contextvars
import inspect
from asyncio import CancelledError, Future, InvalidStateError
from asyncio import _enter_task as enter_task  # type: ignore[attr-defined]
from asyncio import _leave_task as leave_task  # type: ignore[attr-defined]
from collections.abc import Coroutine, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from perdure._core._signals import Halted
from perdure.errors import NondeterministicOperationError

if TYPE_CHECKING:
    from perdure._core._loop import DeterministicLoop

CLOSE_ATTEMPTS_MAX = 3
"""Times a coroutine that awaits in its ``finally`` is closed before it is given up."""


class LoopFuture(Future[Any]):
    """A future of the deterministic loop."""

    _number: int  # set by the loop that makes it

    def __hash__(self) -> int:
        return self._number


class LoopTask(LoopFuture):
    """A task of the deterministic loop; the part of ``asyncio.Task`` that code relies on."""

    _loop: DeterministicLoop

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
        *,
        loop: DeterministicLoop,
        number: int,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(loop=loop)
        self._number = number
        self._coro = coro
        self._name = name
        self._context = contextvars.copy_context() if context is None else context
        self._fut_waiter: Future[Any] | None = None
        self._must_cancel = False
        self._cancel_requests = 0
        self._cancel_text: Any = None
        loop.call_soon(self._step, context=self._context)

    def __repr__(self) -> str:
        state = "done" if self.done() else "pending"
        return f"<LoopTask {state} name={self.get_name()!r} coro={self._coro!r}>"

    # -- the interface of asyncio.Task ------------------------------------------------------

    def get_coro(self) -> Coroutine[Any, Any, Any] | Generator[Any, Any, Any]:
        return self._coro

    def get_context(self) -> contextvars.Context:
        return self._context

    def get_name(self) -> str:
        return self._name or f"Task-{self._number}"

    def set_name(self, value: object) -> None:
        self._name = str(value)

    def set_result(self, result: Any) -> None:
        raise RuntimeError("Task does not support set_result operation")

    def set_exception(self, exception: Any) -> None:
        raise RuntimeError("Task does not support set_exception operation")

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        frames = await_stack(self._coro)
        return frames if limit is None else frames[-limit:]

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        for frame in self.get_stack(limit=limit):
            print(describe_frame(frame), file=file)

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        self._cancel_requests += 1
        waiter = self._fut_waiter
        if waiter is not None and waiter.cancel(msg=msg):
            return True
        self._must_cancel = True
        self._cancel_text = msg
        return True

    def cancelling(self) -> int:
        return self._cancel_requests

    def uncancel(self) -> int:
        if self._cancel_requests > 0:
            self._cancel_requests -= 1
            if self._cancel_requests == 0:
                self._must_cancel = False
        return self._cancel_requests

    # -- driving the coroutine --------------------------------------------------------------

    def _step(self, error: BaseException | None = None) -> None:
        if self.done():
            raise InvalidStateError(f"step of a finished task: {self!r}")
        if self._must_cancel:
            if not isinstance(error, CancelledError):
                error = (
                    CancelledError()
                    if self._cancel_text is None
                    else CancelledError(self._cancel_text)
                )
            self._must_cancel = False
        self._fut_waiter = None
        loop = self._loop
        loop.stepping = self
        enter_task(loop, self)
        try:
            awaited = self._coro.send(None) if error is None else self._coro.throw(error)
        except StopIteration as stop:
            if self._must_cancel:  # cancelled right before it returned
                self._must_cancel = False
                super().cancel(msg=self._cancel_text)
            else:
                super().set_result(stop.value)
            loop.forget(self)
        except CancelledError as cancelled:
            super().cancel(*cancelled.args[:1])
            loop.forget(self)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            super().set_exception(interrupt)
            loop.forget(self)
            raise
        except BaseException as failure:
            super().set_exception(failure)
            loop.forget(self)
        else:
            self._wait_for(awaited)
        finally:
            leave_task(loop, self)

    def _wait_for(self, awaited: Any) -> None:
        loop = self._loop
        if getattr(awaited, "_asyncio_future_blocking", None):
            if awaited.get_loop() is loop and awaited is not self:
                awaited._asyncio_future_blocking = False
                awaited.add_done_callback(self._wakeup, context=self._context)
                self._fut_waiter = awaited
                if self._must_cancel and awaited.cancel(msg=self._cancel_text):
                    self._must_cancel = False
                return
            awaited._asyncio_future_blocking = False
            problem: BaseException = (
                RuntimeError(f"Task cannot await on itself: {self!r}")
                if awaited is self
                else NondeterministicOperationError(
                    f"a handler awaited {awaited!r}, which belongs to another event loop and is "
                    "not in the journal; do this in a step: await ctx.run('name', function, …)"
                )
            )
        elif awaited is None:  # a bare yield: asyncio.sleep(0)
            loop.call_soon(self._step, context=self._context)
            return
        else:
            problem = NondeterministicOperationError(
                f"a handler awaited {awaited!r}, which is not asyncio's and is not in the "
                "journal; do this in a step: await ctx.run('name', function, …)"
            )
        loop.call_soon(self._step, problem, context=self._context)

    def _wakeup(self, future: Future[Any]) -> None:
        try:
            future.result()
        except BaseException as error:
            self._step(error)
        else:
            self._step()

    def close_coroutine(self) -> str | None:
        """Close the coroutine inside its own context; what it did wrong, or None.

        Closing runs ``finally`` blocks but cannot hang, as cancelling could. A coroutine that
        awaits in its ``finally`` ignores the close; it is closed again a few times.
        """
        complaint = None
        enter_task(self._loop, self)
        try:
            # Innermost first, as closing the outermost would; but there, an inner one that ignores
            # the close ends those around it with a RuntimeError, and is left as garbage.
            for awaitable in reversed(_await_chain(self._coro)):
                complaint = self._close(awaitable) or complaint
        finally:
            leave_task(self._loop, self)
        return complaint

    def _close(self, awaitable: Any) -> str | None:
        complaint = None
        for _ in range(CLOSE_ATTEMPTS_MAX):
            try:
                self._context.run(awaitable.close)
            except RuntimeError as refused:
                if "ignored GeneratorExit" not in str(refused):
                    return f"{type(refused).__name__}: {refused}"
                # A TaskGroup waits for its tasks however it is left: no fault of the user's.
                if not any(_is_group_exit(frame) for frame in await_stack(awaitable)):
                    complaint = f"awaits in its finally while being closed: {where(awaitable)}"
            except (KeyboardInterrupt, SystemExit):
                raise
            except Halted:
                return complaint  # its `finally` asked for something durable: that ends it
            except BaseException as failure:
                return f"{type(failure).__name__}: {failure}"
            else:
                return complaint
        return complaint


def await_stack(awaitable: Any) -> list[FrameType]:
    """Frames from the outermost coroutine to the one that waits, innermost last."""
    return [_frame_and_awaited(each)[0] for each in _await_chain(awaitable)]


def _await_chain(awaitable: Any) -> list[Any]:
    """The coroutines and generators that wait for each other, innermost last."""
    chain: list[Any] = []
    while awaitable is not None:
        frame, following = _frame_and_awaited(awaitable)
        if frame is None:
            break
        chain.append(awaitable)
        awaitable = following
    return chain


def _frame_and_awaited(awaitable: Any) -> tuple[Any, Any]:
    for prefix, link in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaitable, f"{prefix}_frame", None)
        if frame is not None:
            return frame, getattr(awaitable, link, None)
    return None, None


_PLUMBING = ("perdure", "asyncio", "anyio")


def is_plumbing(frame: FrameType) -> bool:
    """Whether *frame* belongs to perdure or an async library rather than to the user."""
    name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _PLUMBING


def _is_group_exit(frame: FrameType) -> bool:
    return is_plumbing(frame) and frame.f_code.co_name in ("__aexit__", "_aexit")


def where(awaitable: Any) -> str:
    """The user's line at which *awaitable* waits: ``file:line in function``."""
    frames = await_stack(awaitable)
    for frame in reversed(frames):
        if not is_plumbing(frame):
            return describe_frame(frame)
    return describe_frame(frames[-1]) if frames else "an unknown place"


def describe_frame(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def is_coroutine(value: object) -> bool:
    """Whether a task can drive *value*; generators decorated by types.coroutine count."""
    return inspect.iscoroutine(value) or (
        inspect.isgenerator(value) and bool(value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    )
