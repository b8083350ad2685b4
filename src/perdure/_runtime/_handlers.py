"""Running a user's handler on a machine, and what it may read of its key."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from perdure._bound import Binder
from perdure._core._machine import Machine
from perdure._core._outgoing import Outgoing
from perdure._core._replay import Sites
from perdure._ids import parse_awakeable
from perdure._runtime import _anyio, _gather, _unawaited
from perdure._runtime._instance import Instance
from perdure._runtime._layout import unpack_promise, unpack_waiter, waiter
from perdure._store import Db, Store
from perdure.context import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    Request,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.errors import Cancelled, TerminalError, terminal_leaf
from perdure.serde import UNTYPED, encode_failure, serde_for
from perdure.service import HandlerDefinition, HandlerKind

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

for _patch in (_anyio, _gather, _unawaited):
    _patch.install()  # before the first handler runs

CONTEXTS: Final[dict[HandlerKind, type[Context]]] = {
    HandlerKind.SERVICE: Context,
    HandlerKind.EXCLUSIVE: ObjectContext,
    HandlerKind.SHARED: ObjectSharedContext,
    HandlerKind.RUN: WorkflowContext,
    HandlerKind.WORKFLOW_SHARED: WorkflowSharedContext,
}


def make_machine(
    instance: Instance,
    *,
    scheduler: Scheduler,
    sites: Sites,
    context: contextvars.Context,
    report: Callable[[Instance, dict[str, Any]], None],
) -> Machine:
    """A machine for *instance* in which nothing has happened yet."""
    guard = scheduler.guard
    make = Machine if guard is None else guard.machine_of(instance)
    return make(
        functools.partial(begin, instance, scheduler.registry.bind),
        reads=_KeyReads(scheduler.store, instance.group, scheduler.existing),
        sites=sites,
        context=context.copy(),
        report=functools.partial(report, instance),
        show=show_payload,
        stage=scheduler.stage,
    )


def begin(
    instance: Instance, binder: Binder, machine: Machine
) -> Coroutine[Any, Any, tuple[bytes, bool]]:
    """The coroutine of the handler of *instance*, with the context it is given."""
    definition, record = instance.definition, instance.record
    assert definition is not None
    attempts = instance.backoff.attempts if instance.backoff else 0
    context = CONTEXTS[definition.kind](
        machine,
        instance.id,
        record.key,
        Request(
            headers=record.headers, idempotency_key=record.idempotency_key, attempt=attempts + 1
        ),
        binder,
        (record.service, record.key) if instance.is_exclusive else None,
    )
    context._service = type(instance.service)
    if record.origin:
        context._origin = unpack_waiter(record.origin)
    return run_handler(definition, instance.service, context, record.argument, machine)


async def run_handler(
    definition: HandlerDefinition,
    service: Any,
    context: Context,
    argument: bytes | None,
    machine: Machine,
) -> tuple[bytes, bool]:
    """Run a handler to its end: its output as the journal has it, and whether it is a failure."""
    target = f"{definition.service}.{definition.name}"
    try:
        if argument is None:
            value = await definition.function(service, context)
        else:
            value = await definition.function(
                service,
                context,
                definition.argument_serde.decode(argument, f"argument of {target}"),
            )
        return definition.result_serde.encode(value, f"result of {target}"), False
    except TerminalError as failure:
        return encode_failure(failure), True
    except asyncio.CancelledError:
        if not machine.cancel_requested:
            raise
        return encode_failure(Cancelled("the invocation was cancelled")), True
    except BaseExceptionGroup as group:
        # A TaskGroup wraps what its tasks raise. Nothing but terminal errors inside: retrying
        # would meet the same recorded failures again.
        leaf = terminal_leaf(group)
        if leaf is None:
            raise
        return encode_failure(leaf), True


class _KeyReads:
    """What a handler may read of its key: the machine's port to the store."""

    def __init__(
        self, store: Store, group: bytes, existing: Callable[[Outgoing], bytes | None]
    ) -> None:
        self.existing = existing
        self._store = store
        self._group = group

    def state(self, name: str) -> bytes | None:
        return self._store.get(Db.STATE, self._group, name.encode())

    def state_names(self) -> list[str]:
        return [suffix.decode() for suffix, _ in self._store.scan(Db.STATE, self._group)]

    def promise(self, name: str) -> tuple[bytes, bool] | None:
        value = self._store.get(Db.PROMISES, self._group, name.encode())
        return None if value is None else unpack_promise(value)

    def awakeable_waits(self, name: str) -> bool:
        return self._store.get(Db.AWAKEABLES, waiter(*parse_awakeable(name)), b"") == b""


def show_payload(payload: bytes) -> str:
    """A payload for people."""
    try:
        return repr(serde_for(UNTYPED).decode(payload, "payload"))
    except Exception:
        return payload.hex()
