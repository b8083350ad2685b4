"""Steps under a harness: each is recorded, and its double runs in its place if it has one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from perdure._runtime._running import RunningStep
from perdure._runtime._steps import Failure, StepRunner, Success
from perdure._runtime._steps import _current as current_step
from perdure._runtime._threads import StepThreads
from perdure.errors import InvalidInput
from perdure.testing._behaviours import Action, Fail, Hang, Return
from perdure.testing._faults import DoubleError
from perdure.testing._held_clock import HeldClock
from perdure.testing._step_doubles import Asked


class HarnessRunner(StepRunner):
    """Runs doubles in the host's loop, and knows what is under way.

    Args:
      begin: Records that a step begins, and tells what is to be done.
      deliberate: Gets each error that a double was told to raise.
      changed: Called whenever an attempt has ended.
      clock: Of the test.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: StepThreads,
        succeeded: Success,
        failed: Failure,
        *,
        begin: Callable[[RunningStep], Asked],
        deliberate: Callable[[BaseException], None],
        changed: Callable[[], None],
        clock: HeldClock,
    ) -> None:
        super().__init__(loop, threads, self._has_succeeded, self._has_failed)
        self._tell_success = succeeded
        self._tell_failure = failed
        self._begin = begin
        self._deliberate = deliberate
        self._changed = changed
        self._clock = clock
        self._under_way: set[RunningStep] = set()
        self._hanging: dict[RunningStep, int | None] = {}  # and when their time is over

    def busy(self) -> list[RunningStep]:
        """The attempts that are under way and will end by themselves."""
        # A thread whose step was cancelled runs on, and nobody hears of its end.
        unheard = [each for each in self._under_way if each.cancelled and each.task is None]
        self._under_way.difference_update(unheard)
        return [each for each in self._under_way if each not in self._hanging]

    def next_expiry_ms(self) -> int | None:
        """When the time of a step that hangs is over, of the first one."""
        return min((each for each in self._hanging.values() if each is not None), default=None)

    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks of all attempts that are under way."""
        return {each.task for each in self._under_way if each.task is not None}

    def start(self, running: RunningStep) -> None:
        self._under_way.add(running)
        asked = self._begin(running)
        if asked.action is None:
            super().start(running)
        else:
            running.task = self._task(self._attempt_double(running, asked, asked.action))
        if running.task is not None:
            running.task.add_done_callback(lambda _: self._is_over(running))

    async def _attempt_double(self, running: RunningStep, asked: Asked, action: Action) -> None:
        current_step.set(running)
        try:
            payload = _encode(running.step, await self._act(running, asked, action))
        except BaseException as error:
            self._raised(running, error)
        else:
            self._ended(running, payload, None)

    async def _act(self, running: RunningStep, asked: Asked, action: Action) -> Any:
        if isinstance(action, Hang):
            return await self._hang(running)
        if isinstance(action, Fail):
            error = action.make()
            self._deliberate(error)
            raise error
        assert isinstance(action, Return)
        return await action.make(asked.recorded.args, asked.recorded.kwargs)

    async def _hang(self, running: RunningStep) -> None:
        """Wait for the end of the step's time, by the clock of the test, or for ever."""
        forever = asyncio.get_running_loop().create_future()
        timeout_s = running.step.options.timeout_s
        expiry = None

        def expire() -> None:
            if not forever.done():
                error = TimeoutError(f"no result within {timeout_s} s")
                self._deliberate(error)
                forever.set_exception(error)
                self._hanging.pop(running, None)  # it ends now

        due_ms = None
        if timeout_s is not None:
            due_ms = self._clock.now_ms() + math.ceil(timeout_s * 1000)
            expiry = self._clock.call_at(asyncio.get_running_loop(), due_ms, expire)
        self._hanging[running] = due_ms
        self._changed()
        try:
            await forever
        finally:
            self._hanging.pop(running, None)
            if expiry is not None:
                expiry.cancel()

    def _has_succeeded(self, running: RunningStep, payload: bytes) -> None:
        self._tell_success(running, payload)
        self._is_over(running)

    def _has_failed(self, running: RunningStep, error: BaseException) -> None:
        self._tell_failure(running, error)
        self._is_over(running)

    def _is_over(self, running: RunningStep) -> None:
        self._under_way.discard(running)
        self._changed()


def _encode(step: Any, value: Any) -> bytes:
    """What a double returned, as the step's own result would be journalled."""
    try:
        payload: bytes = step.encode(value)
    except InvalidInput as refusal:
        raise DoubleError(
            f"the double of step {step.name!r} returns what the step can not: {refusal}"
        ) from refusal
    return payload
