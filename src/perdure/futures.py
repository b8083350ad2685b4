"""What a handler waits for: durable futures, promises, timers, and races between them.

A durable future is not an ``asyncio.Future``: cancelling the task that awaits it ends that wait
only, except of a step, which ends with its last waiter. It has the methods that ``asyncio.wait``
needs, and the other combinators of asyncio (``gather``, ``wait_for``, ``shield``,
``as_completed``) wrap it in a task. Type checkers let only an ``asyncio.Future`` into
``asyncio.wait``; ``ctx.wait`` and ``ctx.wait_first`` are typed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast

from perdure._core._entries import Flag, Kind
from perdure._core._operation import Operation
from perdure._core._question import answer_of
from perdure._limits import check_name
from perdure.errors import AlreadyCompleted, InvalidInput, TerminalError
from perdure.serde import Serde, decode_failure, encode_failure

if TYPE_CHECKING:
    from perdure._core._machine import Machine
    from perdure.retry import RetryPolicy

T = TypeVar("T")


class _PendingType(enum.Enum):
    PENDING = "pending"

    def __repr__(self) -> str:
        return "Pending"

    def __bool__(self) -> bool:
        return False


PendingType = Literal[_PendingType.PENDING]
Pending: Final = _PendingType.PENDING
"""What ``peek()`` returns for a promise that is not completed; falsy, and never a value."""


class DurableFuture(Operation, Generic[T]):
    """Something begun durably whose outcome arrives once: a value of type T or a failure."""

    __slots__ = ()

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__}{name} {self.progress()}>"

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, T]: ...

        def result(self) -> T:
            """The value, or the recorded failure raised.

            Raises:
              TerminalError: As recorded.
              asyncio.CancelledError: The operation was cancelled.
              asyncio.InvalidStateError: It has not completed.
            """
            ...

    def _answer(self) -> Any:
        if self.failed:
            raise decode_failure(self.payload or b"")
        if self.payload is None or self._serde is None:
            return None
        return self._serde.decode(self.payload, self)

    def __str__(self) -> str:
        """What it is, as errors about its value name it."""
        return self.name


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is run.

    Attributes:
      is_async: On the host's loop; else in one of the engine's threads.
      retry: Its own policy, or None for that of its invocation.
      timeout_s: Bound of one attempt, or None.
    """

    is_async: bool
    retry: RetryPolicy | None = None
    timeout_s: float | None = None


class Step(DurableFuture[T]):
    """A step: a function run outside the deterministic world, its outcome journalled."""

    __slots__ = ()
    _serde: Serde[T]
    function: Callable[..., Any]
    options: StepOptions

    def __str__(self) -> str:
        return f"result of step {self.name!r}"

    def encode(self, value: T) -> bytes:
        """*value* as it is journalled, checked against the declared type."""
        return self._serde.encode(value, self)


class Timer(DurableFuture[None]):
    """A durable timer. Its deadline was fixed when it was first issued."""

    __slots__ = ()

    def __init__(self, machine: Machine, deadline_ms: int) -> None:
        super().__init__(machine, Kind.TIMER, "", None, time_ms=deadline_ms)


class Call(DurableFuture[T]):
    """A call of another handler: it was begun when it was made, awaited or not.

    Cancelling it asks the called invocation to end. Cancelling who awaits it ends that wait only.
    """

    __slots__ = ("_invocation_id", "_recode")

    def __init__(
        self,
        machine: Machine,
        kind: int,
        name: str,
        serde: Serde[T],
        invocation_id: str,
        recode: Callable[[bytes], bytes] | None = None,
    ) -> None:
        super().__init__(machine, kind, name, serde)
        self._invocation_id = invocation_id
        self._recode = recode

    def __str__(self) -> str:
        return f"result of {self.name}"

    def recode(self) -> Callable[[bytes], bytes] | None:
        return self._recode

    async def invocation_id(self) -> str:
        """Id of the invocation that was called."""
        return self._invocation_id


class Attachment(DurableFuture[T]):
    """The result of an invocation that others began."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"result of {self.name}"


class InvocationRef:
    """An invocation that a handler has sent."""

    __slots__ = ("_invocation_id", "_machine")

    def __init__(self, machine: Machine, invocation_id: str) -> None:
        self._machine = machine
        self._invocation_id = invocation_id

    def __repr__(self) -> str:
        return f"<InvocationRef {self._invocation_id}>"

    async def invocation_id(self) -> str:
        """Its id: for ``ctx.attach``, or to be kept."""
        return self._invocation_id

    def cancel(self) -> None:
        """Ask it to end."""
        self._machine.cancel_invocation(self._invocation_id)


class Awakeable(DurableFuture[T]):
    """An answer that comes by its id, from anywhere, once."""

    __slots__ = ("_id",)

    def __init__(self, machine: Machine, serde: Serde[T], make_id: Callable[[int], str]) -> None:
        super().__init__(machine, Kind.AWAKEABLE, "", serde)
        self.issue()
        self._id = make_id(self.index)
        machine.awakeable_made(self._id)

    def __str__(self) -> str:
        return f"value of awakeable {self._id}"

    @property
    def id(self) -> str:
        """``awk_`` and 32 characters: hand it out in a step, to whoever will answer."""
        return self._id


class Signal(DurableFuture[T]):
    """The next message of one name to this invocation."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"value of signal {self.name!r}"


class DurablePromise(DurableFuture[T]):
    """A promise of the workflow's key, completed once by whoever has the news.

    Awaiting it waits for the completion, however long; it may have come before.
    """

    __slots__ = ()
    _serde: Serde[T]

    def __init__(self, machine: Machine, name: str, serde: Serde[T]) -> None:
        super().__init__(machine, Kind.PROMISE_AWAIT, name, serde)

    def __str__(self) -> str:
        return f"value of promise {self.name!r}"

    async def peek(self) -> T | PendingType:
        """The value if the promise is resolved, :data:`Pending` if it is not completed.

        Raises:
          TerminalError: It was rejected; as recorded.
        """
        entry = await answer_of(self._machine.peek_promise(self.name))
        if entry.payload is None:
            return Pending
        if entry.flags & Flag.FAILED:
            raise decode_failure(entry.payload)
        return self._serde.decode(entry.payload, self)

    async def resolve(self, value: T) -> None:
        """Complete the promise with *value*.

        Raises:
          AlreadyCompleted: It was resolved or rejected before.
          InvalidInput: *value* is not of the promise's type.
        """
        place = str(self)
        serde = self._serde

        def recode(recorded: bytes) -> bytes:
            return serde.encode(serde.decode(recorded, place), place)

        payload = serde.encode(value, place)
        await self._complete(payload, failed=False, recode=recode)

    async def reject(self, reason: str | TerminalError, code: int = 500) -> None:
        """Fail whoever waits for the promise with ``TerminalError(reason, code)``.

        Args:
          reason: A text, or the error itself, which has a code of its own.
          code: An HTTP status.

        Raises:
          AlreadyCompleted: It was resolved or rejected before.
          InvalidInput: *reason* is neither.
        """
        payload = encode_failure(failure_of(reason, code))
        await self._complete(payload, failed=True, recode=None)

    async def _complete(
        self, payload: bytes, *, failed: bool, recode: Callable[[bytes], bytes] | None
    ) -> None:
        machine = self._machine
        asked = machine.complete_promise(self.name, payload, failed=failed, recode=recode)
        if (await answer_of(asked)).flags & Flag.REFUSED:
            raise already_completed(self.name)


def already_completed(name: str) -> AlreadyCompleted:
    """The refusal of a second completion."""
    return AlreadyCompleted(f"promise {name!r} was already completed")


def failure_of(reason: str | TerminalError, code: int) -> TerminalError:
    """The error a rejection with *reason* stands for."""
    if isinstance(reason, TerminalError):
        return reason
    if not isinstance(reason, str):
        raise InvalidInput(
            f"a promise is rejected with a text or a TerminalError, not {type(reason).__name__}"
        )
    if type(code) is not int:
        raise InvalidInput(f"the code of a rejection is an HTTP status, not {code!r}")
    return TerminalError(reason, code)


def durable_promise(machine: Machine, name: str, serde: Serde[T]) -> DurablePromise[T]:
    """The promise *name* of the key that *machine* works for."""
    check_name(name, "promise name")
    return DurablePromise(machine, name, serde)


async def wait_first(
    machine: Machine, futures: tuple[DurableFuture[Any], ...]
) -> DurableFuture[Any]:
    """The one of *futures* that completed first; the others go on."""
    _check_futures(machine, futures, "wait_first")
    done = [future for future in futures if future.done()]  # done() issues each, in order
    if done:
        return min(done, key=lambda future: (future.ordinal, future.index))
    waiter = machine.loop.create_future()
    for future in futures:
        future.watch(waiter)
    try:
        return cast("DurableFuture[Any]", await waiter)
    finally:
        for future in futures:
            future.unwatch(waiter)


class CompletionOrder(Generic[T]):
    """Async iterator over futures in the order in which they complete."""

    def __init__(self, machine: Machine, futures: tuple[DurableFuture[T], ...]) -> None:
        if futures:
            _check_futures(machine, futures, "wait")
        self._machine = machine
        self._left = list(dict.fromkeys(futures))
        for future in self._left:
            future.done()  # issues what has not been

    def __aiter__(self) -> CompletionOrder[T]:
        return self

    async def __anext__(self) -> DurableFuture[T]:
        if not self._left:
            raise StopAsyncIteration
        first = await wait_first(self._machine, tuple(self._left))
        self._left.remove(first)
        return first


def _check_futures(machine: Machine, futures: tuple[Any, ...], verb: str) -> None:
    machine.check_usable()
    if not futures:
        raise InvalidInput(f"{verb}() needs at least one durable future: nothing would complete")
    for future in futures:
        if not isinstance(future, DurableFuture):
            raise InvalidInput(
                f"{verb}() takes durable futures (promises, timers, steps), not {future!r}; for "
                "tasks and coroutines use asyncio.wait"
            )
        if future.get_loop() is not machine.loop:
            raise InvalidInput(f"{verb}() got {future!r} of another invocation")


__all__ = [
    "Awakeable",
    "Call",
    "DurableFuture",
    "DurablePromise",
    "InvocationRef",
    "Pending",
    "PendingType",
    "Timer",
]
