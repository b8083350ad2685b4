"""What each event writes: the one place that knows which rows make an event whole.

Every method appends to the store's open unit; the scheduler seals it. A unit holds one activation
or one outside event with *all* rows it touches, of whichever invocations, so a crash leaves each
unfinished invocation in exactly one place: ``ready``, ``timers``, suspended on rows that name it,
or ``paused``.

This module is compiled (see ``_ledger.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from typing import Any

from perdure._core._entries import FIRST_COMMAND, Entry, Flag, Kind
from perdure._core._machine import Activation
from perdure._core._operation import Operation
from perdure._runtime._backoffs import Backoffs
from perdure._runtime._instance import ADMITTED, LIVE, Delivery, Instance, Kept
from perdure._runtime._layout import (
    Backoff,
    Output,
    TimerKey,
    pack_entry,
    pack_promise,
    pack_target,
    promise_waiters,
    target_digest,
    u64,
    unpack_entry,
    unpack_promise,
    unpack_waiter,
    waiter,
)
from perdure._runtime._purges import Purges
from perdure._runtime._sites import SiteTable
from perdure._runtime._timers import Timers
from perdure._store import Db, Store
from perdure.service import HandlerKind


class Consequences:
    """What must be done about an activation once its unit is sealed; None: nothing of that kind.

    Attributes:
      steps: Issued, to be started after the commit.
      ended_steps: Cancelled, to be stopped after the commit.
      notified: Invocations that got something to do.
      output: How it ended, if it did.
    """

    __slots__ = ("ended_steps", "notified", "output", "steps")

    def __init__(self) -> None:
        self.steps: list[Operation] | None = None
        self.ended_steps: list[Operation] | None = None
        self.notified: list[bytes] | None = None
        self.output: Output | None = None


def _added(items: list[Any] | None, item: Any) -> list[Any]:
    if items is None:
        return [item]
    items.append(item)
    return items


_COMPLETIONS = frozenset({Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT})
_NOTHING, _JOURNAL = int(Kept.NOTHING), int(Kept.JOURNAL)


class Ledger:
    """Writes rows; owns none of the decisions.

    Attributes:
      backoffs: The rows of failed attempts.
      purges: The rows that say when what is kept goes, and its removal.
      residents: The instances in memory, which others own.
    """

    purges: Purges  # given by the scheduler

    def __init__(self, store: Store, timers: Timers, sites: SiteTable) -> None:
        self._store = store
        self._timers = timers
        self._sites = sites
        self.backoffs = Backoffs(store, timers)
        self.residents: dict[bytes, Instance] = {}

    # -- outside events ---------------------------------------------------------------------

    def accept(self, instance: Instance, ready: bool = False) -> None:
        """The rows that make an invocation exist; *ready*: before its first activation."""
        record = instance.record
        self._store.put(Db.INVOCATIONS, instance.id, b"", record.pack())
        if instance.definition.kind is HandlerKind.RUN:
            self._store.put(
                Db.TARGETS,
                target_digest(record.service, record.key),
                b"",
                pack_target(record.service, record.key, instance.id),
            )
        instance.phase = LIVE
        self._set_ready(instance, ready)

    def notify(self, invocation_id: bytes, entry: Entry) -> None:
        """Have *entry* wait for delivery; the invocation becomes ready unless it backs off."""
        store = self._store
        rows = store.scan(Db.PENDING, invocation_id)
        arrival = int.from_bytes(rows[-1][0], "big") + 1 if rows else 1
        store.put(Db.PENDING, invocation_id, u64(arrival), pack_entry(entry))
        if entry.kind == Kind.STEP_DONE:
            # Left there, the row would start a step whose answer is durable.
            self.backoffs.end(invocation_id, entry.ref)
        instance = self.residents.get(invocation_id)
        if instance is not None and instance.phase == LIVE:
            instance.backlog.append(Delivery(entry, arrival))
        if instance is not None and instance.backoff is None:
            self._set_ready(instance, True)
        elif instance is None and not self.is_held(invocation_id):
            store.put(Db.READY, invocation_id, b"", b"")

    def is_held(self, invocation_id: bytes) -> bool:
        """Whether it is paused or its attempt backs off: nothing is delivered to it now."""
        return self._store.get(
            Db.PAUSED, invocation_id, b""
        ) is not None or self.backoffs.holds_attempt(invocation_id)

    def complete_promise(
        self, group: bytes, name: str, payload: bytes, failed: bool
    ) -> list[bytes]:
        """Complete a promise and notify whoever waits for it; their ids."""
        store = self._store
        self.purges.promise_completed(group)
        store.put(Db.PROMISES, group, name.encode(), pack_promise(payload, failed))
        flags = Flag.FAILED if failed else 0
        waiters = promise_waiters(group, name)
        notified: list[bytes] = []
        for suffix, _ in store.scan(Db.WAITERS, waiters):
            store.delete(Db.WAITERS, waiters, suffix)
            invocation_id, index = unpack_waiter(suffix)
            self.notify(invocation_id, Entry(Kind.PROMISE_DONE, index, name, payload, 0, 0, flags))
            notified.append(invocation_id)
        return notified

    def pending(self, invocation_id: bytes) -> list[Delivery]:
        """What waits for delivery, in arrival order."""
        return [
            Delivery(unpack_entry(value), int.from_bytes(suffix, "big"))
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
        whole_life = False
        if instance.phase == ADMITTED:
            whole_life = completed
            if not whole_life or kept != _NOTHING:
                self.accept(instance)
        if kept == _JOURNAL or not whole_life:
            if self._sites.unsaved:
                self._sites.flush()
            self._store.put_journal(instance.id, first_index, activation.kept)
            if kept != _JOURNAL:
                instance.chunks.append(first_index)
        if delivery.arrival is not None or delivery.timer is not None:
            self.forget_delivery(instance, delivery)
        if instance.resting_steps and delivery.entry.ref in instance.resting_steps:
            self.end_step_backoff(instance, delivery.entry.ref)
        if instance.backoff is not None:
            self.backoffs.end(instance.id, 0)
            instance.backoff = None
        index = first_index
        for entry in entries:
            if entry[0] >= FIRST_COMMAND:
                self._effect(instance, index, entry, result)
            index += 1
        for operation in activation.ended:
            self._end(instance, operation, result)
        if completed:
            self._complete(instance, entries, result)
        else:
            ready = self._must_be_ready(instance)
            if instance.in_ready != ready:
                self._set_ready(instance, ready)
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
            self._await_promise(instance, index, entry.name, result)
        elif kind == Kind.STATE_SET:
            assert entry.payload is not None
            store.put(Db.STATE, instance.group, entry.name.encode(), entry.payload)
        elif kind == Kind.STATE_CLEAR:
            store.delete(Db.STATE, instance.group, entry.name.encode())
        elif kind == Kind.STATE_CLEAR_ALL:
            for suffix, _ in store.scan(Db.STATE, instance.group):
                store.delete(Db.STATE, instance.group, suffix)
        elif kind in _COMPLETIONS and not entry.flags & Flag.REFUSED:
            assert entry.payload is not None
            for notified in self.complete_promise(
                instance.group, entry.name, entry.payload, kind == Kind.PROMISE_REJECT
            ):
                result.notified = _added(result.notified, notified)

    def _await_promise(
        self, instance: Instance, index: int, name: str, result: Consequences
    ) -> None:
        value = self._store.get(Db.PROMISES, instance.group, name.encode())
        if value is None:
            self._store.put(
                Db.WAITERS,
                promise_waiters(instance.group, name),
                waiter(instance.id, index),
                b"",
            )
        elif index in instance.machine.outstanding:
            payload, failed = unpack_promise(value)
            flags = Flag.FAILED if failed else 0
            self.notify(instance.id, Entry(Kind.PROMISE_DONE, index, name, payload, 0, 0, flags))
            result.notified = _added(result.notified, instance.id)

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

    def _must_be_ready(self, instance: Instance) -> bool:
        for delivery in instance.backlog:
            if delivery.arrival is not None:
                return True
        for operation in instance.machine.outstanding.values():
            if operation.kind == Kind.RUN and operation.index not in instance.resting_steps:
                return True
        return False

    def _set_ready(self, instance: Instance, ready: bool) -> None:
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
        for notified in self.finish(instance, result.output):
            result.notified = _added(result.notified, notified)

    def end(self, instance: Instance, outstanding: dict[int, Entry], output: Output) -> list[bytes]:
        """The rows of an invocation that is ended while it waits for *outstanding* commands.

        The ids of those who are notified of it.
        """
        for index, entry in outstanding.items():
            if entry.kind == Kind.TIMER:
                self._timers.delete(TimerKey(entry.time_ms, instance.id, index))
            elif entry.kind == Kind.RUN:
                self.backoffs.end(instance.id, index)
            else:
                group = promise_waiters(instance.group, entry.name)
                self._store.delete(Db.WAITERS, group, waiter(instance.id, index))
        self.end_hold(instance.id)
        return self.finish(instance, output)

    def finish(self, instance: Instance, output: Output) -> list[bytes]:
        """The rows of an invocation that has ended: those to keep, and none of the rest.

        The ids of those who are notified of it.
        """
        store = self._store
        self._set_ready(instance, False)
        for suffix, _ in store.scan(Db.PENDING, instance.id):
            store.delete(Db.PENDING, instance.id, suffix)
        return self.purges.completed(instance, output)

    # -- failed attempts --------------------------------------------------------------------

    def recovered(self, instance: Instance) -> None:
        """The attempt replayed to the end of its journal, and nothing waits to be delivered."""
        self.backoffs.end(instance.id, 0)
        instance.backoff = None
        self._set_ready(instance, self._must_be_ready(instance))

    def end_step_backoff(self, instance: Instance, index: int) -> None:
        self.backoffs.end(instance.id, index)
        del instance.resting_steps[index]

    def step_failed(
        self, invocation_id: bytes, index: int, backoff: Backoff, *, others_run: bool
    ) -> None:
        """Have a step tried again later; its invocation may now have no reason to be ready."""
        self.backoffs.begin(invocation_id, index, backoff)
        instance = self.residents.get(invocation_id)
        if instance is not None and instance.phase == LIVE:
            instance.resting_steps[index] = backoff.due_ms
            self._set_ready(instance, self._must_be_ready(instance))
        elif not others_run and not self._store.scan(Db.PENDING, invocation_id, limit=1):
            self._store.delete(Db.READY, invocation_id, b"")
            if instance is not None:
                instance.in_ready = False

    def attempt_failed(
        self, instance: Instance, delivery: Delivery | None, backoff: Backoff, *, pause: bool
    ) -> None:
        """An attempt left no trace: its notification waits, and the next attempt is due later."""
        if instance.phase == ADMITTED:
            self.accept(instance)
        self.put_back(instance, delivery)
        self._set_ready(instance, False)
        if pause:
            self.pause(instance.id, backoff)
        else:
            self.backoffs.begin(instance.id, 0, backoff)

    def put_back(self, instance: Instance, failed: Delivery | None) -> None:
        """Let the store keep what *instance* was still to be told, in the order it would have been.

        *failed* is the notification whose activation failed: it stays the first.
        """
        deliveries = list(instance.backlog) if failed is None else [failed, *instance.backlog]
        instance.backlog.clear()
        waiting = [delivery for delivery in deliveries if delivery.entry.kind != Kind.START]
        if None not in [delivery.arrival for delivery in waiting]:
            return
        for delivery in waiting:
            self.forget_delivery(instance, delivery)
        for arrival, delivery in enumerate(waiting, 1):
            if delivery.entry.kind == Kind.STEP_DONE:
                self.backoffs.end(instance.id, delivery.entry.ref)
            self._store.put(Db.PENDING, instance.id, u64(arrival), pack_entry(delivery.entry))

    def pause(self, invocation_id: bytes, backoff: Backoff) -> None:
        """Have nothing delivered to it until it is resumed."""
        self.backoffs.end(invocation_id, 0)
        self._store.delete(Db.READY, invocation_id, b"")
        self._store.put(Db.PAUSED, invocation_id, b"", backoff.pack())

    def end_hold(self, invocation_id: bytes) -> None:
        """End a pause or the back-off of the attempt."""
        self.backoffs.end(invocation_id, 0)
        self._store.delete(Db.PAUSED, invocation_id, b"")

    def resume(self, invocation_id: bytes) -> bool:
        """End a pause; False if there is none."""
        if self._store.get(Db.PAUSED, invocation_id, b"") is None:
            return False
        self._store.delete(Db.PAUSED, invocation_id, b"")
        self._store.put(Db.READY, invocation_id, b"", b"")
        return True
