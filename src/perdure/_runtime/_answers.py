"""Who waits for invocations: their acceptance, their results, and what is known of either."""

from __future__ import annotations

import asyncio
import functools

from perdure._ids import format_id
from perdure._runtime._gate import Gate, fail_futures, set_result
from perdure._runtime._instance import Instance
from perdure._runtime._layout import Output, Record
from perdure._store import Db, Store
from perdure.errors import NotFound, PerdureError


class Answers:
    """Owner of the futures of results; every answer leaves through the gate."""

    def __init__(self, store: Store, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._gate = gate
        self._loop = loop
        self._waiters: dict[bytes, list[asyncio.Future[Output]]] = {}

    def record(self, invocation_id: bytes) -> Record | None:
        """What was asked; None if the store has no such invocation."""
        value = self._store.get(Db.INVOCATIONS, invocation_id, b"")
        return None if value is None else Record.unpack(value, invocation_id)

    def output(self, invocation_id: bytes, *, resident: bool) -> Output | None:
        """How an invocation ended; None while it has not.

        Raises:
          NotFound: There is no such invocation, or its result is not kept any more.
        """
        value = self._store.get(Db.OUTPUTS, invocation_id, b"")
        if value is not None:
            return Output.unpack(value, invocation_id)
        if resident or self.record(invocation_id) is not None:
            return None
        raise NotFound(
            f"there is no invocation {format_id(invocation_id)}, or it is not kept any more"
        )

    async def committed(self) -> None:
        """Wait until all that is sealed now has committed: what an answer waits for."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._gate.when_committed(set_result, future, None)
        await future

    def result(self, invocation_id: bytes) -> asyncio.Future[Output]:
        """The output that an unfinished invocation will have; who cancels it waits no more."""
        future: asyncio.Future[Output] = self._loop.create_future()
        self._waiters.setdefault(invocation_id, []).append(future)
        future.add_done_callback(functools.partial(self._forget, invocation_id))
        return future

    def _forget(self, invocation_id: bytes, future: asyncio.Future[Output]) -> None:
        futures = self._waiters.get(invocation_id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._waiters[invocation_id]

    def accepted(self, instance: Instance) -> None:
        """Its rows are sealed: tell who sent *instance*, once they have committed."""
        if instance.accepted is not None:
            self._gate.when_committed(set_result, instance.accepted, None)
            instance.accepted = None

    def finished(self, instance: Instance, output: Output) -> None:
        """*instance* has ended; who waits for it is told once that is durable."""
        futures = self._waiters.pop(instance.id, None) or []
        if instance.answer is not None:
            futures.append(instance.answer)
            instance.answer = None
        for future in futures:
            self._gate.when_committed(set_result, future, output)

    def outlive(self, instance: Instance) -> None:
        """*instance* leaves memory unfinished; who waits for it goes on waiting."""
        if instance.answer is not None:
            self._waiters.setdefault(instance.id, []).append(instance.answer)
            instance.answer = None

    def fail(self, failure: PerdureError) -> None:
        """Fail everyone who waits."""
        waiters = list(self._waiters.values())
        self._waiters.clear()
        for futures in waiters:
            fail_futures(futures, failure)
