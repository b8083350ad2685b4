"""Results of invocations: waited for, looked up, decoded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from perdure._handles import Accepted, InvocationHandle
from perdure._ids import InvocationId, format_id
from perdure._runtime._layout import Output
from perdure._runtime._scheduler import Scheduler
from perdure.errors import InvalidInput, NotFound, NotReady
from perdure.serde import Serde, decode_failure, serde_for
from perdure.service import HandlerDefinition

R = TypeVar("R")
T = TypeVar("T")


class Results:
    """Reads results; *scheduler* gives the one of an open engine, or raises.

    Every answer waits for the commit of all that it rests on.
    """

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self._scheduler = scheduler

    async def wait(self, invocation_id: InvocationId) -> Output:
        """The output, once there is one.

        Raises:
          NotFound: There is no such invocation, or its result is not kept any more.
        """
        scheduler = self._scheduler()
        try:
            output = scheduler.output(invocation_id)
        except NotFound:
            await scheduler.answers.committed()
            raise
        if output is not None:
            await scheduler.answers.committed()
            return output
        return await scheduler.answers.result(invocation_id)

    async def now(self, invocation_id: InvocationId) -> Output:
        """The output, if there is one.

        Raises:
          NotReady: There is none yet.
          NotFound: As for :meth:`wait`.
        """
        scheduler = self._scheduler()
        try:
            output = scheduler.output(invocation_id)
        finally:
            await scheduler.answers.committed()
        if output is None:
            raise NotReady(f"{format_id(invocation_id)} exists but has not completed yet")
        return output

    async def look(self, read: Callable[[Scheduler], Awaitable[T]]) -> T:
        """What *read* finds; it reads rows as committed, and others as of now."""
        scheduler = self._scheduler()
        await scheduler.answers.committed()  # what there is by now is committed
        try:
            return await read(scheduler)
        finally:
            await scheduler.answers.committed()

    async def cancel(self, invocation_id: InvocationId) -> bool:
        """Ask an invocation to end; False if it has ended, NotFound without one."""
        scheduler = self._scheduler()
        try:
            if scheduler.output(invocation_id) is not None:
                return False
            return scheduler.interventions.cancel(invocation_id)
        finally:
            await scheduler.answers.committed()

    async def resume(self, invocation_id: InvocationId) -> bool:
        """End a pause; False if there is none, NotFound without an invocation."""
        scheduler = self._scheduler()
        try:
            scheduler.output(invocation_id)
            return scheduler.interventions.resume(invocation_id)
        finally:
            await scheduler.answers.committed()

    def handle(
        self, invocation_id: InvocationId, accepted: Accepted, serde: Serde[R]
    ) -> InvocationHandle[R]:
        """The handle of an invocation whose result is of the type of *serde*."""
        outcome = _Outcome(self, invocation_id, serde)
        return InvocationHandle(format_id(invocation_id), accepted, outcome)

    async def serde_of(self, invocation_id: InvocationId, returns: Any) -> Serde[Any]:
        """The serde of the result: of *returns*, else of the handler's own annotation."""
        if returns is not None:
            return serde_for(returns)
        scheduler = self._scheduler()
        record = scheduler.answers.record(invocation_id)
        if record is None:
            await scheduler.answers.committed()
            raise NotFound(f"there is no invocation {format_id(invocation_id)}")
        if not scheduler.registry.is_registered(record):
            raise InvalidInput(
                f"{record.service}.{record.handler} is not registered here: pass returns="
            )
        return scheduler.registry.handler(record).result_serde

    def serde_of_existing(
        self, invocation_id: bytes, definition: HandlerDefinition, returns: Any
    ) -> Serde[Any]:
        """The serde of the result of what exists already, for who asked for *definition*.

        It may have begun on another version, whose result has a type of its own.
        """
        if returns is not None:
            return serde_for(returns)
        scheduler = self._scheduler()
        record = scheduler.answers.record(invocation_id)
        if record is None or not scheduler.registry.is_registered(record):
            return definition.result_serde
        return scheduler.registry.handler(record).result_serde


class _Outcome(Generic[R]):
    """The result of one invocation of this engine, for its handle."""

    __slots__ = ("_invocation_id", "_results", "_serde")

    def __init__(self, results: Results, invocation_id: InvocationId, serde: Serde[R]) -> None:
        self._results = results
        self._invocation_id = invocation_id
        self._serde = serde

    async def result(self) -> R:
        return decode_output(await self._results.wait(self._invocation_id), self._serde)

    async def output(self) -> R:
        return decode_output(await self._results.now(self._invocation_id), self._serde)

    async def cancel(self) -> bool:
        return await self._results.cancel(self._invocation_id)


def decode_output(output: Output, serde: Serde[R]) -> R:
    """The value, or the failure raised."""
    if output.failed:
        raise decode_failure(output.payload)
    return serde.decode(output.payload, "result")
