"""Tasks of the deterministic loop, the waits they step through, and the queue of what is ready.

A task drives its coroutine itself instead of leaving that to ``asyncio.Task``: it can refuse a
future of another loop by name, is in no global registry, and can be closed on eviction.

This module is compiled (see ``_task.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import contextvars
from asyncio import AbstractEventLoop, CancelledError, Future, Handle
from asyncio import _enter_task as enter_task
from asyncio import _leave_task as leave_task
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from perdure._core._closing import close_coroutine
from perdure._core._frames import await_stack, describe_frame
from perdure._core._future import CANCELLED, FINISHED, PENDING, LoopFuture
from perdure.errors import NondeterministicOperationError

if TYPE_CHECKING:
    from perdure._core._operation import Operation

PATIENT_AFTER = 1_000
"""Callbacks of one activation after which anyio's redeliveries wait for the next activation.

A cancelled scope of anyio cancels its tasks again in each cycle of the loop until they have left
it. While one waits for something durable all the same, such as the clean-up of a child, that would
go on for ever, and the activation would never end.
"""


class ReadyQueue:
    """What is ready to run on one loop, first in, first out, and the numbers it has given out.

    Attributes:
      items: Tasks to step and handles to run.
      tasks: Unfinished tasks by number, so in creation order.
      number: Of futures, tasks and operations made so far.
      stopped: Nothing runs until a question is answered.
    """

    __slots__ = ("_redeliveries", "items", "number", "stopped", "tasks")

    def __init__(self) -> None:
        self.items: deque[LoopTask | Handle] = deque()
        self.tasks: dict[int, LoopTask] = {}
        self.number = 0
        self.stopped = False
        self._redeliveries: list[Handle] = []  # of cancellations, for the next activation

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def halt(self) -> None:
        """Drop what is ready: the invocation can not go on."""
        self.items.clear()
        self._redeliveries.clear()

    def run(self, limit: int, report: Callable[[dict[str, Any]], None]) -> bool:
        """Run what is ready until nothing is; False if *limit* callbacks were not enough.

        It stops earlier where :attr:`stopped` says so.
        """
        items = self.items
        if self._redeliveries:
            items.extend(self._redeliveries)
            self._redeliveries.clear()
        done = 0
        while items and not self.stopped:
            if done == limit:
                return False
            item: Any = items.popleft()
            try:
                if type(item) is LoopTask:
                    item._context.run(item.step)
                elif item._cancelled:
                    continue
                elif done >= PATIENT_AFTER and _redelivers(item):
                    self._redeliveries.append(item)
                    continue
                else:
                    item._context.run(item._callback, *item._args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                report({"message": f"Exception in callback {item!r}", "exception": error})
            done += 1
        return True


def _redelivers(handle: Any) -> bool:
    """Whether *handle* is a cancelled scope of anyio that cancels its tasks once more."""
    callback = handle._callback
    return (
        getattr(callback, "__name__", "") == "_deliver_cancellation"
        and getattr(callback, "__module__", "") == "anyio._backends._asyncio"
    )


class Wait(LoopFuture):
    """One wait for an operation, and the iterator that ``await operation`` runs.

    It is a future of its own, so cancelling it ends this wait and leaves the operation alone. The
    task that waits is stepped directly; others may still add callbacks, as to any future.
    """

    __slots__ = ("_begun", "_operation", "_task")

    def __init__(
        self, loop: AbstractEventLoop, number: int, operation: Operation, finished: bool
    ) -> None:
        LoopFuture.__init__(self, loop, number)
        self._operation = operation
        self._task: LoopTask | None = None
        self._begun = finished
        if finished:
            self._state = FINISHED

    def __iter__(self) -> Any:
        return self

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Any:
        if not self._begun:
            self._begun = True
            self._asyncio_future_blocking = True
            return self
        if self._state == PENDING:
            raise RuntimeError("a task was resumed before what it awaits was done")
        raise StopIteration(self._operation.result())

    def send(self, value: Any) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        if isinstance(error, type):
            error = error() if value is None else value
        if isinstance(error, CancelledError):
            self._operation.wait_cancelled(self)
        raise error

    def close(self) -> None:
        """Eviction: the operation goes on."""

    def _end(self, state: int) -> None:
        task = self._task
        if task is not None:
            self._task = None
            if state == CANCELLED:
                task._error = self._make_cancelled_error()
            task._queue.items.append(task)
        LoopFuture._end(self, state)


class LoopTask(LoopFuture):
    """A task of the deterministic loop; the part of ``asyncio.Task`` that code relies on."""

    __slots__ = (
        "_cancel_requests",
        "_cancel_text",
        "_context",
        "_coro",
        "_error",
        "_fut_waiter",
        "_must_cancel",
        "_name",
        "_queue",
    )

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
        loop: AbstractEventLoop,
        queue: ReadyQueue,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        LoopFuture.__init__(self, loop, queue.next_number())
        self._coro = coro
        self._queue = queue
        self._name = name
        self._context = contextvars.copy_context() if context is None else context
        self._fut_waiter: LoopFuture | Future[Any] | None = None
        self._error: BaseException | None = None  # to be thrown at the next step
        self._must_cancel = False
        self._cancel_requests = 0
        self._cancel_text: Any = None
        queue.tasks[self._number] = self
        queue.items.append(self)

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
        if self._state != PENDING:
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

    def step(self) -> None:
        """Run the coroutine until it waits; only for the queue, in the task's context."""
        error = self._error
        self._error = None
        if self._must_cancel:
            self._must_cancel = False
            if not isinstance(error, CancelledError):
                text = self._cancel_text
                error = CancelledError() if text is None else CancelledError(text)
        self._fut_waiter = None
        loop = self._loop
        enter_task(loop, self)  # type: ignore[arg-type]
        try:
            awaited = self._coro.send(None) if error is None else self._coro.throw(error)
        except StopIteration as stop:
            self._finished()
            if self._must_cancel:  # cancelled right before it returned
                self._must_cancel = False
                self._cancel_message = self._cancel_text
                self._end(CANCELLED)
            else:
                self._result = stop.value
                self._end(FINISHED)
        except CancelledError as cancelled:
            self._finished()
            self._cancel_message = cancelled.args[0] if cancelled.args else None
            self._end(CANCELLED)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self._finished()
            self._fail(interrupt)
            raise
        except BaseException as failure:
            self._finished()
            self._fail(failure)
        else:
            self._wait_for(awaited)
        finally:
            leave_task(loop, self)  # type: ignore[arg-type]

    def _finished(self) -> None:
        self._queue.tasks.pop(self._number, None)

    def _wait_for(self, awaited: Any) -> None:
        if type(awaited) is Wait and awaited._loop is self._loop:
            wait: Wait = awaited
            wait._asyncio_future_blocking = False
            wait._task = self
            self._fut_waiter = wait
            if self._must_cancel and wait.cancel(self._cancel_text):
                self._must_cancel = False
        elif awaited is None:  # a bare yield: asyncio.sleep(0)
            self._queue.items.append(self)
        elif getattr(awaited, "_asyncio_future_blocking", None):
            awaited._asyncio_future_blocking = False
            if awaited.get_loop() is self._loop and awaited is not self:
                awaited.add_done_callback(self.wakeup, context=self._context)
                self._fut_waiter = awaited
                if self._must_cancel and awaited.cancel(msg=self._cancel_text):
                    self._must_cancel = False
            elif awaited is self:
                self._refuse(RuntimeError(f"Task cannot await on itself: {self!r}"))
            else:
                self._refuse(_foreign(awaited, "belongs to another event loop"))
        else:
            self._refuse(_foreign(awaited, "is not asyncio's"))

    def _refuse(self, problem: BaseException) -> None:
        self._error = problem
        self._queue.items.append(self)

    def wakeup(self, future: Future[Any]) -> None:
        """What is awaited is done: a callback, so in the task's context already."""
        try:
            future.result()
        except BaseException as error:
            self._error = error
        self.step()

    def close_coroutine(self) -> list[str]:
        """Close the coroutine, inside its own context, as the current task; complaints."""
        complaints = self.closing(close_coroutine, self._coro)
        self._fut_waiter = None  # which has this task among its callbacks: a circle
        return complaints

    def closing(self, close: Callable[..., list[str]], target: object) -> list[str]:
        """Have *close* called with *target* as if this task ran it."""
        enter_task(self._loop, self)  # type: ignore[arg-type]
        try:
            return close(target, self._context.run)
        finally:
            leave_task(self._loop, self)  # type: ignore[arg-type]


def _foreign(awaited: object, why: str) -> NondeterministicOperationError:
    return NondeterministicOperationError(
        f"a handler awaited {awaited!r}, which {why} and is not in the journal; do this in a "
        "step: use ctx.run('name', function, …)"
    )
