"""An invocation in memory."""

from __future__ import annotations

import contextvars
import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure._core._entries import Entry
from perdure._core._machine import Machine
from perdure._core._replay import Sites
from perdure._ids import format_id
from perdure._runtime import _anyio, _gather, _unawaited
from perdure._runtime._layout import Backoff, Record, TimerKey, key_group, unpack_promise
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
from perdure.service import HandlerDefinition, HandlerKind

if TYPE_CHECKING:
    import asyncio

for _patch in (_anyio, _gather, _unawaited):
    _patch.install()  # before the first handler runs

_CONTEXTS: dict[HandlerKind, type[Context]] = {
    HandlerKind.SERVICE: Context,
    HandlerKind.EXCLUSIVE: ObjectContext,
    HandlerKind.SHARED: ObjectSharedContext,
    HandlerKind.RUN: WorkflowContext,
    HandlerKind.WORKFLOW_SHARED: WorkflowSharedContext,
}


class Kept(enum.IntEnum):
    """What stays in the store after an invocation has completed."""

    NOTHING = 0
    OUTPUT = 1
    JOURNAL = 2


class Phase(enum.Enum):
    ADMITTED = "admitted"  # no row of it is written yet
    LOADING = "loading"  # being replayed
    LIVE = "live"


class Delivery(NamedTuple):
    """A notification on its way to a live invocation.

    Attributes:
      entry: The notification.
      arrival: Its place in ``pending``, None if it was never written there.
      timer: The row of ``timers`` that it came from, None if there is none.
    """

    entry: Entry
    arrival: int | None = None
    timer: TimerKey | None = None


@dataclass(eq=False, slots=True)
class Instance:
    """One invocation that is in memory.

    Attributes:
      backlog: What it is still to be told, in arrival order. While LOADING it is empty: the
        store has it all.
      replay_from: Journal index to go on replaying at.
      in_ready: The store, as of the last unit, has its row in ``ready``.
      backoff: The failed attempts before this one; their row stands until an activation succeeds.
      resting_steps: Steps with a back-off row, index to due_ms; while LIVE it mirrors the store.
      last_unit: The unit that holds its newest row.
      chunks: First indexes of its journal chunks, kept only where the journal will be removed.
    """

    id: bytes
    record: Record
    definition: HandlerDefinition
    service: Any
    text_id: str = ""
    group: bytes = b""
    phase: Phase = Phase.LOADING
    machine: Machine = field(init=False)
    backlog: deque[Delivery] = field(default_factory=deque)
    queued: bool = False
    unrested: bool = False  # loaded; the steps a crash or an eviction left undone are not started
    replay_from: int = 0
    in_ready: bool = False
    backoff: Backoff | None = None
    resting_steps: dict[int, int] = field(default_factory=dict)
    last_unit: int = 0
    chunks: list[int] = field(default_factory=list)
    accepted: asyncio.Future[None] | None = None  # who waits for its first unit
    ending: bytes | None = None  # the failure it is to end with, once replayed
    answer: asyncio.Future[Any] | None = None  # who waits for its output, recorded or not

    def __post_init__(self) -> None:
        self.text_id = format_id(self.id)
        self.group = key_group(self.record.service, self.record.key)

    @property
    def kept(self) -> Kept:
        return Kept(self.record.kept)

    def make_machine(
        self,
        store: Store,
        sites: Sites,
        context: contextvars.Context,
        report: Callable[[Instance, dict[str, Any]], None],
    ) -> None:
        """Give it a machine in which nothing has happened yet."""

        async def main(machine: Machine) -> tuple[bytes, bool]:
            return await _run_handler(self, machine)

        self.machine = Machine(
            main,
            reads=_KeyReads(store, self.group),
            sites=sites,
            context=context.copy(),
            report=lambda problem: report(self, problem),
            show=show_payload,
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
