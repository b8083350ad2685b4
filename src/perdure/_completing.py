"""The verbs that give invocations what they wait for, and keys their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from perdure._binding import bind_key
from perdure._calling import awakeable_is_over
from perdure._declarations import PromiseDeclaration, SignalDeclaration, name_and_serde
from perdure._ids import InvocationId, format_id, parse_awakeable, parse_id
from perdure._limits import check_name
from perdure._opened import Opened
from perdure._promises import complete, find_promise
from perdure._runtime._keyed import encode_state, replace_state
from perdure._runtime._scheduler import Scheduler
from perdure.errors import Conflict, TerminalError
from perdure.futures import failure_of
from perdure.serde import UNTYPED, encode_failure, serde_for

T = TypeVar("T")


class Completing(Opened):
    """Promises, awakeables, signals and state, from outside."""

    @overload
    async def signal(self, invocation_id: str, name: SignalDeclaration[T], value: T) -> None: ...
    @overload
    async def signal(self, invocation_id: str, name: str, value: Any) -> None: ...

    async def signal(
        self, invocation_id: str, name: str | SignalDeclaration[Any], value: Any
    ) -> None:
        """Give an invocation the message *name*; kept for it where it does not wait yet.

        *name* may be a declaration of its class; then *value* is checked against its type.

        Raises:
          Conflict: It has ended.
          InvalidInput: *value* can not be stored, or *name* is another class's.
          NotFound: There is none with this id.
        """
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        service = _service_of(scheduler, raw, name)
        declared, serde = name_and_serde(name, UNTYPED, SignalDeclaration, service)
        check_name(declared, "signal name")
        payload = serde.encode(value, f"value of signal {declared!r}")
        await scheduler.room()
        try:
            if not _is_unfinished(scheduler, raw):
                raise Conflict(f"{format_id(raw)} has completed: it gets no signals any more")
            scheduler.interventions.signal(raw, declared, payload)
        finally:
            await scheduler.answers.committed()

    async def resolve_awakeable(self, awakeable_id: str, value: Any = None) -> None:
        """Complete an awakeable with *value*.

        Raises:
          AlreadyCompleted: It was completed before, or nobody waits for it any more.
          InvalidInput: *awakeable_id* is none, or *value* can not be stored.
        """
        payload = serde_for(UNTYPED).encode(value, f"value of awakeable {awakeable_id}")
        await self._complete_awakeable(awakeable_id, payload, failed=False)

    async def reject_awakeable(
        self, awakeable_id: str, reason: str | TerminalError, code: int = 500
    ) -> None:
        """Fail who waits for an awakeable with ``TerminalError(reason, code)``.

        Raises:
          AlreadyCompleted, InvalidInput: As :meth:`resolve_awakeable`.
        """
        payload = encode_failure(failure_of(reason, code))
        await self._complete_awakeable(awakeable_id, payload, failed=True)

    async def _complete_awakeable(self, awakeable_id: str, payload: bytes, *, failed: bool) -> None:
        scheduler = self._open_scheduler()
        parse_awakeable(awakeable_id)
        await scheduler.room()
        completed = scheduler.interventions.complete_awakeable(awakeable_id, payload, failed)
        await scheduler.answers.committed()
        if not completed:
            raise awakeable_is_over(awakeable_id)

    async def set_state(self, service: type | str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the whole state of a key: names that *state* does not have are cleared.

        Only while no handler may write it: a workflow's ``run`` has not begun or has completed,
        no exclusive handler of an object has the key. Returns when it is durable.

        Args:
          service: The class of a workflow or an object, or its name.
          key: The key.
          state: Values by name, encoded as ``ctx.set`` does; empty: clear all.

        Raises:
          Conflict: An unfinished invocation may write this state.
          InvalidInput: It is no service with keys, *key* is no key, or a name or a value of
            *state* can not be stored.
          NotFound: The service is not registered here.
        """
        scheduler = self._open_scheduler()
        definition, key = bind_key(self._services, service, key)
        rows = encode_state(state)
        await scheduler.room()
        try:
            replace_state(scheduler, definition, key, rows)
        finally:
            await scheduler.answers.committed()

    @overload
    async def resolve(self, promise: PromiseDeclaration[T], value: T, *, key: str) -> None: ...
    @overload
    async def resolve(self, promise: str, value: Any, *, key: str) -> None: ...

    async def resolve(self, promise: Any, value: Any, *, key: str | None = None) -> None:
        """Complete a promise of a workflow's key with *value*, before ``run`` starts or after.

        Args:
          promise: ``Approval.approval``, declared with :func:`perdure.promise`, or the text
            ``"Approval.approval"``.
          value: Checked against the declared type; without a declaration, plain builtins.
          key: Of the workflow.

        Raises:
          AlreadyCompleted: It was resolved or rejected before.
          InvalidInput: *promise* or *key* can be none, or *value* is not of its type.
          NotFound: No such service here.
          StoreBroken, StoreClosed: As for :meth:`call`.
        """
        self._open_scheduler()
        target = find_promise(self._services, promise, key)
        payload = target.serde.encode(value, f"value of promise {target.name!r}")
        await complete(self._open_scheduler(), target, payload, failed=False)

    @overload
    async def reject(
        self,
        promise: PromiseDeclaration[Any],
        reason: str | TerminalError,
        *,
        key: str,
        code: int = 500,
    ) -> None: ...
    @overload
    async def reject(
        self, promise: str, reason: str | TerminalError, *, key: str, code: int = 500
    ) -> None: ...

    async def reject(
        self,
        promise: Any,
        reason: str | TerminalError,
        *,
        key: str | None = None,
        code: int = 500,
    ) -> None:
        """Fail who waits for a promise of a workflow's key with ``TerminalError(reason, code)``.

        Args:
          promise: As for :meth:`resolve`.
          reason: A text, or the error itself, which has a code of its own.
          key: Of the workflow.
          code: An HTTP status.

        Raises:
          AlreadyCompleted: It was resolved or rejected before.
          InvalidInput: *promise*, *reason*, *key* or *code* can be none.
          NotFound, StoreBroken, StoreClosed: As for :meth:`resolve`.
        """
        self._open_scheduler()
        target = find_promise(self._services, promise, key)
        payload = encode_failure(failure_of(reason, code))
        await complete(self._open_scheduler(), target, payload, failed=True)


def _is_unfinished(scheduler: Scheduler, invocation_id: InvocationId) -> bool:
    return scheduler.output(invocation_id) is None


def _service_of(scheduler: Scheduler, invocation_id: InvocationId, name: object) -> type:
    """The class of an invocation's service; of one not served here, that of the declaration."""
    resident = scheduler.residents.by_id.get(invocation_id)
    record = scheduler.answers.record(invocation_id) if resident is None else resident.record
    if record is not None and scheduler.registry.is_registered(record):
        return type(scheduler.registry.handler_and_instance(record)[1])
    return getattr(name, "owner", None) or object
