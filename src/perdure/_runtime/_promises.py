"""The rows of promises, and of who waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure._core._entries import Entry, Flag, Kind
from perdure._runtime._consequences import Consequences
from perdure._runtime._instance import Instance
from perdure._runtime._layout import (
    pack_promise,
    promise_waiters,
    unpack_promise,
    unpack_waiter,
    waiter,
)
from perdure._store import Db, Store

if TYPE_CHECKING:
    from perdure._runtime._ledger import Ledger


class Promises:
    """Writes these rows into the open unit."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    def complete(
        self, group: bytes, name: str, payload: bytes, failed: bool, result: Consequences
    ) -> None:
        """Complete a promise of a key, and notify whoever waits for it."""
        store = self._store
        self._ledger.purges.written_early(group)
        store.put(Db.PROMISES, group, name.encode(), pack_promise(payload, failed))
        waiters = promise_waiters(group, name)
        for suffix, _ in store.scan(Db.WAITERS, waiters):
            store.delete(Db.WAITERS, waiters, suffix)
            self._tell(*unpack_waiter(suffix), name, payload, failed, result)

    def wait(self, instance: Instance, index: int, name: str, result: Consequences) -> None:
        """The command at *index* waits for a promise, which may be completed."""
        value = self._store.get(Db.PROMISES, instance.group, name.encode())
        if value is None:
            group = promise_waiters(instance.group, name)
            self._store.put(Db.WAITERS, group, waiter(instance.id, index), b"")
        elif index in instance.machine.outstanding:
            self._tell(instance.id, index, name, *unpack_promise(value), result)

    def _tell(
        self,
        invocation_id: bytes,
        index: int,
        name: str,
        payload: bytes,
        failed: bool,
        result: Consequences,
    ) -> None:
        flags = Flag.FAILED if failed else 0
        entry = Entry(Kind.PROMISE_DONE, index, name, payload, 0, 0, flags)
        self._ledger.notify(invocation_id, entry)
        result.notify(invocation_id)
