"""The verbs that act on what is there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import _verbs
from perdure._handles import Accepted, InvocationHandle
from perdure._ids import InvocationId, parse_id
from perdure._opened import Opened
from perdure._runtime._cleaner import purge_now
from perdure._runtime._filter import InvocationFilter
from perdure._runtime._listing import list_invocations, read_cursor
from perdure._runtime._scheduler import Scheduler
from perdure._runtime._status import Status, status_of, unbegun_status
from perdure.errors import Conflict, InvalidInput, NotFound, PerdureError
from perdure.service import HandlerKind

_AT_A_TIME = 256
"""Of those that a filter means: they share their commits."""

UNFINISHED = tuple(status for status in Status if status is not Status.COMPLETED)

_MEANT: dict[_verbs.Act, tuple[Status, ...]] = {
    "cancel": UNFINISHED,
    "kill": UNFINISHED,
    "pause": UNFINISHED,
    "resume": (Status.PAUSED,),
    "purge": (Status.COMPLETED,),
    "restart": (Status.COMPLETED,),
}
"""What an act can do anything to, where a filter says nothing of the status."""


class Operating(_verbs.Operating, Opened):
    """What operators do to invocations: to one, by its id, or to all that a filter means."""

    async def _cancel(self, invocation_id: str) -> bool:
        return await self._results.cancel(parse_id(invocation_id))

    async def _kill(self, invocation_id: str) -> bool:
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        try:
            if not _is_unfinished(scheduler, raw):
                return False
            scheduler.interventions.kill(raw)
            while scheduler.residents.ending:  # what they wait for is read from the disk
                await scheduler.answers.committed()
            if scheduler.answers.record(raw) is not None and _is_unfinished(scheduler, raw):
                scheduler.interventions.kill(raw)  # says what is in the way
            return True
        finally:
            await scheduler.answers.committed()

    async def _pause(self, invocation_id: str) -> bool:
        scheduler, raw = self._open_scheduler(), parse_id(invocation_id)
        try:
            if not _is_unfinished(scheduler, raw):
                return False
            record = scheduler.answers.record(raw)  # None: it is in memory only, and waits its turn
            status = Status.PENDING if record is None else status_of(scheduler, raw, record)
            if status is Status.BLOCKED:
                assert record is not None
                status = unbegun_status(scheduler, raw, record) or status
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

    async def _resume(self, invocation_id: str) -> bool:
        return await self._results.resume(parse_id(invocation_id))

    async def _purge(self, invocation_id: str) -> None:
        await purge_now(self._open_scheduler(), parse_id(invocation_id))

    async def _restart(self, invocation_id: str, from_entry: int = 0) -> InvocationHandle[Any]:
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
            registry = scheduler.registry
            # As new, it begins on the newest version; what is taken over, its own has written.
            if from_entry or not registry.begins_here(record.service, record.handler):
                if not registry.is_registered(record):
                    raise Conflict(f"{invocation_id}: {registry.why_blocked(record)}")
                definition = registry.handler(record)
            else:
                definition = registry.newest(record.service, record.handler)
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
        return self._results.handle(InvocationId(new_id), Accepted.NEW, serde)

    async def _each(self, act: _verbs.Act, filter: InvocationFilter) -> int:
        acts: dict[_verbs.Act, Callable[[str], Awaitable[object]]] = {
            "cancel": self._cancel,
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "purge": self._purge,
            "restart": self._restart,
        }
        one = acts[act]
        now_ms = self._open_scheduler().clock.now_ms()
        wanted = filter.wanted_before(now_ms, _MEANT[act])
        done = 0
        cursor: str | None = None
        while True:
            page = await self._results.look(
                functools.partial(
                    list_invocations,
                    wanted=wanted,
                    limit=_AT_A_TIME,
                    after=read_cursor(wanted, cursor),
                )
            )
            outcomes = await asyncio.gather(*(_unless_moot(one, each.id) for each in page.items))
            done += sum(outcomes)
            cursor = page.cursor
            if cursor is None:
                return done


async def _unless_moot(act: Callable[[str], Awaitable[object]], invocation_id: str) -> bool:
    """Whether *act* did anything; what has ended, begun or gone since it was listed is left out."""
    try:
        return await act(invocation_id) is not False
    except (Conflict, NotFound):
        return False


def _is_unfinished(scheduler: Scheduler, invocation_id: InvocationId) -> bool:
    return scheduler.output(invocation_id) is None
