"""What each event writes: the one place that knows which rows make an event whole.

Every method appends to the store's open unit; the scheduler seals it. A unit holds one activation
or one outside event with *all* rows it touches, of whichever invocations, so a crash leaves each
unfinished invocation in exactly one place: ``ready``, ``timers``, suspended on rows that name it,
or ``paused``.

This module is compiled (see ``_ledger.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from perdure._core._entries import FIRST_COMMAND, Entry, Flag, Kind
from perdure._core._machine import Activation
from perdure._core._operation import Operation
from perdure._runtime._backoffs import Backoffs
from perdure._runtime._consequences import Consequences
from perdure._runtime._consequences import added as _added
from perdure._runtime._exchange import EXCHANGED, Exchange
from perdure._runtime._inboxes import Inboxes
from perdure._runtime._instance import ADMITTED, LIVE, Delivery, Instance, Kept, target_of
from perdure._runtime._layout import (
    Output,
    Record,
    TimerKey,
    key_group,
    number_of,
    pack_entry,
    promise_waiters,
    target_digest,
    u64,
    unpack_entry,
    waiter,
)
from perdure._runtime._outstanding import Outstanding, outstanding_in
from perdure._runtime._promises import Promises
from perdure._runtime._purges import Purges
from perdure._runtime._sites import SiteTable
from perdure._runtime._timers import Timers
from perdure._store import Db, Store
from perdure.errors import StoreCorrupt

_COMPLETIONS = frozenset({Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT})
_NOTHING, _JOURNAL = int(Kept.NOTHING), int(Kept.JOURNAL)


class Ledger:
    """Writes rows; owns none of the decisions.

    Attributes:
      backoffs: The rows of failed attempts.
      inboxes: Who has, and who waits for, the keys of objects.
      exchange: The rows of what goes between invocations.
      promises: The rows of promises and of who waits for them.
      purges: The rows that say when what is kept goes, and its removal.
      residents: The instances in memory, which others own.
    """

    purges: Purges  # given by the scheduler

    def __init__(self, store: Store, timers: Timers, sites: SiteTable) -> None:
        self._store = store
        self._timers = timers
        self._sites = sites
        self.backoffs = Backoffs(store, timers)
        self.inboxes = Inboxes(store)
        self.exchange = Exchange(store, self)
        self.promises = Promises(store, self)
        self.residents: dict[bytes, Instance] = {}

    # -- outside events ---------------------------------------------------------------------

    def accept(self, instance: Instance, ready: bool = False) -> None:
        """The rows that make an invocation exist; *ready*: before its first activation."""
        record = instance.record
        self._store.put(Db.INVOCATIONS, instance.id, b"", record.pack())
        target = target_of(instance)
        if target is not None:
            self._store.put(Db.TARGETS, target_digest(target), b"", target + instance.id)
        instance.phase = LIVE
        if record.due_ms and ready:
            self._timers.put(TimerKey(record.due_ms, instance.id, 0))
            return
        if instance.is_exclusive:
            self._write_place(instance)
            if ready and not self.inboxes.has_key(instance.group, instance.id):
                return
        self.set_ready(instance, ready)

    def copied(self, instance: Instance, journal: list[tuple[int, list[Entry]]]) -> None:
        """The rows of an invocation that goes on from another's *journal*."""
        rows: list[tuple[int, Entry]] = []
        for first_index, entries in journal:
            self._store.put_journal(instance.id, first_index, entries)
            rows += enumerate(entries, first_index)
        if instance.is_exclusive:
            self.inboxes.join(instance.group, instance.id)
        self.accept(instance, True)
        for index, (entry, _) in outstanding_in(instance.id, rows).items():
            if entry.kind == Kind.TIMER:
                self._timers.put(TimerKey(entry.time_ms, instance.id, index))

    def begin_delayed(self, instance: Instance, timer: TimerKey) -> bool:
        """The delay of a send is over; whether it has all it needs to begin."""
        self._timers.delete(timer)
        if instance.is_exclusive:
            has_key = self.inboxes.join(instance.group, instance.id)
            self._write_place(instance)
            if not has_key:
                return False
        self.set_ready(instance, True)
        return True

    def _write_place(self, instance: Instance) -> None:
        """The row of its place in the line of its key, and all rows of who stands before it."""
        for ahead in self.inboxes.unwritten(instance.group, instance.id):
            self.accept(self.residents[ahead], True)
        self.inboxes.write(instance.group, instance.id)

    def notify(self, invocation_id: bytes, entry: Entry) -> None:
        """Have *entry* wait for delivery; the invocation becomes ready unless it backs off."""
        store = self._store
        arrival = store.next_arrival()
        store.put(Db.PENDING, invocation_id, u64(arrival), pack_entry(entry))
        if entry.kind == Kind.STEP_DONE:
            # Left there, the row would start a step whose answer is durable.
            self.backoffs.end(invocation_id, entry.ref)
        instance = self.residents.get(invocation_id)
        if instance is not None and instance.phase == LIVE:
            instance.backlog.append(Delivery(entry, arrival))
        if instance is not None and instance.backoff is None:
            self.set_ready(instance, True)
        elif instance is None and not self.is_held(invocation_id):
            store.put(Db.READY, invocation_id, b"", b"")

    def ready(self, invocation_id: bytes, first: Delivery) -> None:
        """Have an invocation told *first*, which is in ``pending``, before all else."""
        instance = self.residents.get(invocation_id)
        if instance is None:
            self._store.put(Db.READY, invocation_id, b"", b"")
            return
        if instance.phase == LIVE:
            backlog = instance.backlog
            if not backlog or backlog[0].arrival != first.arrival:
                backlog.insert(0, first)
        self.set_ready(instance, True)

    def forget_timer(self, timer: TimerKey) -> None:
        self._timers.delete(timer)

    def is_held(self, invocation_id: bytes) -> bool:
        """Whether nothing is delivered to it now: paused, backing off, or waiting for its key."""
        if self._store.get(Db.PAUSED, invocation_id, b"") is not None:
            return True
        if self.backoffs.holds_attempt(invocation_id):
            return True
        try:
            value = self._store.get(Db.INVOCATIONS, invocation_id, b"")
            if value is None:
                return False
            record = Record.unpack(value, invocation_id)
        except StoreCorrupt:
            return False  # who loads it is told, and nobody else is stopped
        return self.inboxes.waits(key_group(record.service, record.key), invocation_id)

    def pending(self, invocation_id: bytes) -> list[Delivery]:
        """What waits for delivery, in arrival order."""
        return [
            Delivery(unpack_entry(value), number_of(suffix, 8, "pending", invocation_id + suffix))
            for suffix, value in self._store.scan(Db.PENDING, invocation_id)
        ]

    def forget_delivery(self, instance: Instance, delivery: Delivery) -> None:
        """The rows that stood for a notification which is delivered or has become moot."""
        if delivery.arrival is not None:
            self._store.delete(Db.PENDING, instance.id, u64(delivery.arrival))
        if delivery.timer is not None:
            self._timers.delete(delivery.timer)

    # -- activations ------------------------------------------------------------------------

    def activation(
        self, instance: Instance, activation: Activation, delivery: Delivery
    ) -> Consequences:
        """All rows of one activation."""
        result = Consequences()
        first_index, entries = activation.first_index, activation.entries
        completed = activation.completed
        kept = instance.kept
        whole_life = completed and delivery.entry[0] == Kind.START
        if instance.phase == ADMITTED and (not whole_life or kept != _NOTHING):
            self.accept(instance)
        if kept == _JOURNAL or not whole_life:
            if self._sites.unsaved:
                self._sites.flush()
            self._store.put_journal(instance.id, first_index, activation.kept)
            if kept != _JOURNAL:
                instance.chunks.append(first_index)
        if delivery.arrival is not None or delivery.timer is not None:
            self.forget_delivery(instance, delivery)
            if delivery.entry[0] == Kind.AWAKEABLE_DONE:
                self._store.delete(Db.AWAKEABLES, waiter(instance.id, delivery.entry[1]), b"")
        if instance.resting_steps and delivery.entry.ref in instance.resting_steps:
            self.end_step_backoff(instance, delivery.entry.ref)
        if instance.backoff is not None:
            self.backoffs.end(instance.id, 0)
            instance.backoff = None
        for operation in activation.ended:
            if operation.kind == Kind.SIGNAL_AWAIT:  # before a message is given back to it
                self._end(instance, operation, result)
        index = first_index
        for entry in entries:
            if entry[0] >= FIRST_COMMAND:
                self._effect(instance, index, entry, result)
            index += 1
        for operation in activation.ended:
            self._end(instance, operation, result)
            if operation.kind == Kind.CALL:
                self.exchange.cancel(operation.options.child, result)
        if completed:
            self._complete(instance, entries, result)
        else:
            ready = self.must_be_ready(instance)
            if instance.in_ready != ready:
                self.set_ready(instance, ready)
        return result

    def _effect(self, instance: Instance, index: int, entry: Entry, result: Consequences) -> None:
        kind = entry[0]
        if kind == Kind.RUN:
            operation = instance.machine.outstanding.get(index)
            if operation is not None:  # not cancelled in the same activation
                result.steps = _added(result.steps, operation)
            return
        store = self._store
        if kind == Kind.TIMER:
            self._timers.put(TimerKey(entry.time_ms, instance.id, index))
        elif kind == Kind.PROMISE_AWAIT:
            self.promises.wait(instance, index, entry.name, result)
        elif kind == Kind.STATE_SET:
            assert entry.payload is not None
            store.put(Db.STATE, instance.group, entry.name.encode(), entry.payload)
        elif kind == Kind.STATE_CLEAR:
            store.delete(Db.STATE, instance.group, entry.name.encode())
        elif kind == Kind.STATE_CLEAR_ALL:
            for suffix, _ in store.scan(Db.STATE, instance.group):
                store.delete(Db.STATE, instance.group, suffix)
        elif kind in EXCHANGED:
            self.exchange.effect(instance, index, entry, result)
        elif kind == Kind.CANCEL:
            self.exchange.give_back(instance, entry.ref, result)
        elif kind in _COMPLETIONS and not entry.flags & Flag.REFUSED:
            assert entry.payload is not None
            failed = kind == Kind.PROMISE_REJECT
            self.promises.complete(instance.group, entry.name, entry.payload, failed, result)

    def _end(self, instance: Instance, operation: Operation, result: Consequences) -> None:
        """The rows by which the world would have answered *operation*."""
        if operation.kind == Kind.TIMER:
            self._timers.delete(TimerKey(operation.time_ms, instance.id, operation.index))
        elif operation.kind == Kind.RUN:
            if operation.index in instance.resting_steps:
                self.end_step_backoff(instance, operation.index)
            result.ended_steps = _added(result.ended_steps, operation)
        elif operation.kind == Kind.PROMISE_AWAIT:
            self._store.delete(
                Db.WAITERS,
                promise_waiters(instance.group, operation.name),
                waiter(instance.id, operation.index),
            )
        else:
            child = operation.options.child if operation.kind == Kind.CALL else b""
            self.exchange.forget(
                instance.id, operation.index, operation.kind, operation.name, child
            )

    def must_be_ready(self, instance: Instance) -> bool:
        for delivery in instance.backlog:
            if delivery.arrival is not None:
                return True
        for operation in instance.machine.outstanding.values():
            if operation.kind == Kind.RUN and operation.index not in instance.resting_steps:
                return True
        return False

    def set_ready(self, instance: Instance, ready: bool) -> None:
        if instance.in_ready == ready:
            return
        if ready:
            self._store.put(Db.READY, instance.id, b"", b"")
        else:
            self._store.delete(Db.READY, instance.id, b"")
        instance.in_ready = ready

    def _complete(self, instance: Instance, entries: list[Entry], result: Consequences) -> None:
        last = entries[-1]
        assert last.kind == Kind.OUTPUT
        assert last.payload is not None
        for operation in instance.machine.outstanding.values():
            self._end(instance, operation, result)
        result.output = Output(
            last.payload, bool(last.flags & Flag.FAILED), instance.machine.time_ms
        )
        self.finish(instance, result.output, result)

    def end(
        self, instance: Instance, outstanding: dict[int, Outstanding], output: Output
    ) -> Consequences:
        """The rows of an invocation that is ended while it waits for *outstanding* commands."""
        result = Consequences()
        for index, (entry, child) in outstanding.items():
            if entry.kind == Kind.TIMER:
                self._timers.delete(TimerKey(entry.time_ms, instance.id, index))
            elif entry.kind == Kind.RUN:
                self.backoffs.end(instance.id, index)
            elif entry.kind == Kind.PROMISE_AWAIT:
                group = promise_waiters(instance.group, entry.name)
                self._store.delete(Db.WAITERS, group, waiter(instance.id, index))
            else:
                self.exchange.forget(instance.id, index, entry.kind, entry.name, child)
        self.end_hold(instance.id)
        if instance.record.due_ms:
            self._timers.delete(TimerKey(instance.record.due_ms, instance.id, 0))
        self.finish(instance, output, result)
        result.output = output
        return result

    def finish(self, instance: Instance, output: Output, result: Consequences) -> None:
        """The rows of an invocation that has ended: those to keep, and none of the rest."""
        store = self._store
        if instance.is_exclusive:
            self._pass_key_on(instance, result)
        if instance.phase != ADMITTED or instance.in_ready:
            # Else nothing of it was written, nor an answer that it did not wait for.
            self.set_ready(instance, False)
            for suffix, _ in store.scan(Db.PENDING, instance.id):
                store.delete(Db.PENDING, instance.id, suffix)
            self.exchange.finished(instance.id, output, result)
        self.purges.completed(instance, output, result)

    def _pass_key_on(self, instance: Instance, result: Consequences) -> None:
        promoted = self.inboxes.leave(instance.group, instance.id)
        if promoted is not None:
            waiting = self.residents.get(promoted)
            if waiting is None:
                self._store.put(Db.READY, promoted, b"", b"")
            elif waiting.phase != ADMITTED:
                self.set_ready(waiting, True)
            result.notify(promoted)

    # -- holds ------------------------------------------------------------------------------

    def is_ready_in_vain(self, instance: Instance) -> bool:
        """Whether it has its row in ``ready`` and nothing to do."""
        return instance.in_ready and not self.must_be_ready(instance)

    def recovered(self, instance: Instance) -> None:
        """The attempt replayed to the end of its journal, and nothing waits to be delivered."""
        self.backoffs.end(instance.id, 0)
        instance.backoff = None
        self.set_ready(instance, self.must_be_ready(instance))

    def end_step_backoff(self, instance: Instance, index: int) -> None:
        self.backoffs.end(instance.id, index)
        del instance.resting_steps[index]

    def end_hold(self, invocation_id: bytes) -> None:
        """End a pause or the back-off of the attempt."""
        self.backoffs.end(invocation_id, 0)
        self._store.delete(Db.PAUSED, invocation_id, b"")
