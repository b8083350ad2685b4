"""What the world outside completes: one unit each, with all who are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure._store import Db

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler


def complete_promise(
    scheduler: Scheduler, group: bytes, name: str, payload: bytes, failed: bool
) -> bool:
    """Resolve or reject a promise of a key and wake who waits; False if it was completed before.

    The unit is sealed on return; what is said of it outside waits for its commit.
    """
    if scheduler.store.get(Db.PROMISES, group, name.encode()) is not None:
        return False
    try:
        notified = scheduler.ledger.complete_promise(group, name, payload, failed)
        scheduler.store.seal()
        for invocation_id in notified:
            scheduler.residents.wake(invocation_id)
    except BaseException as error:
        scheduler.fail_for(error)
        raise
    return True
