"""What is kept of completed invocations: for how long, and how it is removed.

Methods append to the store's open unit, as the ledger's do. The rows of ``expiry`` say what goes
when; the cleaner looks at them. What a workflow's ``run`` leaves goes in one unit, so that its key
is either as it was or free: record, output, target, state and promises. Only the journal, which
may be long, goes before, in slices.

This module is compiled (see ``_purges.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from perdure._core._entries import Entry, Flag, Kind
from perdure._runtime._clock import Clock
from perdure._runtime._consequences import Consequences
from perdure._runtime._instance import ADMITTED, Instance, Kept
from perdure._runtime._layout import (
    Expiry,
    Goes,
    Output,
    Record,
    early_promises,
    idempotency_target,
    key_group,
    run_target,
    target_digest,
    u32,
    u64,
    unpack_due,
    unpack_group,
    unpack_target,
    unpack_waiter,
    waiter,
)
from perdure._runtime._registry import Registry
from perdure._runtime._retention import early_promises_ms
from perdure._store import Db, Store
from perdure.errors import NotFound
from perdure.serde import encode_failure
from perdure.service import HandlerKind

if TYPE_CHECKING:
    from perdure._runtime._ledger import Ledger

CHUNKS_PER_UNIT = 500
"""Journal chunks removed in one unit: neither a turn nor a commit grows with the journal."""

_WAITER_BYTES = len(waiter(bytes(16), 0))


class Purges:
    """Writes what goes when, and removes what has come to go."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        registry: Registry,
        clock: Clock,
        watch: Callable[[int], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._registry = registry
        self._clock = clock
        self._watch = watch  # told when each row is due

    # -- what is kept, and until when ---------------------------------------------------------

    def completed(self, instance: Instance, output: Output, result: Consequences) -> None:
        """Keep of *instance*, which has ended, what is to be kept."""
        store = self._store
        definition, record = instance.definition, instance.record
        is_run = definition is None or definition.kind is HandlerKind.RUN  # or may be one
        if instance.kept == Kept.NOTHING and (is_run or record.idempotency_key is not None):
            if instance.phase != ADMITTED:
                is_run = self.forget_target(record, instance.id)
            if is_run:
                for notified in self.purge_key(instance.group):
                    result.notify(notified)
        if instance.phase == ADMITTED:
            return  # nothing of it was written
        # A long journal is left to the cleaner, and the record with it.
        journal_left = instance.kept == Kept.JOURNAL or len(instance.chunks) > CHUNKS_PER_UNIT
        if not journal_left:
            for index in instance.chunks:
                store.delete(Db.JOURNAL, instance.id, u32(index))
        if instance.kept == Kept.NOTHING and not journal_left:
            store.delete(Db.INVOCATIONS, instance.id, b"")
        else:
            store.put(Db.OUTPUTS, instance.id, b"", output.pack())
            for expiry in _expiries(instance.id, instance.record, output.completed_ms):
                if journal_left or expiry.what == Goes.ALL:
                    self.put(expiry)

    def written_early(self, group: bytes) -> None:
        """See to it that promises and state of a key go, also if no ``run`` of it ever begins."""
        store = self._store
        if store.get(Db.TARGETS, target_digest(group), b"") is not None:
            return  # they go with it
        if store.get(Db.WAITERS, early_promises(group), b"") is None:
            service, _ = unpack_group(group)
            kept_ms = early_promises_ms(self._registry.newest(service, "run"))
            expiry = Expiry.of_promises(self._clock.now_ms() + kept_ms, group)
            store.put(Db.WAITERS, early_promises(group), b"", u64(expiry.due_ms))
            self.put(expiry, group)

    def put(self, expiry: Expiry, value: bytes = b"") -> None:
        """Write a row of ``expiry``."""
        self._store.put(Db.EXPIRY, b"", expiry.pack(), value)
        self._watch(expiry.due_ms)

    def delete(self, expiry: Expiry) -> None:
        """Remove a row of ``expiry``, if it is there."""
        self._store.delete(Db.EXPIRY, b"", expiry.pack())

    def unschedule(self, invocation_id: bytes, record: Record, completed_ms: int) -> None:
        """Remove the rows of ``expiry`` of a completed invocation."""
        for expiry in _expiries(invocation_id, record, completed_ms):
            self.delete(expiry)

    # -- removing -----------------------------------------------------------------------------

    def purge_journal(self, invocation_id: bytes, after: bytes | None) -> bytes | None:
        """Remove chunks that come after *after*; the last one removed, None if no more are left.

        All of the journal must have committed.
        """
        # One more than are removed: the last of them goes with the row that says that they go.
        suffixes = self._store.suffixes(
            Db.JOURNAL, invocation_id, after=after, limit=CHUNKS_PER_UNIT + 1
        )
        removed = suffixes[:CHUNKS_PER_UNIT]
        for suffix in removed:
            self._store.delete(Db.JOURNAL, invocation_id, suffix)
        return removed[-1] if len(suffixes) > CHUNKS_PER_UNIT else None

    def purge(self, invocation_id: bytes, record: Record) -> list[bytes]:
        """Remove all but the journal of a completed invocation; the ids of who is notified."""
        self._store.delete(Db.INVOCATIONS, invocation_id, b"")
        self._store.delete(Db.OUTPUTS, invocation_id, b"")
        if self.forget_target(record, invocation_id):
            return self.purge_key(key_group(record.service, record.key))
        return []

    def forget_target(self, record: Record, invocation_id: bytes) -> bool:
        """Free the key that leads to an invocation; whether it was the ``run`` of that key."""
        if record.idempotency_key is not None:
            self._free(
                idempotency_target(
                    record.service, record.key, record.handler, record.idempotency_key
                ),
                invocation_id,
            )
            return False
        return self._free(run_target(record.service, record.key), invocation_id)

    def _free(self, target: bytes, invocation_id: bytes) -> bool:
        store = self._store
        digest = target_digest(target)
        value = store.get(Db.TARGETS, digest, b"")
        if value is None or unpack_target(value, target) != invocation_id:
            return False  # none, or one that stands for another invocation
        store.delete(Db.TARGETS, digest, b"")
        return True

    def purge_early_promises(self, expiry: Expiry, group: bytes) -> list[bytes]:
        """Remove the promises of a key whose time has come, unless its ``run`` has begun."""
        store = self._store
        store.delete(Db.WAITERS, early_promises(group), b"")
        if store.get(Db.TARGETS, target_digest(group), b"") is None:
            return self.purge_key(group)
        return []

    def purge_key(self, group: bytes) -> list[bytes]:
        """Remove state and promises of a workflow's key, and fail who waits for one of those.

        The ids of who waited.
        """
        store = self._store
        for db in (Db.STATE, Db.PROMISES):
            for suffix in store.suffixes(db, group):
                store.delete(db, group, suffix)
        due = store.get(Db.WAITERS, early_promises(group), b"")
        if due is not None:
            store.delete(Db.WAITERS, early_promises(group), b"")
            self.delete(Expiry.of_promises(unpack_due(due, group), group))
        return self._fail_waiters(group)

    def _fail_waiters(self, group: bytes) -> list[bytes]:
        store = self._store
        service, key = unpack_group(group)
        notified: list[bytes] = []
        prefix = b"p" + group
        for suffix in store.keys(Db.WAITERS, prefix):
            name, who = suffix[:-_WAITER_BYTES], suffix[-_WAITER_BYTES:]
            store.delete(Db.WAITERS, prefix + name, who)
            invocation_id, index = unpack_waiter(who)
            promise = name[2:].decode()
            failure = NotFound(
                f"key {key!r} of workflow {service} was purged while this waited for its promise "
                f"{promise!r}"
            )
            entry = Entry(
                *(Kind.PROMISE_DONE, index, promise, encode_failure(failure), 0, 0, Flag.FAILED)
            )
            self._ledger.notify(invocation_id, entry)
            notified.append(invocation_id)
        return notified


def _expiries(invocation_id: bytes, record: Record, completed_ms: int) -> list[Expiry]:
    """What goes when: one row where the journal goes with the rest."""
    all_ms = max(record.output_ms, record.journal_ms)
    expiries = [Expiry(completed_ms + all_ms, invocation_id, Goes.ALL)]
    if record.journal_ms < all_ms:
        expiries.append(Expiry(completed_ms + record.journal_ms, invocation_id, Goes.JOURNAL))
    return expiries
