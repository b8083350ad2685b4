"""The verbs that act on what is there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

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

T = TypeVar("T")


_AT_A_TIME = 256
"""Of those that a filter means: they share their commits."""

UNFINISHED = tuple(status for status in Status if status is not Status.COMPLETED)


class Operating(Opened):
    """What operators do to invocations: to one, by its id, or to all that a filter means.

    By a filter, each verb takes those it applies to, accepted before the call, and returns for how
    many it did anything. They are taken one after the other: it is not one event.
    """

    @overload
    async def cancel(self, which: str) -> bool: ...
    @overload
    async def cancel(self, which: InvocationFilter) -> int: ...

    async def cancel(self, which: str | InvocationFilter) -> bool | int:
        """Ask an invocation to end; False if it has ended before.

        It gets ``asyncio.CancelledError`` at its next await, after its outstanding calls were
        asked to end too, and may catch it to compensate. Asked again, it gets another one. One
        that has not begun ends at once; one that backs off or is paused goes on to end. Who waits
        for its result gets ``Cancelled``, unless it returns something all the same.

        Raises:
          NotFound: There is none with this id.
        """
        if isinstance(which, InvocationFilter):
            return await self._each_of(which, UNFINISHED, self._cancel)
        return await self._cancel(which)

    async def _cancel(self, invocation_id: str) -> bool:
        return await self._results.cancel(parse_id(invocation_id))

    @overload
    async def kill(self, which: str) -> bool: ...
    @overload
    async def kill(self, which: InvocationFilter) -> int: ...

    async def kill(self, which: str | InvocationFilter) -> bool | int:
        """End an invocation and all it has called and waits for, at once; False if it has ended.

        Nothing of it runs again, no clean-up either; its key is free. Who waits gets ``Killed``.

        Raises:
          NotFound: There is none with this id.
          StoreCorrupt: A journal, of it or of what it has called, is damaged: that one stays.
        """
        if isinstance(which, InvocationFilter):
            return await self._each_of(which, UNFINISHED, self._kill)
        return await self._kill(which)

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

    @overload
    async def pause(self, which: str) -> bool: ...
    @overload
    async def pause(self, which: InvocationFilter) -> int: ...

    async def pause(self, which: str | InvocationFilter) -> bool | int:
        """Have an invocation told nothing until :meth:`resume`; False if it has ended or is paused.

        Steps that run go on, and their results wait for it.

        Raises:
          Conflict: It has not begun.
          NotFound: There is none with this id.
        """
        if isinstance(which, InvocationFilter):
            return await self._each_of(which, UNFINISHED, self._pause)
        return await self._pause(which)

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

    @overload
    async def resume(self, which: str) -> bool: ...
    @overload
    async def resume(self, which: InvocationFilter) -> int: ...

    async def resume(self, which: str | InvocationFilter) -> bool | int:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        if isinstance(which, InvocationFilter):
            return await self._each_of(which, (Status.PAUSED,), self._resume)
        return await self._resume(which)

    async def _resume(self, invocation_id: str) -> bool:
        return await self._results.resume(parse_id(invocation_id))

    @overload
    async def purge(self, which: str) -> None: ...
    @overload
    async def purge(self, which: InvocationFilter) -> int: ...

    async def purge(self, which: str | InvocationFilter) -> int | None:
        """Remove what is kept of a completed invocation now, and not when its time comes.

        Of a workflow's ``run`` that is also state and promises of its key, which is free then: a
        new ``run`` may begin. Who waits for one of these promises gets ``NotFound``. It has been
        removed, durably, when this returns.

        Raises:
          Conflict: It has not completed; the text says how it stands.
          NotFound: There is none with this id, or it is not kept any more.
        """
        if isinstance(which, InvocationFilter):
            return await self._each_of(which, (Status.COMPLETED,), self._purge)
        await self._purge(which)
        return None

    async def _purge(self, invocation_id: str) -> None:
        await purge_now(self._open_scheduler(), parse_id(invocation_id))

    @overload
    async def restart(self, which: str, *, from_entry: int = 0) -> InvocationHandle[Any]: ...
    @overload
    async def restart(self, which: InvocationFilter) -> int: ...

    async def restart(
        self, which: str | InvocationFilter, *, from_entry: int = 0
    ) -> InvocationHandle[Any] | int:
        """Begin a completed invocation anew, as another one; the handle is of that.

        It has the same handler, key, argument and headers, and no idempotency key. What its
        journal has of ids and random numbers stays as it was; ``ctx.invocation_id`` is the new one.

        Args:
          from_entry: What the journal has before this entry is taken over, as far as it ends with
            a whole activation; steps and calls in it do not happen again. 0: nothing is.

        Raises:
          Conflict: It has not completed, or it is a workflow's ``run``, whose key has to be purged
            first; or before *from_entry* it waits for something that only itself could get.
          InvalidInput: The journal has no such entry, or is not kept.
          NotFound: There is none with this id, or it is not kept.
        """
        if isinstance(which, InvocationFilter):
            if from_entry:
                raise InvalidInput("from_entry is an entry of one journal; give the id of one")
            return await self._each_of(which, (Status.COMPLETED,), self._restart)
        return await self._restart(which, from_entry)

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
        return InvocationHandle(self._results, InvocationId(new_id), Accepted.NEW, serde)

    async def _each_of(
        self,
        filter: InvocationFilter,
        statuses: tuple[Status, ...],
        act: Callable[[str], Awaitable[object]],
    ) -> int:
        """Call *act* with the id of each that *filter* means; for how many it did anything."""
        now_ms = self._open_scheduler().clock.now_ms()
        wanted = filter.wanted_before(now_ms, statuses)
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
            outcomes = await asyncio.gather(*(_unless_moot(act, each.id) for each in page.items))
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
