"""The context that all handlers have: identity, time, steps, timers and races."""

from __future__ import annotations

import functools
import logging
import math
import random
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple, overload

from perdure._bound import Binder
from perdure._calling import Calling
from perdure._core._entries import Kind
from perdure._core._machine import Machine
from perdure._ids import format_id
from perdure._limits import check_name, seconds_of
from perdure._step_traits import step_traits
from perdure.errors import InvalidInput
from perdure.futures import CompletionOrder, DurableFuture, Step, StepOptions, Timer, wait_first
from perdure.retry import RetryPolicy
from perdure.serde import serde_for

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_logger = logging.getLogger("perdure.handler")

# The options of nearly every step, made once.
_ASYNC, _SYNC = StepOptions(is_async=True), StepOptions(is_async=False)


@dataclass(frozen=True, slots=True)
class Request:
    """How this invocation came to be.

    Attributes:
      headers: As sent by the caller.
      idempotency_key: As sent by the caller, or None.
      attempt: Number of this attempt of the invocation, from 1; a resume begins at 1 again.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    attempt: int = 1


class InvocationLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the invocation id to each record; silent while the handler is being replayed."""

    def __init__(self, machine: Machine, invocation_id: str) -> None:
        super().__init__(_logger, {"invocation_id": invocation_id})
        self._machine = machine

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is LoggerAdapter's
        return not self._machine.replaying and super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        assert self.extra is not None
        kwargs["extra"] = {**self.extra, **(kwargs.get("extra") or {})}
        return f"[{self.extra['invocation_id']}] {msg}", kwargs


class Context(Calling):
    """The context of a service's handler, and what all contexts have.

    Used outside one run of its handler, or with what can not be stored, it raises ``InvalidInput``.
    """

    def __init__(
        self,
        machine: Machine,
        invocation_id: bytes,
        key: str,
        request: Request,
        binder: Binder,
        held: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(invocation_id, binder, held)
        self._machine = machine
        self._key = key
        self._request = request
        self._random: random.Random | None = None
        self._log: InvocationLog | None = None

    @property
    def request(self) -> Request:
        """How this invocation came to be."""
        return self._request

    @property
    def log(self) -> InvocationLog:
        """A logger that names the invocation and is silent while replaying."""
        if self._log is None:
            self._log = InvocationLog(self._machine, self.invocation_id)
        return self._log

    def now(self) -> datetime:
        """The time of the activation this code runs in, in UTC, whole milliseconds.

        It is the same in every replay, and does not advance between two awaits.
        """
        self._machine.check_usable()
        return _from_ms(self._machine.time_ms)

    @property
    def random(self) -> random.Random:
        """A generator seeded with the invocation id: the same numbers in every replay."""
        self._machine.check_usable()
        if self._random is None:
            self._random = random.Random(self._seed())
        return self._random

    def _seed(self) -> str:
        return format_id(self._origin[0] or self._raw_id)

    def uuid4(self) -> uuid.UUID:
        """A random UUID, the same in every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def patched(self, id: str) -> bool:
        """Whether this invocation is to run the code of the change *id*: the new branch of an if.

        True in an invocation that comes here for the first time under code that asks; False in one
        whose journal shows that it came past here under code that did not. The first answer for an
        *id* stands for the whole invocation, in every replay. *id* is 1 to 96 bytes of UTF-8.
        """
        check_name(id, "patch id")
        return self._machine.patched(id)

    # -- steps ------------------------------------------------------------------------------

    @overload
    def run(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: type[T],
    ) -> DurableFuture[T]: ...

    @overload
    def run(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: None = None,
    ) -> DurableFuture[T]: ...

    @overload
    def run(
        self,
        name: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: None = None,
    ) -> DurableFuture[T]: ...

    @overload
    def run(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any,  # such as `int | None`, which no type[T] describes
    ) -> DurableFuture[Any]: ...

    def run(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any = None,
    ) -> DurableFuture[Any]:
        """Run ``fn(*args)`` as a durable step, outside the deterministic world.

        The step starts once this command is durable, awaited or not. Its result or terminal error
        is journalled; once it is, the step never runs again. Until then it may run more than once:
        after a crash it starts anew (:func:`perdure.step_token` names it). It is cancelled, for
        good, when the last who awaits it is cancelled, and when the handler ends before it.

        Args:
          name: What it does, for people and for the journal; 1 to 96 bytes of UTF-8.
          fn: An async function runs on the host's event loop, any other in the engine's threads.
          args: Handed to *fn*; never journalled. Keywords go by ``functools.partial``.
          retry: When to try again. None: as the invocation is retried; exhausted, it is paused.
            Given: exhaustion is journalled and raised as ``TerminalError``.
          timeout: Seconds or timedelta that bound one attempt; in a thread, it runs on unheard.
          returns: Type of the result; wins over the annotation of *fn*. Neither: plain builtins.
        """
        step = self._make_step(name, fn, args, retry, timeout, returns)
        step.issue(sys._getframe(1))
        return step

    def _make_step(
        self,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any = None,
    ) -> Step[Any]:
        """The step that :meth:`run` issues, checked and not issued yet."""
        _check_step_name(name)
        if not callable(fn):
            raise InvalidInput(
                f"step {name!r}: {fn!r} is not callable; pass the function and its arguments: "
                "ctx.run(name, function, argument, …)"
            )
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise InvalidInput(f"step {name!r}: retry= takes a RetryPolicy, not {retry!r}")
        is_async, serde = step_traits(fn)
        if returns is not None:
            serde = serde_for(returns)
        timeout_s = None if timeout is None else seconds_of(timeout, f"timeout of step {name!r}")
        if retry is None and timeout is None:
            options = _ASYNC if is_async else _SYNC
        else:
            options = StepOptions(is_async, retry, timeout_s)
        return Step(self._machine, Kind.RUN, name, serde, fn, args, options)

    # -- timers and races -------------------------------------------------------------------

    def after(self, delay: timedelta | float) -> Timer:
        """A durable timer that completes *delay* (seconds or timedelta) from now, never early.

        *delay* is 0 to 36,500 days, else ``InvalidInput``; rounded up to the millisecond.
        """
        seconds = seconds_of(delay, "delay of a timer")
        # Rounded to the microsecond before it is rounded up to the millisecond (see the loop).
        deadline_ms = self._machine.time_ms + math.ceil(round(seconds * 1_000_000) / 1000)
        timer = Timer(self._machine, deadline_ms)
        timer.issue()
        return timer

    async def sleep(self, delay: timedelta | float) -> None:
        """Wait for *delay* (seconds or timedelta), durably."""
        await self.after(delay)

    async def wait_first(self, *futures: DurableFuture[Any]) -> DurableFuture[Any]:
        """The future that completed first, also among those complete already.

        The others go on. Compare with ``is``; the value is ``await``-ed from the future itself.
        """
        return await wait_first(self._machine, futures)

    def wait(self, *futures: DurableFuture[T]) -> CompletionOrder[T]:
        """Iterate over *futures*, each once, as they complete: ``async for f in …``."""
        return CompletionOrder(self._machine, futures)


# -- small parts ------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _check_step_name(name: str) -> None:
    check_name(name, "step name")


def _from_ms(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(milliseconds=time_ms % 1000)
