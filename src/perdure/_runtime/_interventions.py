"""What reaches invocations from outside: their ends, pauses, answers and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from perdure._runtime._consequences import Consequences
from perdure._runtime._layout import Backoff
from perdure.errors import Killed
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

    def signal(self, invocation_id: bytes, name: str, payload: bytes) -> None:
        """Give an unfinished invocation a message."""
        self._exchanged(self._scheduler.ledger.exchange.signal, invocation_id, name, payload)

    def _exchanged(self, write: Callable[..., R], *args: Any) -> R:
        """What ``write(*args, consequences)`` returns, once its unit is sealed."""
        scheduler = self._scheduler
        consequences = Consequences()
        result = write(*args, consequences)
        scheduler.store.seal()
        for invocation_id in consequences.notified or ():
            scheduler.residents.wake(invocation_id)
        return result

    def kill(self, invocation_id: bytes) -> None:
        """End an unfinished invocation and all that it waits for by a call, at once."""
        killed = Killed("the invocation was killed")
        self._scheduler.residents.end(invocation_id, encode_failure(killed))

    def pause(self, invocation_id: bytes) -> None:
        """Have an unfinished invocation told nothing until it is resumed."""
        scheduler = self._scheduler
        now_ms = scheduler.clock.now_ms()
        instance = scheduler.residents.by_id.get(invocation_id)
        if instance is not None:
            scheduler.setbacks.put_back(instance, None)
        scheduler.setbacks.pause(invocation_id, Backoff(0, now_ms, now_ms, "paused by hand"))
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
