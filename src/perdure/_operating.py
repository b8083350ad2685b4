"""The verbs that act on what is there."""

from __future__ import annotations

from perdure._ids import parse_id
from perdure._opened import Opened


class Operating(Opened):
    """What operators, and the world outside, do to invocations."""

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.resume(parse_id(invocation_id))
