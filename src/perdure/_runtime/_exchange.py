"""The rows of what goes between invocations: calls, sends, results, awakeables, signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure._core._entries import Entry, Flag, Kind
from perdure._core._machine import START
from perdure._ids import parse_awakeable, parse_id
from perdure._runtime._consequences import Consequences
from perdure._runtime._instance import LIVE, Delivery, Instance
from perdure._runtime._layout import (
    CANCELLED_FIRST,
    Output,
    Record,
    TimerKey,
    key_group,
    number_of,
    output_waiters,
    pack,
    pack_entry,
    signal_waiters,
    u32,
    u64,
    unpack_waiter,
    waiter,
)
from perdure._runtime._retention import retention_of
from perdure._store import Db, Store
from perdure.errors import NotFound
from perdure.serde import encode_failure

if TYPE_CHECKING:
    from perdure._runtime._ledger import Ledger
    from perdure._runtime._registry import Registry
    from perdure._runtime._residents import Residents

EXCHANGED = frozenset(
    {
        *(Kind.CALL, Kind.SEND, Kind.ATTACH, Kind.AWAKEABLE, Kind.SIGNAL_AWAIT),
        *(Kind.CANCEL_INVOCATION, Kind.AWAKEABLE_RESOLVE, Kind.AWAKEABLE_REJECT),
    }
)
"""The commands whose rows are written here."""


class Exchange:
    """Writes these rows, for the ledger, into the open unit."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    def connect(self, registry: Registry, residents: Residents) -> None:
        """Where handlers are found, and where what they begin is put into memory."""
        self._registry = registry
        self._residents = residents

    def effect(self, instance: Instance, index: int, entry: Entry, result: Consequences) -> None:
        """The rows of one command."""
        kind = entry.kind
        if kind in (Kind.CALL, Kind.SEND):
            self._begin(instance, index, entry, result)
        elif kind == Kind.ATTACH:
            self._attach(instance, index, entry, result)
        elif kind == Kind.AWAKEABLE:
            if index in instance.machine.outstanding:
                self._store.put(Db.AWAKEABLES, waiter(instance.id, index), b"", b"")
        elif kind == Kind.SIGNAL_AWAIT:
            self._await_signal(instance, index, entry.name, result)
        elif kind == Kind.CANCEL_INVOCATION:
            self.cancel(parse_id(entry.name), result)
        elif not entry.flags & Flag.REFUSED:
            assert entry.payload is not None
            failed = kind == Kind.AWAKEABLE_REJECT
            self.complete_awakeable(entry.name, entry.payload, failed, result)

    # -- calls and sends ----------------------------------------------------------------------

    def _begin(self, caller: Instance, index: int, entry: Entry, result: Consequences) -> None:
        outgoing = caller.machine.outgoing[index]
        definition = self._registry.newest(outgoing.service, outgoing.handler)
        retention = retention_of(
            definition,
            one_way=entry.kind == Kind.SEND,
            idempotent=outgoing.idempotency_key is not None,
        )
        record = Record(
            service=outgoing.service,
            key=outgoing.key,
            handler=outgoing.handler,
            version=definition.version,
            created_ms=caller.machine.time_ms,
            argument=entry.payload,
            headers=outgoing.headers,
            output_ms=retention.output_ms,
            journal_ms=retention.journal_ms,
            caller=waiter(caller.id, index),
            idempotency_key=outgoing.idempotency_key,
            due_ms=entry.time_ms if entry.kind == Kind.SEND else 0,
        )
        child = self._residents.make(outgoing.child, record, LIVE)
        child.backlog.append(Delivery(START))
        if child.is_exclusive and not record.due_ms:
            self._ledger.inboxes.join(child.group, child.id)
        self._ledger.accept(child, True)
        if entry.kind == Kind.CALL and index in caller.machine.outstanding:
            self._store.put(Db.WAITERS, output_waiters(child.id), record.caller, b"")
        if child.in_ready:
            result.notify(child.id)

    def _attach(self, instance: Instance, index: int, entry: Entry, result: Consequences) -> None:
        if index not in instance.machine.outstanding:
            return  # cancelled in the same activation
        target = parse_id(entry.name)
        value = self._store.get(Db.OUTPUTS, target, b"")
        if value is not None:
            self._answer(instance.id, index, Output.unpack(value, target), result)
        elif self._store.get(Db.INVOCATIONS, target, b"") is not None:
            group = output_waiters(target)
            self._store.put(Db.WAITERS, group, waiter(instance.id, index), b"")
        else:
            missing = NotFound(f"there is no invocation {entry.name}, or its result is not kept")
            self._answer(instance.id, index, Output(encode_failure(missing), True, 0), result)

    def _answer(
        self, invocation_id: bytes, index: int, output: Output, result: Consequences
    ) -> None:
        flags = Flag.FAILED if output.failed else 0
        entry = Entry(Kind.CALL_DONE, index, "", output.payload, 0, 0, flags)
        self._ledger.notify(invocation_id, entry)
        result.notify(invocation_id)

    def finished(self, invocation_id: bytes, output: Output, result: Consequences) -> None:
        """An invocation whose rows were written has ended: tell who called or attached."""
        store = self._store
        group = output_waiters(invocation_id)
        for suffix, _ in store.scan(Db.WAITERS, group):
            store.delete(Db.WAITERS, group, suffix)
            self._answer(*unpack_waiter(suffix), output, result)
        for suffix, _ in store.scan(Db.SIGNALS, invocation_id):
            store.delete(Db.SIGNALS, invocation_id, suffix)

    def forget(self, invocation_id: bytes, index: int, kind: int, name: str, child: bytes) -> None:
        """The rows by which the world would have answered an operation that has ended."""
        store = self._store
        if kind == Kind.CALL:
            store.delete(Db.WAITERS, output_waiters(child), waiter(invocation_id, index))
        elif kind == Kind.ATTACH:
            store.delete(Db.WAITERS, output_waiters(parse_id(name)), waiter(invocation_id, index))
        elif kind == Kind.AWAKEABLE:
            store.delete(Db.AWAKEABLES, waiter(invocation_id, index), b"")
        elif kind == Kind.SIGNAL_AWAIT:
            store.delete(Db.WAITERS, signal_waiters(invocation_id, name), u32(index))

    # -- cancelling ---------------------------------------------------------------------------

    def cancel(self, invocation_id: bytes, result: Consequences) -> bool:
        """Ask an invocation to end, before all else it is to be told; False if it has ended."""
        store = self._store
        value = store.get(Db.INVOCATIONS, invocation_id, b"")
        if value is None or store.get(Db.OUTPUTS, invocation_id, b"") is not None:
            return False
        ledger = self._ledger
        record = Record.unpack(value, invocation_id)
        if record.due_ms:
            ledger.forget_timer(TimerKey(record.due_ms, invocation_id, 0))
        group = key_group(record.service, record.key)
        if ledger.inboxes.waits(group, invocation_id):
            ledger.inboxes.leave(group, invocation_id)
        ledger.end_hold(invocation_id)
        entry = Entry(Kind.CANCELLED)
        store.put(Db.PENDING, invocation_id, u64(CANCELLED_FIRST), pack_entry(entry))
        ledger.ready(invocation_id, Delivery(entry, CANCELLED_FIRST))
        result.notify(invocation_id)
        return True

    # -- awakeables and signals ---------------------------------------------------------------

    def complete_awakeable(
        self, name: str, payload: bytes, failed: bool, result: Consequences
    ) -> bool:
        """Tell who waits for an awakeable; False if nobody does."""
        invocation_id, index = parse_awakeable(name)
        row = waiter(invocation_id, index)
        if self._store.get(Db.AWAKEABLES, row, b"") != b"":
            return False
        self._store.put(Db.AWAKEABLES, row, b"", b"\x01")
        flags = Flag.FAILED if failed else 0
        self._ledger.notify(
            invocation_id, Entry(Kind.AWAKEABLE_DONE, index, "", payload, 0, 0, flags)
        )
        result.notify(invocation_id)
        return True

    def signal(
        self,
        invocation_id: bytes,
        name: str,
        payload: bytes,
        result: Consequences,
        arrival: int | None = None,
    ) -> None:
        """Give a message to the first who waits for it, or keep it.

        Args:
          arrival: Of one that had been given to somebody: it is kept before those that came later.
        """
        store = self._store
        group = signal_waiters(invocation_id, name)
        for suffix, _ in store.scan(Db.WAITERS, group, limit=1):
            store.delete(Db.WAITERS, group, suffix)
            index = number_of(suffix, 4, "waiters", group + suffix)
            self._ledger.notify(invocation_id, Entry(Kind.SIGNAL_DONE, index, name, payload))
            result.notify(invocation_id)
            return
        number = store.next_arrival() if arrival is None else arrival
        while store.get(Db.SIGNALS, invocation_id, pack(name) + u64(number)) is not None:
            number += 1  # arrivals are numbered anew where an invocation pauses
        store.put(Db.SIGNALS, invocation_id, pack(name) + u64(number), payload)

    def give_back(self, instance: Instance, index: int, result: Consequences) -> None:
        """The wait of entry *index* has ended: the message on its way to it goes to the next."""
        for delivery in instance.backlog:
            entry, arrival = delivery.entry, delivery.arrival
            if entry.kind == Kind.SIGNAL_DONE and entry.ref == index:
                assert entry.payload is not None
                assert arrival is not None
                instance.backlog.remove(delivery)
                self._ledger.forget_delivery(instance, delivery)
                self.signal(instance.id, entry.name, entry.payload, result, arrival)
                return

    def _await_signal(
        self, instance: Instance, index: int, name: str, result: Consequences
    ) -> None:
        if index not in instance.machine.outstanding:
            return  # cancelled in the same activation
        store = self._store
        prefix = pack(name)
        for suffix, payload in store.scan(Db.SIGNALS, instance.id, after=prefix, limit=1):
            if suffix[: len(prefix)] == prefix:
                store.delete(Db.SIGNALS, instance.id, suffix)
                self._ledger.notify(instance.id, Entry(Kind.SIGNAL_DONE, index, name, payload))
                result.notify(instance.id)
                return
        store.put(Db.WAITERS, signal_waiters(instance.id, name), u32(index), b"")
