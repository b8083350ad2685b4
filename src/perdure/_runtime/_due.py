"""What happens when timers are due, and what is left alone because it may not run here."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Entry, Kind
from perdure._core._machine import START
from perdure._ids import format_id
from perdure._runtime._instance import LIVE, Delivery
from perdure._runtime._layout import Backoff, TimerKey
from perdure._store import Db
from perdure.errors import InternalError, StoreCorrupt

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

logger = logging.getLogger("perdure")

TIMERS_PER_TURN = 1000


class DueTimers:
    """Fires durable timers and back-offs, in deadline order."""

    def __init__(self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduler = scheduler
        self._loop = loop
        self._blocked: set[bytes] | None = set()  # seen at start; None once the user was told

    def recover(self) -> None:
        """Take up what the directory holds: what is ready, then the timers that are due."""
        scheduler = self._scheduler
        for invocation_id, _ in scheduler.store.scan(Db.READY, b""):
            if self._may_run(invocation_id):
                scheduler.residents.recovering.append(invocation_id)
        # All of them: a call accepted after this comes after them, however many there are.
        self.fire_due(limit=sys.maxsize)

    def fire_due(self, limit: int = TIMERS_PER_TURN) -> None:
        """Let the timers that are due fire, at most *limit* before the host's loop has its turn."""
        scheduler = self._scheduler
        if scheduler.failure is not None or scheduler.draining:
            return
        try:
            due = scheduler.timers.due(scheduler.clock.now_ms(), limit)
            for timer, value in due:
                self._fire(timer, value)
            if len(due) == limit:
                self._loop.call_soon(self.fire_due)
            else:
                scheduler.timers.arm()
                self._warn_of_blocked()
        except BaseException as error:
            scheduler.fail_for(error)

    def _fire(self, timer: TimerKey, value: bytes) -> None:
        scheduler = self._scheduler
        if not self._may_run(timer.invocation_id):
            return  # its row waits for an engine that may
        if not value and timer.operation == 0:
            self._begin_delayed(timer)
        elif not value:
            entry = Entry(Kind.TIMER_FIRED, timer.operation)
            scheduler.pump.deliver(timer.invocation_id, Delivery(entry, timer=timer))
        elif timer.operation == 0:
            scheduler.residents.load(timer.invocation_id, Backoff.unpack(value, key=timer.pack()))
        else:
            self._retry_step(timer.invocation_id, timer.operation)

    def _retry_step(self, invocation_id: bytes, index: int) -> None:
        """The back-off of a step is over."""
        scheduler = self._scheduler
        instance = scheduler.residents.by_id.get(invocation_id)
        if instance is None:
            scheduler.residents.wake(invocation_id)  # loaded, it starts the steps that are due
        elif instance.phase == LIVE:
            operation: Any = instance.machine.outstanding.get(index)
            if operation is not None:
                scheduler.gate.when_committed(scheduler.pump.start_step, instance, operation)
                instance.last_unit = scheduler.store.sealed  # it stays until the step has started

    def _begin_delayed(self, timer: TimerKey) -> None:
        """The delay of a send is over."""
        scheduler = self._scheduler
        instance = scheduler.residents.by_id.get(timer.invocation_id)
        if instance is None:
            record = scheduler.answers.record(timer.invocation_id)
            if record is None:
                raise InternalError("a delayed invocation has no record")
            instance = scheduler.residents.make(timer.invocation_id, record, LIVE)
            instance.backlog.append(Delivery(START))
        has_key = scheduler.ledger.begin_delayed(instance, timer)
        instance.last_unit = scheduler.store.seal()
        if has_key:
            scheduler.pump.enqueue(instance)

    def _may_run(self, invocation_id: bytes) -> bool:
        try:
            record = self._scheduler.answers.record(invocation_id)
        except StoreCorrupt as damage:
            # One damaged record is no reason not to open, or to stop all others.
            logger.error("%s is left alone: %s", format_id(invocation_id), damage)
            return False
        if record is None or self._scheduler.registry.is_registered(record):
            return True  # of a missing one, nothing is to be said: loading it shows so
        if self._blocked is not None:
            self._blocked.add(invocation_id)
        return False

    def _warn_of_blocked(self) -> None:
        """Say once, when all that was due at start has been seen, how many are left alone."""
        if self._blocked:
            logger.warning(
                "%d invocations have something to do, but belong to services, handlers or versions "
                "that are not registered here; they are left alone and go on when an engine has "
                "them",
                len(self._blocked),
            )
        self._blocked = None
