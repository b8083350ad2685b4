"""Running a user's handler on a machine, and what it may read of its key."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any

from perdure._core._loop import Stage
from perdure._core._machine import Machine
from perdure._core._replay import Sites
from perdure._runtime import _anyio, _gather, _unawaited
from perdure._runtime._instance import Instance
from perdure._runtime._layout import unpack_promise
from perdure._store import Db, Store
from perdure.context import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    Request,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.errors import TerminalError
from perdure.serde import UNTYPED, encode_failure, serde_for
from perdure.service import HandlerKind

for _patch in (_anyio, _gather, _unawaited):
    _patch.install()  # before the first handler runs

_CONTEXTS: dict[HandlerKind, type[Context]] = {
    HandlerKind.SERVICE: Context,
    HandlerKind.EXCLUSIVE: ObjectContext,
    HandlerKind.SHARED: ObjectSharedContext,
    HandlerKind.RUN: WorkflowContext,
    HandlerKind.WORKFLOW_SHARED: WorkflowSharedContext,
}


def make_machine(
    instance: Instance,
    *,
    store: Store,
    sites: Sites,
    context: contextvars.Context,
    report: Callable[[Instance, dict[str, Any]], None],
    stage: Stage,
) -> Machine:
    """A machine for *instance* in which nothing has happened yet."""
    return Machine(
        functools.partial(_run_handler, instance),
        reads=_KeyReads(store, instance.group),
        sites=sites,
        context=context.copy(),
        report=functools.partial(report, instance),
        show=show_payload,
        stage=stage,
    )


async def _run_handler(instance: Instance, machine: Machine) -> tuple[bytes, bool]:
    definition = instance.definition
    record = instance.record
    attempts = instance.backoff.attempts if instance.backoff else 0
    context = _CONTEXTS[definition.kind](
        machine,
        instance.text_id,
        record.key,
        Request(headers=record.headers, attempt=attempts + 1),
    )
    context._service = type(instance.service)
    target = f"{record.service}.{record.handler}"
    try:
        if record.argument is None:
            value = await definition.function(instance.service, context)
        else:
            argument = definition.argument_serde.decode(record.argument, f"argument of {target}")
            value = await definition.function(instance.service, context, argument)
        return definition.result_serde.encode(value, f"result of {target}"), False
    except TerminalError as failure:
        return encode_failure(failure), True
    except BaseExceptionGroup as group:
        # A TaskGroup wraps what its tasks raise. Nothing but terminal errors inside: retrying
        # would meet the same recorded failures again.
        leaf = _terminal_leaf(group)
        if leaf is None:
            raise
        return encode_failure(leaf), True


def _terminal_leaf(group: BaseExceptionGroup[Any]) -> TerminalError | None:
    first: TerminalError | None = None
    for error in group.exceptions:
        found = _terminal_leaf(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(found, TerminalError):
            return None
        first = first or found
    return first


class _KeyReads:
    """What a handler may read of its key: the machine's port to the store."""

    def __init__(self, store: Store, group: bytes) -> None:
        self._store = store
        self._group = group

    def state(self, name: str) -> bytes | None:
        return self._store.get(Db.STATE, self._group, name.encode())

    def state_names(self) -> list[str]:
        return [suffix.decode() for suffix, _ in self._store.scan(Db.STATE, self._group)]

    def promise(self, name: str) -> tuple[bytes, bool] | None:
        value = self._store.get(Db.PROMISES, self._group, name.encode())
        return None if value is None else unpack_promise(value)


def show_payload(payload: bytes) -> str:
    """A payload for people."""
    try:
        return repr(serde_for(UNTYPED).decode(payload, "payload"))
    except Exception:
        return payload.hex()
