"""The verbs that give invocations what they wait for, and keys their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure import _verbs
from perdure._binding import bind_key
from perdure._calling import awakeable_is_over
from perdure._declarations import SignalDeclaration, name_and_serde
from perdure._ids import InvocationId, format_id, parse_awakeable, parse_id
from perdure._limits import check_name
from perdure._opened import Opened
from perdure._promises import complete, find_promise
from perdure._runtime._keyed import encode_state, replace_state
from perdure._runtime._scheduler import Scheduler
from perdure.errors import Conflict, TerminalError
from perdure.futures import failure_of
from perdure.serde import UNTYPED, Serde, encode_failure, serde_for
from perdure.service import definition_of


class Completing(_verbs.Completing, Opened):
    """Promises, awakeables, signals and state, from outside."""

    async def _signal(
        self, invocation_id: str, name: str | SignalDeclaration[Any], value: Any
    ) -> None:
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

    def _signal_serde(self, invocation_id: str, name: str) -> Serde[Any]:
        """The serde of the signal *name* as the class of an invocation declares it."""
        service = _service_of(self._open_scheduler(), parse_id(invocation_id), name)
        declared = {} if service is object else definition_of(service).declarations
        for each in declared.values():
            if isinstance(each, SignalDeclaration) and each.name == name:
                return each.serde
        return serde_for(UNTYPED)

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

    async def _resolve(self, promise: Any, value: Any, key: str | None) -> None:
        self._open_scheduler()
        target = find_promise(self._services, promise, key)
        payload = target.serde.encode(value, f"value of promise {target.name!r}")
        await complete(self._open_scheduler(), target, payload, failed=False)

    async def _reject(
        self, promise: Any, reason: str | TerminalError, key: str | None, code: int
    ) -> None:
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
