"""Steps as the actions of Restate's runs."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import restate
from restate.exceptions import RetryableError as SdkRetryableError
from restate.serde import BytesSerde

from perdure._runtime._running import RunningStep
from perdure._runtime._steps import StepRunner
from perdure._runtime._threads import StepThreads
from perdure.errors import RetryableError, TerminalError
from perdure.futures import Step
from perdure.restate._values import private_bytes, to_sdk
from perdure.retry import RetryPolicy
from perdure.serde import describe_failure, encode_failure

_PLAIN: Final[restate.RunOptions[bytes]] = restate.RunOptions(serde=BytesSerde())
_CANCELLED = TerminalError("the step was cancelled by its handler", 409)


class _Running(RunningStep):
    """An attempt of a step, with the id that Restate gave its invocation."""

    def __init__(self, invocation_id: str, index: int, step: Step[Any]) -> None:
        super().__init__(b"", index, step)
        self._text_id = invocation_id
        self.ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.in_thread = False  # a thread has begun it

    @property
    def text_id(self) -> str:
        return self._text_id


class BridgeRunner(StepRunner):
    """A runner that knows what threads still run for attempts of invocations that are over.

    A thread can not be stopped. The next attempt waits for it, or the step would run twice at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: StepThreads) -> None:
        super().__init__(loop, threads, _succeeded, _failed)
        self._left: dict[tuple[str, int], asyncio.Future[bytes]] = {}

    def leave(self, running: _Running) -> None:
        """The attempt of the invocation is over, and a thread is in the step."""
        key = running.text_id, running.index
        self._left[key] = running.ended

        def forget(ended: asyncio.Future[bytes]) -> None:
            if not ended.cancelled():
                ended.exception()  # or asyncio says that nobody has looked at it
            self._left.pop(key, None)

        running.ended.add_done_callback(forget)

    async def wait_for_left(self, invocation_id: str, index: int) -> None:
        """Wait until no thread is in the step any more."""
        ended = self._left.get((invocation_id, index))
        if ended is not None:
            await asyncio.wait([ended])

    def _attempt_in_thread(self, running: RunningStep) -> None:
        assert isinstance(running, _Running)
        running.in_thread = True
        super()._attempt_in_thread(running)


class _AttemptFailed(Exception):
    """Restate shows and journals the ``repr`` of what a run raised: it is to be for people."""

    def __repr__(self) -> str:
        return str(self)


def make_runner(threads: StepThreads) -> BridgeRunner:
    """What runs the steps of one event loop, the running one."""
    return BridgeRunner(asyncio.get_running_loop(), threads)


def _succeeded(running: RunningStep, payload: bytes) -> None:
    assert isinstance(running, _Running)
    if not running.ended.done():
        running.ended.set_result(payload)


def _failed(running: RunningStep, error: BaseException) -> None:
    assert isinstance(running, _Running)
    if not running.ended.done():
        # Its own CancelledError, say: here that would mean that this attempt is to end.
        is_ours = isinstance(error, Exception)
        running.ended.set_exception(error if is_ours else _AttemptFailed(describe_failure(error)))


class StepAction:
    """What Restate runs for one step: attempt after attempt, never again once it is cancelled."""

    def __init__(self, runner: BridgeRunner, invocation_id: str, step: Step[Any]) -> None:
        self._runner = runner
        self._invocation_id = invocation_id
        self._step = step
        self._index = step.index
        self._running: _Running | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """The handler needs it no more."""
        self._is_cancelled = True
        running = self._running
        if running is not None:
            running.cancel()
            running.ended.cancel()

    async def attempt(self) -> bytes:
        """Run the function once: its result for Restate's journal, or a failure it knows."""
        await self._runner.wait_for_left(self._invocation_id, self._index)
        if self._is_cancelled:
            raise to_sdk(encode_failure(_CANCELLED))
        running = self._running = _Running(self._invocation_id, self._index, self._step)
        self._runner.start(running)
        try:
            return private_bytes(await asyncio.shield(running.ended))
        except asyncio.CancelledError:
            if self._is_cancelled:
                raise to_sdk(encode_failure(_CANCELLED)) from None
            # The attempt of the invocation is over.
            if running.in_thread and not running.ended.done():
                self._runner.leave(running)
            else:
                running.cancel()
            raise
        except TerminalError as failure:
            raise to_sdk(encode_failure(failure)) from failure
        except RetryableError as failure:
            text = describe_failure(failure)
            raise SdkRetryableError(text, retry_after=failure.retry_after) from failure
        except Exception as failure:
            raise _AttemptFailed(describe_failure(failure)) from failure
        finally:
            self._running = None


def run_options(policy: RetryPolicy | None) -> restate.RunOptions[bytes]:
    """The policy of a step as Restate's; None: that of its invocation."""
    if policy is None:
        return _PLAIN
    options: restate.RunOptions[bytes] = restate.RunOptions(serde=BytesSerde())
    options.max_attempts = policy.max_attempts
    options.max_duration = policy.max_duration  # type: ignore[assignment]
    options.initial_retry_interval = policy.initial  # type: ignore[assignment]
    options.max_retry_interval = policy.max_interval  # type: ignore[assignment]
    options.retry_interval_factor = policy.factor
    return options
