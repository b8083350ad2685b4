"""An invocation in memory.

This module is compiled (see ``_instance.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from perdure._ids import format_id
from perdure._runtime._layout import (
    Backoff,
    Record,
    TimerKey,
    idempotency_target,
    key_group,
    run_target,
)
from perdure.service import HandlerKind

if TYPE_CHECKING:
    import asyncio

    from perdure._core._entries import Entry
    from perdure._core._machine import Machine
    from perdure.service import HandlerDefinition


class Kept(enum.IntEnum):
    """What stays in the store after an invocation has completed."""

    NOTHING = 0
    OUTPUT = 1
    JOURNAL = 2


def kept_of(record: Record) -> Kept:
    """What stays of an invocation with *record*."""
    if record.journal_ms:
        return Kept.JOURNAL
    return Kept.OUTPUT if record.output_ms else Kept.NOTHING


ADMITTED = 0  # no row of it is written yet
LOADING = 1  # being replayed
LIVE = 2


class Delivery:
    """A notification on its way to a live invocation.

    Attributes:
      entry: The notification.
      arrival: Its place in ``pending``, None if it was never written there.
      timer: The row of ``timers`` that it came from, None if there is none.
    """

    __slots__ = ("arrival", "entry", "timer")

    def __init__(
        self, entry: Entry, arrival: int | None = None, timer: TimerKey | None = None
    ) -> None:
        self.entry = entry
        self.arrival = arrival
        self.timer = timer


class Instance:
    """One invocation that is in memory.

    Attributes:
      phase: ADMITTED, LOADING or LIVE.
      definition: Of its handler; None where that is not registered, and it is only to be ended.
      kept: What stays after completion, a :class:`Kept`.
      backlog: What it is still to be told, in arrival order. While LOADING it is empty: the
        store has it all.
      queued: It is in the pump's queue.
      fresh: Admitted, and nobody has been told that it is accepted.
      unrested: Loaded; the steps a crash or an eviction left undone are not started yet.
      replay_from: Journal index to go on replaying at.
      in_ready: The store, as of the last unit, has its row in ``ready``.
      backoff: The failed attempts before this one; their row stands until an activation succeeds.
      resting_steps: Steps with a back-off row, index to due_ms; while LIVE it mirrors the store.
      last_unit: The unit that holds its newest row.
      chunks: First indexes of its journal chunks, kept only where the journal will be removed.
      accepted: Who waits for its first unit.
      answer: Who waits for its output, recorded or not.
      definition: Its handler; None: it is not registered here, and this is made to be ended.
      is_exclusive: It has, or waits for, its key; or may do so.
    """

    __slots__ = (
        "accepted",
        "answer",
        "backlog",
        "backoff",
        "chunks",
        "definition",
        "fresh",
        "group",
        "id",
        "in_ready",
        "is_exclusive",
        "kept",
        "last_unit",
        "machine",
        "phase",
        "queued",
        "record",
        "replay_from",
        "resting_steps",
        "service",
        "unrested",
    )

    machine: Machine

    def __init__(
        self,
        invocation_id: bytes,
        record: Record,
        definition: HandlerDefinition | None,
        service: Any,
        phase: int,
    ) -> None:
        self.id = invocation_id
        self.record = record
        self.kept: int = kept_of(record)
        self.group = key_group(record.service, record.key)
        self.definition: Any = definition
        self.is_exclusive = definition is None or definition.kind is HandlerKind.EXCLUSIVE
        self.service = service
        self.phase = phase
        self.backlog: list[Delivery] = []
        self.queued = False
        self.fresh = False
        self.unrested = False
        self.replay_from = 0
        self.in_ready = False
        self.backoff: Backoff | None = None
        self.resting_steps: dict[int, int] = {}
        self.last_unit = 0
        self.chunks: list[int] = []
        self.accepted: asyncio.Future[None] | None = None
        self.answer: asyncio.Future[Any] | None = None

    @property
    def text_id(self) -> str:
        """The id for people."""
        return format_id(self.id)


def target_of(instance: Instance) -> bytes | None:
    """What *instance* is the one invocation of; None if nothing."""
    record, definition = instance.record, instance.definition
    if definition is not None and definition.kind is HandlerKind.RUN:
        return run_target(record.service, record.key)
    if record.idempotency_key is not None:
        return idempotency_target(
            record.service, record.key, record.handler, record.idempotency_key
        )
    return None
