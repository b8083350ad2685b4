"""The rows of attempts that failed, and of invocations that are paused."""

from __future__ import annotations

from perdure._core._entries import Kind
from perdure._runtime._instance import ADMITTED, LIVE, Delivery, Instance
from perdure._runtime._layout import CANCELLED_FIRST, Backoff, pack_entry, u64
from perdure._runtime._ledger import Ledger
from perdure._store import Db, Store

RESUMED = b"\x01"
"""In the row of ``ready``: nobody has looked yet whether it has anything to do."""


class Setbacks:
    """Writes these rows into the open unit."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    def step_failed(
        self, invocation_id: bytes, index: int, backoff: Backoff, *, others_run: bool
    ) -> None:
        """Have a step tried again later; its invocation may now have no reason to be ready."""
        self._ledger.backoffs.begin(invocation_id, index, backoff)
        instance = self._ledger.residents.get(invocation_id)
        if instance is not None and instance.phase == LIVE:
            instance.resting_steps[index] = backoff.due_ms
            self._ledger.set_ready(instance, self._ledger.must_be_ready(instance))
        elif not others_run and not self._store.scan(Db.PENDING, invocation_id, limit=1):
            self._store.delete(Db.READY, invocation_id, b"")
            if instance is not None:
                instance.in_ready = False

    def attempt_failed(
        self, instance: Instance, delivery: Delivery | None, backoff: Backoff, *, pause: bool
    ) -> None:
        """An attempt left no trace: its notification waits, and the next attempt is due later."""
        if instance.phase == ADMITTED:
            self._ledger.accept(instance)
        self.put_back(instance, delivery)
        self._ledger.set_ready(instance, False)
        if pause:
            self.pause(instance.id, backoff)
        else:
            self._ledger.backoffs.begin(instance.id, 0, backoff)

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
            self._ledger.forget_delivery(instance, delivery)
        # A cancel keeps its arrival, so that another one before it is delivered stays the same one.
        first = CANCELLED_FIRST if waiting[0].entry.kind == Kind.CANCELLED else 1
        for arrival, delivery in enumerate(waiting, first):
            if delivery.entry.kind == Kind.STEP_DONE:
                self._ledger.backoffs.end(instance.id, delivery.entry.ref)
            self._store.put(Db.PENDING, instance.id, u64(arrival), pack_entry(delivery.entry))

    def pause(self, invocation_id: bytes, backoff: Backoff) -> None:
        """Have nothing delivered to it until it is resumed."""
        self._ledger.backoffs.end(invocation_id, 0)
        self._store.delete(Db.READY, invocation_id, b"")
        self._store.put(Db.PAUSED, invocation_id, b"", backoff.pack())

    def resume(self, invocation_id: bytes) -> bool:
        """End a pause; False if there is none."""
        if self._store.get(Db.PAUSED, invocation_id, b"") is None:
            return False
        self._store.delete(Db.PAUSED, invocation_id, b"")
        self._store.put(Db.READY, invocation_id, b"", RESUMED)
        return True
