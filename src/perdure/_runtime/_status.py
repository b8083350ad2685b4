"""Where an invocation stands, and which of its attempts failed last."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from perdure._runtime._layout import Backoff, Record, TimerKey, key_group
from perdure._store import Db

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler


class Status(enum.StrEnum):
    """Where an invocation stands."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    SUSPENDED = "suspended"
    BACKING_OFF = "backing-off"
    PAUSED = "paused"
    BLOCKED = "blocked"
    COMPLETED = "completed"


def status_of(scheduler: Scheduler, invocation_id: bytes, record: Record) -> Status:
    """Where the invocation with *record* stands now."""
    store = scheduler.store
    if store.get(Db.OUTPUTS, invocation_id, b"") is not None:
        return Status.COMPLETED
    if store.get(Db.PAUSED, invocation_id, b"") is not None:
        return Status.PAUSED
    if not scheduler.registry.is_registered(record):
        return Status.BLOCKED
    if _is_scheduled(scheduler, invocation_id, record):
        return Status.SCHEDULED
    if _waits_for_its_key(scheduler, invocation_id, record):
        return Status.PENDING
    if scheduler.ledger.is_held(invocation_id):
        return Status.BACKING_OFF
    if scheduler.running.any_of(invocation_id):
        return Status.RUNNING
    if store.get(Db.READY, invocation_id, b"") is not None:
        return Status.READY
    if scheduler.ledger.backoffs.resting_steps(invocation_id):
        return Status.BACKING_OFF
    return Status.SUSPENDED


def unbegun_status(scheduler: Scheduler, invocation_id: bytes, record: Record) -> Status | None:
    """What keeps it from beginning, whether it is registered here or not; None: nothing does."""
    if _is_scheduled(scheduler, invocation_id, record):
        return Status.SCHEDULED
    group = key_group(record.service, record.key)
    return Status.PENDING if scheduler.ledger.inboxes.waits(group, invocation_id) else None


def _is_scheduled(scheduler: Scheduler, invocation_id: bytes, record: Record) -> bool:
    """Whether it was sent with a delay that is not over."""
    if not record.due_ms:
        return False
    start = TimerKey(record.due_ms, invocation_id, 0)
    return scheduler.store.get(Db.TIMERS, b"", start.pack()) == b""


def _waits_for_its_key(scheduler: Scheduler, invocation_id: bytes, record: Record) -> bool:
    """Whether another invocation has the key that it needs."""
    if not scheduler.registry.takes_turns(invocation_id, record):
        return False
    holder = scheduler.ledger.inboxes.holder(key_group(record.service, record.key))
    return holder not in (None, invocation_id)


def last_backoff(scheduler: Scheduler, invocation_id: bytes) -> Backoff | None:
    """The failed attempts of the invocation, else of one of its steps; None where none failed."""
    paused = scheduler.store.get(Db.PAUSED, invocation_id, b"")
    if paused is not None:
        return Backoff.unpack(paused, "paused", invocation_id)
    backoffs = scheduler.ledger.backoffs
    for index in (0, *backoffs.resting_steps(invocation_id)):
        backoff = backoffs.get(invocation_id, index)
        if backoff is not None:
            return backoff
    return None
