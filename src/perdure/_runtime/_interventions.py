"""What reaches invocations from outside: their ends, pauses, answers and messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from perdure._core._entries import Entry, Kind, describe
from perdure._ids import format_id
from perdure._runtime._consequences import Consequences
from perdure._runtime._instance import LIVE
from perdure._runtime._layout import Backoff, unpack_waiter, waiter
from perdure._runtime._outstanding import outstanding_in
from perdure._runtime._status import last_backoff
from perdure._store import Db
from perdure.errors import Conflict, InvalidInput, Killed, NotFound
from perdure.serde import encode_failure

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

R = TypeVar("R")


class Interventions:
    """Each is one unit, or one for each invocation that it reaches."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def cancel(self, invocation_id: bytes) -> bool:
        """Ask an invocation to end; False if it has ended."""
        return self._exchanged(self._scheduler.ledger.exchange.cancel, invocation_id)

    def complete_awakeable(self, name: str, payload: bytes, failed: bool) -> bool:
        """Resolve or reject an awakeable; False if nobody waits for it."""
        exchange = self._scheduler.ledger.exchange
        return self._exchanged(exchange.complete_awakeable, name, payload, failed)

    def complete_promise(self, group: bytes, name: str, payload: bytes, failed: bool) -> bool:
        """Resolve or reject a promise of a key; False if it was completed before."""
        scheduler = self._scheduler
        if scheduler.store.get(Db.PROMISES, group, name.encode()) is not None:
            return False
        self._exchanged(scheduler.ledger.promises.complete, group, name, payload, failed)
        return True

    def signal(self, invocation_id: bytes, name: str, payload: bytes) -> None:
        """Give an unfinished invocation a message."""
        self._exchanged(self._scheduler.ledger.exchange.signal, invocation_id, name, payload)

    def restart(
        self, invocation_id: bytes, from_entry: int, accepted: asyncio.Future[None]
    ) -> bytes:
        """Begin a completed invocation anew, under another id, which is returned.

        The activations that lie before *from_entry* are taken over from its journal.
        """
        scheduler = self._scheduler
        record = scheduler.answers.record(invocation_id)
        assert record is not None
        if not from_entry:  # else its version stays, for that has written what is taken over
            newest = scheduler.registry.newest(record.service, record.handler)
            record = record._replace(version=newest.version)
        record = record._replace(
            created_ms=scheduler.clock.now_ms(),
            caller=b"",
            idempotency_key=None,
            due_ms=0,
        )
        if not from_entry:
            return scheduler.begin(record._replace(origin=b""), accepted).id
        prefix = self._prefix(invocation_id, from_entry)
        first_index, last = prefix[-1]
        length = first_index + len(last)
        origin, taken_over = invocation_id, length
        if record.origin:
            origin, taken_over = unpack_waiter(record.origin)
        if length > taken_over:
            raise Conflict(
                f"{format_id(invocation_id)} was itself restarted, from entry {taken_over}; it "
                "can be restarted as new, or from an entry up to that"
            )
        record = record._replace(origin=waiter(origin, length))
        instance = scheduler.residents.make(scheduler.ids.next(), record, LIVE)
        instance.accepted = accepted
        scheduler.ledger.copied(instance, prefix)
        instance.last_unit = scheduler.store.seal()
        scheduler.accepted(instance)
        # Its journal is read from the disk, which must have it.
        scheduler.residents.drop(instance)
        if instance.in_ready:  # else it waits for its key
            scheduler.residents.wake(instance.id)
        return instance.id

    def _prefix(self, invocation_id: bytes, from_entry: int) -> list[tuple[int, list[Entry]]]:
        prefix: list[tuple[int, list[Entry]]] = []
        position = 0
        while page := self._scheduler.store.journal(invocation_id, position, Entry):
            if page[0][0] != position:
                raise NotFound(f"the journal of {format_id(invocation_id)} is being removed")
            for first_index, entries in page:
                position = first_index + len(entries)
                if position > from_entry:
                    break
                prefix.append((first_index, entries))
            if position > from_entry:
                break
        text = format_id(invocation_id)
        if position < from_entry:
            raise InvalidInput(
                f"from_entry: the journal of {text} has {position} entries, or is not kept"
            )
        if not prefix:
            raise InvalidInput(
                f"from_entry: the first activation of {text} goes beyond entry {from_entry}; leave "
                "it out to begin anew"
            )
        rows = [
            (first_index + offset, entry)
            for first_index, entries in prefix
            for offset, entry in enumerate(entries)
        ]
        for index, (entry, _) in outstanding_in(invocation_id, rows).items():
            if entry.kind not in (Kind.RUN, Kind.TIMER):
                raise Conflict(
                    f"before entry {from_entry}, {text} waits for entry {index}, "
                    f"{describe(entry)}, which only the invocation itself can get; "
                    "choose an earlier entry"
                )
        return prefix

    def _exchanged(self, write: Callable[..., R], *args: Any) -> R:
        """What ``write(*args, consequences)`` returns, once its unit is sealed."""
        scheduler = self._scheduler
        consequences = Consequences()
        try:
            result = write(*args, consequences)
            scheduler.store.seal()
            for invocation_id in consequences.notified or ():
                scheduler.residents.wake(invocation_id)
        except BaseException as error:
            scheduler.fail_for(error)  # no half of a unit is gone on with
            raise
        return result

    def kill(self, invocation_id: bytes) -> None:
        """End an unfinished invocation and all that it waits for by a call, at once."""
        killed = Killed("the invocation was killed")
        self._scheduler.residents.end(invocation_id, encode_failure(killed))

    def pause(self, invocation_id: bytes) -> None:
        """Have an unfinished invocation told nothing until it is resumed."""
        scheduler = self._scheduler
        now_ms = scheduler.clock.now_ms()
        before = last_backoff(scheduler, invocation_id)
        instance = scheduler.residents.by_id.get(invocation_id)
        if instance is not None:
            scheduler.setbacks.put_back(instance, None)
        why = "paused by hand" if before is None else f"paused by hand, after {before.failure}"
        scheduler.setbacks.pause(invocation_id, Backoff(0, now_ms, now_ms, why))
        unit = scheduler.store.seal()
        if instance is not None:
            instance.last_unit = unit
            scheduler.residents.drop(instance)

    def resume(self, invocation_id: bytes) -> bool:
        """End a pause; False if it is not paused."""
        scheduler = self._scheduler
        resumed = scheduler.setbacks.resume(invocation_id)
        if resumed:
            scheduler.store.seal()
            scheduler.residents.wake(invocation_id)
        return resumed
