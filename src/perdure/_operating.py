"""The verbs that act on what is there."""

from __future__ import annotations

from perdure._ids import parse_id
from perdure._opened import Opened
from perdure._runtime._cleaner import purge_now


class Operating(Opened):
    """What operators, and the world outside, do to invocations."""

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.resume(parse_id(invocation_id))

    async def purge(self, invocation_id: str) -> None:
        """Remove what is kept of a completed invocation now, and not when its time comes.

        Of a workflow's ``run`` that is also state and promises of its key, which is free then: a
        new ``run`` may begin. Who waits for one of these promises gets ``NotFound``. It has been
        removed, durably, when this returns.

        Raises:
          Conflict: It has not completed; the text says how it stands.
          NotFound: There is none with this id, or it is not kept any more.
        """
        await purge_now(self._open_scheduler(), parse_id(invocation_id))
