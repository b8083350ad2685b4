"""The verbs that act on what is there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, overload

from perdure._handles import InvocationHandle
from perdure._runtime._filter import InvocationFilter
from perdure.errors import InvalidInput

Act = Literal["cancel", "kill", "pause", "resume", "purge", "restart"]


class Operating(ABC):
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
            return await self._each("cancel", which)
        return await self._cancel(which)

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
            return await self._each("kill", which)
        return await self._kill(which)

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
            return await self._each("pause", which)
        return await self._pause(which)

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
            return await self._each("resume", which)
        return await self._resume(which)

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
            return await self._each("purge", which)
        await self._purge(which)
        return None

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
            return await self._each("restart", which)
        return await self._restart(which, from_entry)

    @abstractmethod
    async def _each(self, act: Act, filter: InvocationFilter) -> int:
        """Do *act* to each that *filter* means; for how many it did anything."""

    @abstractmethod
    async def _cancel(self, invocation_id: str) -> bool: ...

    @abstractmethod
    async def _kill(self, invocation_id: str) -> bool: ...

    @abstractmethod
    async def _pause(self, invocation_id: str) -> bool: ...

    @abstractmethod
    async def _resume(self, invocation_id: str) -> bool: ...

    @abstractmethod
    async def _purge(self, invocation_id: str) -> None: ...

    @abstractmethod
    async def _restart(self, invocation_id: str, from_entry: int) -> InvocationHandle[Any]: ...
