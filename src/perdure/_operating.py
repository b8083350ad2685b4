"""The verbs that act on what is there."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure._calling import awakeable_is_over
from perdure._handles import Accepted, InvocationHandle
from perdure._ids import InvocationId, format_id, parse_awakeable, parse_id
from perdure._limits import check_name
from perdure._opened import Opened
from perdure._runtime._describe import Status, status_of
from perdure._runtime._scheduler import Scheduler
from perdure.errors import Conflict, InvalidInput, NotFound, PerdureError, TerminalError
from perdure.futures import failure_of
from perdure.serde import UNTYPED, encode_failure, serde_for
from perdure.service import HandlerKind


class Operating(Opened):
    """What operators, and the world outside, do to invocations."""

    async def cancel(self, invocation_id: str) -> bool:
        """Ask an invocation to end; False if it has ended before.

        It gets ``asyncio.CancelledError`` at its next await, after its outstanding calls were
        asked to end too, and may catch it to compensate. Asked again, it gets another one. One
        that has not begun ends at once; one that backs off or is paused goes on to end. Who waits
        for its result gets ``Cancelled``, unless it returns something all the same.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.cancel(parse_id(invocation_id))

    async def kill(self, invocation_id: str) -> bool:
        """End an invocation and all it has called and waits for, at once; False if it has ended.

        Nothing of it runs again, no clean-up either; its key is free. Who waits gets ``Killed``.

        Raises:
          NotFound: There is none with this id.
        """
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        try:
            if not _is_unfinished(scheduler, raw):
                return False
            scheduler.interventions.kill(raw)
            while scheduler.residents.ending:  # what they wait for is read from the disk
                await scheduler.answers.committed()
            return True
        finally:
            await scheduler.answers.committed()

    async def pause(self, invocation_id: str) -> bool:
        """Have an invocation told nothing until :meth:`resume`; False if it has ended or is paused.

        Steps that run go on, and their results wait for it.

        Raises:
          Conflict: It has not begun.
          NotFound: There is none with this id.
        """
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        try:
            if not _is_unfinished(scheduler, raw):
                return False
            status = status_of(scheduler, raw)
            if status in (Status.SCHEDULED, Status.PENDING):
                raise Conflict(
                    f"{invocation_id} is {status}: it has not begun, so there is nothing to pause; "
                    "cancel it, or wait"
                )
            if status is Status.PAUSED:
                return False
            scheduler.interventions.pause(raw)
            return True
        finally:
            await scheduler.answers.committed()

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.resume(parse_id(invocation_id))

    async def restart(self, invocation_id: str, *, from_entry: int = 0) -> InvocationHandle[Any]:
        """Begin a completed invocation anew, as another one; the handle is of that.

        It has the same handler, key, argument and headers, and no idempotency key.

        Args:
          from_entry: What the journal has before this entry is taken over, as far as it ends with
            a whole activation; steps and calls in it do not happen again. 0: nothing is.

        Raises:
          Conflict: It has not completed, or it is a workflow's ``run``, whose key has to be purged
            first; or before *from_entry* it waits for something that only itself could get.
          InvalidInput: The journal has no such entry, or is not kept.
          NotFound: There is none with this id, or it is not kept.
        """
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        if type(from_entry) is not int or from_entry < 0:
            raise InvalidInput(f"from_entry: expected a whole number from 0, got {from_entry!r}")
        await scheduler.room()
        await scheduler.answers.committed()  # the journal is read as committed
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            unfinished = _is_unfinished(scheduler, raw)
            record = scheduler.answers.record(raw)
            if record is None:
                raise NotFound(f"{invocation_id} is not kept")
            if unfinished:
                raise Conflict(f"{invocation_id} has not completed: cancel it, or wait for its end")
            if not scheduler.registry.is_registered(record):
                raise Conflict(f"{invocation_id}: {scheduler.registry.why_blocked(record)}")
            definition = scheduler.registry.handler(record)
            if definition.kind is HandlerKind.RUN:
                raise Conflict(
                    f"run of {record.service} runs once for key {record.key!r}; purge "
                    f"{invocation_id} first, then send to that key again"
                )
            new_id = scheduler.interventions.restart(raw, from_entry, accepted)
        except PerdureError:
            await scheduler.answers.committed()
            raise
        await accepted
        serde = self._results.serde_of_existing(new_id, definition, None)
        return InvocationHandle(self._results, InvocationId(new_id), Accepted.NEW, serde)

    # -- what a handler waits for ---------------------------------------------------------------

    async def signal(self, invocation_id: str, name: str, value: Any) -> None:
        """Give an invocation the message *name*; kept for it where it does not wait yet.

        Raises:
          Conflict: It has ended.
          InvalidInput: *value* can not be stored.
          NotFound: There is none with this id.
        """
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        check_name(name, "signal name")
        payload = serde_for(UNTYPED).encode(value, f"value of signal {name!r}")
        await scheduler.room()
        try:
            if not _is_unfinished(scheduler, raw):
                raise Conflict(f"{format_id(raw)} has completed: it gets no signals any more")
            scheduler.interventions.signal(raw, name, payload)
        finally:
            await scheduler.answers.committed()

    async def resolve_awakeable(self, awakeable_id: str, value: Any = None) -> None:
        """Complete an awakeable with *value*.

        Raises:
          AlreadyCompleted: It was completed before, or nobody waits for it any more.
          InvalidInput: *awakeable_id* is none, or *value* can not be stored.
        """
        payload = serde_for(UNTYPED).encode(value, f"value of awakeable {awakeable_id}")
        await self._complete_awakeable(awakeable_id, payload, failed=False)

    async def reject_awakeable(
        self, awakeable_id: str, reason: str | TerminalError, code: int = 500
    ) -> None:
        """Fail who waits for an awakeable with ``TerminalError(reason, code)``.

        Raises:
          AlreadyCompleted, InvalidInput: As :meth:`resolve_awakeable`.
        """
        payload = encode_failure(failure_of(reason, code))
        await self._complete_awakeable(awakeable_id, payload, failed=True)

    async def _complete_awakeable(self, awakeable_id: str, payload: bytes, *, failed: bool) -> None:
        scheduler = self._open_scheduler()
        parse_awakeable(awakeable_id)
        await scheduler.room()
        completed = scheduler.interventions.complete_awakeable(awakeable_id, payload, failed)
        await scheduler.answers.committed()
        if not completed:
            raise awakeable_is_over(awakeable_id)


def _is_unfinished(scheduler: Scheduler, invocation_id: InvocationId) -> bool:
    return scheduler.output(invocation_id) is None
