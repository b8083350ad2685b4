"""The cleaner: removes what has been kept for long enough, a little at a time.

Theory of operation. The rows of ``expiry`` sort by the time at which something goes. One timer of
the host's loop stands for the first of them. When it fires, a sweep begins: turn after turn, each
of them short, with the host's loop in between and none while the store is congested. A unit
removes one invocation, or a slice of one long journal. Rows are read as committed, for only what
has committed can be removed whole: the sweep keeps its place in memory, and when it has come to
what is not due yet it waits for the commit of all it has removed, and looks from the start again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from perdure._ids import format_id
from perdure._runtime._layout import Expiry, Goes, u64
from perdure._runtime._status import status_of
from perdure._runtime._timers import FOREVER_MS
from perdure._store import Db
from perdure.errors import Conflict, StoreCorrupt

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

logger = logging.getLogger("perdure")

INVOCATIONS_PER_TURN = 64
TURN_S = 0.0025
"""The host's loop gets its turn after so many invocations, or after this long."""

_AGAIN_MS = 86_400_000


class Cleaner:
    """Owner of the timer for the first row of ``expiry``, and of the place of the sweep."""

    def __init__(self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduler = scheduler
        self._loop = loop
        self._context = contextvars.copy_context()
        self._handle: asyncio.Handle | None = None
        self._sweeping = False
        self._next_ms = FOREVER_MS  # no later than any row that a look at the store may miss
        self._place = b""  # the sweep goes on at this key
        self._removed: bytes | None = None  # of the journal there: the last chunk removed

    def is_idle(self) -> bool:
        """Whether no sweep is going on."""
        return not self._sweeping

    def watch(self, due_ms: int) -> None:
        """A row has been written that is due then."""
        if due_ms < self._next_ms:
            self._next_ms = due_ms
            if not self._sweeping:
                self._arm()

    def stop(self) -> None:
        """Remove nothing more; what is left goes when the directory is opened again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def rest(self, *_: object) -> None:
        """Sleep until the first row is due. All that was removed has committed."""
        if self._is_over():
            return
        self._sweeping = False
        self._place = b""
        for key, _value in self._scheduler.store.scan_committed(Db.EXPIRY, limit=1):
            self._next_ms = min(self._next_ms, Expiry.unpack(key).due_ms)
        self._arm()

    def _is_over(self) -> bool:
        return self._scheduler.failure is not None or self._scheduler.draining

    def _arm(self) -> None:
        self.stop()
        if self._next_ms < FOREVER_MS and not self._is_over():
            # Not in the context of whoever came here, which may hold a step and its function.
            call_at = self._scheduler.clock.call_at
            self._handle = self._context.run(call_at, self._loop, self._next_ms, self._turn)

    def _turn(self, *_: object) -> None:
        """Remove some of what is due."""
        scheduler = self._scheduler
        self._handle = None
        if self._is_over():
            return
        if not self._sweeping:
            self._sweeping = True
            self._next_ms = FOREVER_MS
        if scheduler.store.congested():
            scheduler.gate.when_committed(self._turn, None)
            return
        scheduler.store.begin_batch()
        try:
            more = self._sweep()
        except BaseException as error:
            scheduler.fail_for(error)
            return
        finally:
            scheduler.store.end_batch()
        if more:
            self._handle = self._loop.call_soon(self._turn)
        else:
            scheduler.gate.when_committed(self.rest, None)

    def _sweep(self) -> bool:
        """One turn's part of it; False if nothing more is due."""
        deadline = self._scheduler.ticks() + TURN_S
        store = self._scheduler.store
        end = u64(self._scheduler.clock.now_ms() + 1)
        limit = INVOCATIONS_PER_TURN
        rows = store.scan_committed(Db.EXPIRY, self._place, end, limit=limit)
        for key, value in rows:
            # Gone, though not on the disk, is what was purged by hand.
            if store.get(Db.EXPIRY, b"", key) is not None:
                self._expire(Expiry.unpack(key), value)
            else:
                self._removed = None
            self._place = key if self._removed is not None else key + b"\0"
            if self._removed is not None or self._scheduler.ticks() > deadline:
                return True
        return len(rows) == limit

    def _expire(self, expiry: Expiry, value: bytes) -> None:
        """One unit: let go of what *expiry* stands for, or of a slice of its journal."""
        scheduler = self._scheduler
        purges = scheduler.ledger.purges
        try:
            notified = self._remove(expiry, value)
        except StoreCorrupt as damage:
            # Its rows stay for whoever mends them; the others are not to wait for that.
            scheduler.store.discard()
            self._removed = None
            logger.error("what has expired can not be removed, tried again in a day: %s", damage)
            notified = []
            purges.delete(expiry)
            purges.put(expiry._replace(due_ms=scheduler.clock.now_ms() + _AGAIN_MS), value)
        scheduler.store.seal()
        for invocation_id in notified:
            scheduler.residents.wake(invocation_id)

    def _remove(self, expiry: Expiry, value: bytes) -> list[bytes]:
        purges = self._scheduler.ledger.purges
        if expiry.what == Goes.PROMISES:
            purges.delete(expiry)
            return purges.purge_early_promises(expiry, value)
        record = self._scheduler.answers.record(expiry.subject)
        self._removed = purges.purge_journal(expiry.subject, self._removed)
        if self._removed is not None:
            return []
        purges.delete(expiry)
        if expiry.what == Goes.ALL and record is not None:
            return purges.purge(expiry.subject, record)
        return []


async def purge_now(scheduler: Scheduler, invocation_id: bytes) -> None:
    """Remove all of a completed invocation, and return once that is durable.

    Raises:
      NotFound: There is no such invocation.
      Conflict: It has not completed.
    """
    answers, purges, store = scheduler.answers, scheduler.ledger.purges, scheduler.store
    try:
        output = scheduler.output(invocation_id)
        if output is None:
            record = answers.record(invocation_id)
            status = "ready" if record is None else status_of(scheduler, invocation_id, record)
            raise Conflict(
                f"{format_id(invocation_id)} is {status}; only what "
                "has completed can be purged: wait for its result, or cancel or kill it first"
            )
    finally:
        await answers.committed()  # the journal is removed as it is on the disk
    # Should this process end half-way, the cleaner of the next goes on. Its time is no time, so
    # that two who purge one invocation write one row.
    hastened = Expiry(0, invocation_id, Goes.ALL)
    removed: bytes | None = None
    while True:
        scheduler.check_open()
        record = answers.record(invocation_id)
        if record is None:
            await answers.committed()
            return  # its time had come, or somebody else has purged it
        try:
            purges.unschedule(invocation_id, record, output.completed_ms)
            removed = purges.purge_journal(invocation_id, removed)
            notified: list[bytes] = []
            if removed is None:
                purges.delete(hastened)
                notified = purges.purge(invocation_id, record)
            else:
                purges.put(hastened)
            store.seal()
        except StoreCorrupt:
            store.discard()
            raise
        except BaseException as error:
            scheduler.fail_for(error)
            raise
        for waiting in notified:
            scheduler.residents.wake(waiting)
        await answers.committed()
        if removed is None:
            return
        await asyncio.sleep(0)  # where the disk is quick, that has not given the loop its turn
