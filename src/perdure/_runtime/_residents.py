"""The invocations in memory: making, loading by replay, evicting."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Entry, Kind
from perdure._core._machine import START, State
from perdure._ids import format_id
from perdure._runtime._handlers import make_machine
from perdure._runtime._instance import ADMITTED, LIVE, LOADING, Delivery, Instance, Kept
from perdure._runtime._layout import Backoff, Output, Record, TimerKey
from perdure._runtime._outstanding import Outstanding, outstanding_in
from perdure._runtime._pump import cancel_running
from perdure._store import Db
from perdure.errors import Cancelled, StoreCorrupt
from perdure.serde import encode_failure

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler
    from perdure._runtime._sites import SiteTable

logger = logging.getLogger("perdure")

SLICE_S = 0.005
"""Replay of one invocation lets others have their turn after this long."""

CHUNKS_PER_LOOK = 64
"""Chunks replayed between two looks at the clock: a short journal is replayed in one go."""


class Residents:
    """Owner of the instances; the least recently used are evicted beyond *max_resident*.

    Attributes:
      by_id: All of them, the least recently used first.
      ending: Ids of those to be killed, which wait for their journal to commit.
      recovering: Ids found in ``ready`` at start that are not loaded yet.
    """

    def __init__(self, scheduler: Scheduler, sites: SiteTable, max_resident: int) -> None:
        self.by_id: OrderedDict[bytes, Instance] = OrderedDict()
        self.recovering: deque[bytes] = deque()
        self._scheduler = scheduler
        self._sites = sites
        self._max_resident = max_resident
        self._context = contextvars.copy_context()
        self.ending: set[bytes] = set()
        self._dropped: dict[bytes, int] = {}  # evicted by failure: its last unit, not yet committed

    def make(self, invocation_id: bytes, record: Record, phase: int) -> Instance:
        """Put an invocation into memory; nothing has happened in it yet."""
        scheduler = self._scheduler
        definition, target = scheduler.registry.handler_and_instance(record)
        instance = Instance(invocation_id, record, definition, target, phase)
        instance.machine = make_machine(
            instance,
            scheduler=scheduler,
            sites=self._sites,
            context=self._context,
            report=_report_loop_problem,
        )
        self.by_id[invocation_id] = instance
        return instance

    # -- loading ----------------------------------------------------------------------------

    def recover_one(self) -> bool:
        """Load the next of those that were ready at start; False if none is left."""
        scheduler = self._scheduler
        while self.recovering and not scheduler.draining:
            invocation_id = self.recovering.popleft()
            if scheduler.store.get(Db.READY, invocation_id, b"") is not None:
                self.wake(invocation_id)
                if scheduler.pump.queue:
                    return True
        return False

    def wake(self, invocation_id: bytes) -> None:
        """Have an invocation that has something to do go on, loading it if need be."""
        instance = self.by_id.get(invocation_id)
        if instance is not None:
            if instance.backlog or instance.phase == LOADING:
                self._scheduler.pump.enqueue(instance)
            return
        if self._scheduler.ledger.is_held(invocation_id):
            return
        self.load(invocation_id, None)

    def load(self, invocation_id: bytes, backoff: Backoff | None) -> None:
        """Bring an evicted invocation back; *backoff*: the failed attempts before this one."""
        scheduler = self._scheduler
        unit = self._dropped.get(invocation_id, 0)
        if unit > scheduler.store.committed:
            # Its journal is read from the store, which must have all of it.
            scheduler.gate.hold(unit, self.load, invocation_id, backoff)
            return
        if invocation_id in self.by_id:
            return
        try:
            record = scheduler.answers.record(invocation_id)
        except StoreCorrupt as damage:
            # One damaged record is no reason to stop all others. It stays ready.
            logger.error("%s is left alone: %s", format_id(invocation_id), damage)
            return
        if record is None or not scheduler.registry.is_registered(record):
            return  # completed meanwhile, or blocked: left alone
        if scheduler.store.get(Db.PAUSED, invocation_id, b"") is not None:
            return  # paused while this waited for a commit
        if scheduler.store.get(Db.OUTPUTS, invocation_id, b"") is not None:
            return  # completed: its journal may be gone, and replayed, it would run again
        instance = self.make(invocation_id, record, LOADING)
        instance.in_ready = scheduler.store.get(Db.READY, invocation_id, b"") is not None
        instance.backoff = backoff
        scheduler.pump.enqueue(instance)

    def replay_slice(self, instance: Instance) -> bool:
        """Replay some of the journal; True when all of it is replayed."""
        scheduler = self._scheduler
        machine = instance.machine
        deadline = scheduler.ticks() + SLICE_S
        replayed = 0
        try:
            while page := scheduler.store.journal(instance.id, instance.replay_from, Entry):
                for first_index, entries in page:
                    machine.replay(entries)
                    instance.replay_from = first_index + len(entries)
                    if instance.kept < Kept.JOURNAL:
                        instance.chunks.append(first_index)
                    replayed += 1
                    if replayed % CHUNKS_PER_LOOK == 0 and scheduler.ticks() > deadline:
                        scheduler.pump.enqueue(instance)
                        return False
        except (KeyboardInterrupt, SystemExit) as interrupt:
            scheduler.pump.interrupt = interrupt
            self.drop(instance)
            scheduler.pump.wake()
            raise
        except BaseException as error:
            scheduler.failures.attempt_failed(instance, None, error)
            return False
        instance.phase = LIVE
        instance.unrested = True
        instance.resting_steps = scheduler.ledger.backoffs.resting_steps(instance.id)
        instance.backlog.extend(scheduler.ledger.pending(instance.id))
        if machine.state is State.NEW:
            backlog = instance.backlog
            if not backlog or backlog[0].entry.kind != Kind.CANCELLED:
                backlog.insert(0, Delivery(START))
        return True

    def rest(self, instance: Instance) -> None:
        """Nothing is left to deliver: start the steps that a crash or an eviction left undone."""
        scheduler = self._scheduler
        if instance.backoff is not None or scheduler.ledger.is_ready_in_vain(instance):
            # Its attempt replayed to the end without a notification to deliver: it has recovered,
            # or was resumed with nothing to do.
            scheduler.ledger.recovered(instance)
            instance.last_unit = scheduler.store.seal()
        instance.unrested = False
        now_ms = scheduler.clock.now_ms()
        for operation in list(instance.machine.outstanding.values()):
            if operation.kind != Kind.RUN or scheduler.running.has(instance.id, operation.index):
                continue
            due_ms = instance.resting_steps.get(operation.index, 0)
            if now_ms < due_ms <= scheduler.timers.taken_ms:
                # The clock was set back after its time had come: it comes once more.
                scheduler.timers.watch(TimerKey(due_ms, instance.id, operation.index))
            elif due_ms <= now_ms:
                scheduler.gate.when_committed(scheduler.pump.start_step, instance, operation)
                instance.last_unit = scheduler.store.sealed  # it stays until the step has started

    # -- ending -----------------------------------------------------------------------------

    def end(self, invocation_id: bytes, failure: bytes) -> None:
        """End an unfinished invocation with *failure* for who waits, without running it.

        What it waits for is read off its journal: its handler may be what fails. What it has called
        and waits for ends with it, and so on.

        Raises:
          StoreCorrupt: The journal of one can not be read; that one stays, all others have ended.
        """
        damage: StoreCorrupt | None = None
        ended = [invocation_id]
        while ended:  # no recursion: who calls whom may be a long chain
            try:
                ended += self._end_one(ended.pop(), failure)
            except StoreCorrupt as error:
                damage = damage or error
        if damage is not None:
            raise damage

    def end_if_readable(self, invocation_id: bytes, failure: bytes) -> None:
        """The same where nobody is there to be told of a damaged journal: it is logged."""
        try:
            self.end(invocation_id, failure)
        except StoreCorrupt as damage:
            # One damaged journal is no reason to stop all others.
            logger.error("%s can not be ended: %s", format_id(invocation_id), damage)

    def _end_one(self, invocation_id: bytes, failure: bytes) -> list[bytes]:
        """End one of them; those that are to end with it."""
        scheduler = self._scheduler
        resident = self.by_id.get(invocation_id)
        if resident is not None:
            self.drop(resident)
        unit = self._dropped.get(invocation_id, 0)
        if unit > scheduler.store.committed:
            self.ending.add(invocation_id)
            scheduler.gate.hold(unit, self.end_if_readable, invocation_id, failure)
            return []
        self.ending.discard(invocation_id)
        record = scheduler.answers.record(invocation_id)
        if record is None or scheduler.store.get(Db.OUTPUTS, invocation_id, b"") is not None:
            return []  # completed meanwhile
        known = scheduler.registry.is_registered(record)
        definition = scheduler.registry.handler(record) if known else None
        instance = Instance(invocation_id, record, definition, None, LIVE)
        instance.in_ready = scheduler.store.get(Db.READY, invocation_id, b"") is not None
        rows: list[tuple[int, Entry]] = []
        while page := scheduler.store.journal(invocation_id, instance.replay_from, Entry):
            for first_index, entries in page:
                rows += enumerate(entries, first_index)
                instance.chunks.append(first_index)
                instance.replay_from = first_index + len(entries)
        outstanding = outstanding_in(invocation_id, rows)
        self._end(instance, outstanding, failure)
        for index in outstanding:
            running = scheduler.running.take(invocation_id, index)
            if running is not None:
                running.cancelled = True
                scheduler.gate.when_committed(cancel_running, running)
        return [child for _, child in outstanding.values() if child]

    def end_unstarted(self, instance: Instance) -> None:
        """End an invocation that was cancelled before it began."""
        cancelled = Cancelled("the invocation was cancelled before it began")
        self._end(instance, {}, encode_failure(cancelled))

    def _end(self, instance: Instance, outstanding: dict[int, Outstanding], failure: bytes) -> None:
        scheduler = self._scheduler
        output = Output(failure, True, scheduler.clock.now_ms())
        instance.backlog.clear()
        consequences = scheduler.ledger.end(instance, outstanding, output)
        instance.last_unit = scheduler.store.seal()
        for notified in consequences.notified or ():
            self.wake(notified)
        scheduler.answers.finished(instance, output)
        if instance.id in self.by_id:
            self.drop(instance, finished=True)

    # -- evicting ---------------------------------------------------------------------------

    def drop(self, instance: Instance, *, finished: bool = False) -> None:
        """Take an invocation out of memory; who waits for it goes on waiting."""
        scheduler = self._scheduler
        self.by_id.pop(instance.id, None)
        scheduler.answers.outlive(instance)
        if instance.fresh and instance.phase != ADMITTED:
            scheduler.accepted(instance)  # its rows went with those of who stands behind it
        if instance.is_exclusive and not finished:
            scheduler.ledger.inboxes.forget(instance.group)
        unit = instance.last_unit
        if not finished and unit > scheduler.store.committed:
            self._dropped[instance.id] = unit
            scheduler.gate.hold(unit, self._forget_dropped, instance.id, unit)
        self._close_machine(instance)

    def _forget_dropped(self, invocation_id: bytes, unit: int) -> None:
        """What was dropped with *unit* has committed: it can be read."""
        if self._dropped.get(invocation_id) == unit:
            del self._dropped[invocation_id]

    def trim(self) -> None:
        """Evict the least recently used until no more than ``max_resident`` are in memory."""
        excess = len(self.by_id) - self._max_resident
        if excess <= 0 or self._scheduler.failure is not None:
            return
        # A step that waits for its start belongs to an instance that is in memory.
        settled = self._scheduler.gate.settled()
        for instance in list(itertools.islice(self.by_id.values(), 4 * excess + 16)):
            if instance.phase == LIVE and not instance.queued and instance.last_unit <= settled:
                self.drop(instance)
                excess -= 1
                if not excess:
                    return

    def close(self) -> None:
        """Close all of them."""
        for instance in list(self.by_id.values()):
            self._close_machine(instance)
        self.by_id.clear()

    def _close_machine(self, instance: Instance) -> None:
        complaints = instance.machine.close()
        if complaints:
            self._scheduler.stage.leave()  # what logs may ask for the host's loop
        for complaint in complaints:
            logger.warning("%s could not be closed cleanly: %s", instance.text_id, complaint)

    def waiting_futures(self) -> list[asyncio.Future[Any] | None]:
        """Who waits for an instance directly."""
        return [
            future
            for instance in self.by_id.values()
            for future in (instance.accepted, instance.answer)
        ]


def _report_loop_problem(instance: Instance, problem: dict[str, Any]) -> None:
    error = problem.get("exception")
    logger.error("%s: %s", instance.text_id, problem.get("message"), exc_info=error)
