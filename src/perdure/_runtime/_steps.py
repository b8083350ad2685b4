"""Running steps: functions outside the deterministic world, each in a host task or a thread.

The runner starts a function, bounds it by its timeout, and reports how the attempt ended. It
decides nothing about retries and writes nothing: that is the scheduler's.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from perdure._runtime._running import RunningStep
from perdure._runtime._threads import StepThreads
from perdure.errors import NotFound

_current: contextvars.ContextVar[RunningStep] = contextvars.ContextVar("perdure_step")


def step_token() -> str:
    """A stable id of the step this code runs in, for the outside world's idempotency keys.

    The same step of the same invocation has the same token in every attempt and after every
    crash; no two steps share one. At most 48 characters: letters, digits, ``_`` and ``-``.

    Raises:
      NotFound: The calling code does not run in a step.
    """
    try:
        running = _current.get()
    except LookupError:
        raise NotFound("perdure.step_token() was called outside a step") from None
    return f"{running.text_id}-{running.index}"


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
        # Of whoever opened the engine: a step must not have the variables of whoever woke the pump.
        self._context = contextvars.copy_context()

    def close(self) -> None:
        """Start nothing more in threads; waits for none of them."""
        self._threads.close()

    def start(self, running: RunningStep) -> None:
        """Begin an attempt."""
        step = running.step
        if step.options.is_async:
            running.task = self._task(self._attempt(running))
        else:
            if step.options.timeout_s is not None:
                running.expiry = self._loop.call_later(
                    step.options.timeout_s, self._expire, running
                )
            context = self._context.copy()
            self._threads.submit(lambda: context.run(self._attempt_in_thread, running))

    def _task(self, attempt: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not by the loop's factory: an eager one would run the step before it counts as running.
        return asyncio.Task(attempt, loop=self._loop, context=self._context.copy())

    async def _attempt(self, running: RunningStep) -> None:
        step = running.step
        options = step.options
        _current.set(running)
        try:
            if options.timeout_s is None:
                value = await step.function(*step.arguments)
            else:
                async with asyncio.timeout(options.timeout_s):
                    value = await step.function(*step.arguments)
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
        if running.cancelled:
            return  # by its handler, and the commit that stops it is on its way
        # A thread can not be stopped: its outcome is dropped, and the attempt counts as failed.
        running.cancel()
        self._failed(running, TimeoutError(f"no result within {running.step.options.timeout_s} s"))

    def _attempt_in_thread(self, running: RunningStep) -> None:
        if running.cancelled:
            return  # while it waited for a thread: started now, it would overtake a compensation
        step = running.step
        _current.set(running)
        payload: bytes | None = None
        error: BaseException | None = None
        try:
            value = step.function(*step.arguments)
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
            _current.set(running)
            try:
                async with asyncio.timeout(step.options.timeout_s):
                    payload = step.encode(await awaitable)
            except BaseException as error:
                self._raised(running, error)
            else:
                self._ended(running, payload, None)

        running.task = self._task(attempt())
