"""Running steps: functions outside the deterministic world, each in a host task or a thread.

The runner starts a function, bounds it by its timeout, and reports how the attempt ended. It
decides nothing about retries and writes nothing: that is the scheduler's.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perdure._runtime._threads import StepThreads
from perdure.errors import NotFound
from perdure.futures import Step

_token: contextvars.ContextVar[tuple[str, int]] = contextvars.ContextVar("perdure_step_token")


def step_token() -> str:
    """A stable id of the step this code runs in, for the outside world's idempotency keys.

    The same step of the same invocation has the same token in every attempt and after every
    crash; no two steps share one. At most 48 characters: letters, digits, ``_`` and ``-``.

    Raises:
      NotFound: The calling code does not run in a step.
    """
    try:
        invocation_id, index = _token.get()
    except LookupError:
        raise NotFound("perdure.step_token() was called outside a step") from None
    return f"{invocation_id}-{index}"


@dataclass(eq=False, slots=True)
class RunningStep:
    """One attempt of a step.

    Attributes:
      invocation_id, index: The operation.
      step: The function, its arguments and its declared type.
      interrupted: It failed because the program is being stopped, or somebody cancelled its task:
        no fault of the step's, so it does not use up its attempts.
    """

    invocation_id: bytes
    text_id: str
    index: int
    step: Step[Any]
    task: asyncio.Task[None] | None = None
    expiry: asyncio.Handle | None = None  # bounds an attempt in a thread
    cancelled: bool = False
    interrupted: bool = False

    def cancel(self) -> None:
        """End the attempt: its task is cancelled, a thread's outcome is dropped."""
        self.cancelled = True
        if self.expiry is not None:
            self.expiry.cancel()
        if self.task is not None:
            self.task.cancel()


Success = Callable[[RunningStep, bytes], None]
"""An attempt ended well, with this encoded value. Not called for cancelled ones."""

Failure = Callable[[RunningStep, BaseException], None]
"""An attempt raised. Not called for cancelled ones."""


class StepRunner:
    """Starts attempts on the host loop and in threads, and reports their ends on the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: StepThreads,
        succeeded: Success,
        failed: Failure,
    ) -> None:
        self._succeeded = succeeded
        self._failed = failed
        self._loop = loop
        self._threads = threads

    def start(self, running: RunningStep) -> None:
        """Begin an attempt."""
        step = running.step
        if step.detail.is_async:
            running.task = self._loop.create_task(self._attempt(running))
        else:
            if step.detail.timeout_s is not None:
                running.expiry = self._loop.call_later(step.detail.timeout_s, self._expire, running)
            context = contextvars.copy_context()
            self._threads.submit(lambda: context.run(self._attempt_in_thread, running))

    async def _attempt(self, running: RunningStep) -> None:
        step = running.step
        _token.set((running.text_id, running.index))
        try:
            if step.detail.timeout_s is None:
                value = await step.detail.function(*step.detail.arguments)
            else:
                async with asyncio.timeout(step.detail.timeout_s):
                    value = await step.detail.function(*step.detail.arguments)
            payload = step.encode(value)
        except BaseException as error:
            self._raised(running, error)
        else:
            if not running.cancelled:
                self._succeeded(running, payload)

    def _raised(self, running: RunningStep, error: BaseException) -> None:
        """An attempt in a task raised; a KeyboardInterrupt goes on to the host."""
        task = running.task
        assert task is not None
        running.interrupted = isinstance(error, KeyboardInterrupt) or (
            isinstance(error, asyncio.CancelledError) and task.cancelling() > 0
        )
        self._ended(running, None, error)
        if isinstance(error, KeyboardInterrupt):
            # Whoever runs the loop gets it; the task need not report it a second time.
            task.add_done_callback(lambda done: done.exception())
            raise error

    def _ended(
        self, running: RunningStep, payload: bytes | None, error: BaseException | None
    ) -> None:
        # What a cancelled attempt still says is dropped: the journal has its cancellation.
        if not running.cancelled:
            if running.expiry is not None:
                running.expiry.cancel()
            if error is not None:
                self._failed(running, error)
            else:
                assert payload is not None
                self._succeeded(running, payload)

    def _expire(self, running: RunningStep) -> None:
        # A thread can not be stopped: its outcome is dropped, and the attempt counts as failed.
        running.cancel()
        self._failed(running, TimeoutError(f"no result within {running.step.detail.timeout_s} s"))

    def _attempt_in_thread(self, running: RunningStep) -> None:
        if running.cancelled:
            return  # while it waited for a thread: started now, it would overtake a compensation
        step = running.step
        _token.set((running.text_id, running.index))
        payload: bytes | None = None
        error: BaseException | None = None
        try:
            value = step.detail.function(*step.detail.arguments)
            if inspect.isawaitable(value):
                # `ctx.run("send", lambda: mailer.send(doc))`: made here, awaited on the loop.
                self._call_on_loop(self._start_awaitable, running, value)
                return
            payload = step.encode(value)
        except BaseException as raised:
            error = raised
        self._call_on_loop(self._ended, running, payload, error)

    def _call_on_loop(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError as closed:
            # The host's loop is gone, and the engine with it: the step will start anew.
            if not self._loop.is_closed():
                raise closed
            for argument in args:
                if inspect.iscoroutine(argument):
                    argument.close()

    def _start_awaitable(self, running: RunningStep, awaitable: Any) -> None:
        if running.cancelled:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            return
        step = running.step

        async def attempt() -> None:
            _token.set((running.text_id, running.index))
            try:
                async with asyncio.timeout(step.detail.timeout_s):
                    payload = step.encode(await awaitable)
            except BaseException as error:
                self._raised(running, error)
            else:
                self._ended(running, payload, None)

        running.task = self._loop.create_task(attempt())
