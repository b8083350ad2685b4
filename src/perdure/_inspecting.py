"""The verbs that read: results, and what is known of an invocation."""

from __future__ import annotations

from typing import Any

from perdure._ids import parse_id
from perdure._opened import Opened
from perdure._results import decode_output
from perdure._runtime._check import CheckReport, check_unfinished
from perdure._runtime._describe import Description


class Inspecting(Opened):
    """Results and introspection."""

    async def attach(self, invocation_id: str, returns: Any = None) -> Any:
        """Wait for the result of an invocation; *returns*: its type, else the handler's own.

        Raises:
          InvalidInput: Its handler is not registered here and *returns* is not given.
          NotFound: There is none with this id, or its result is not kept.
          TerminalError: As the invocation failed.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.wait(raw), serde)

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one now.

        Raises:
          NotReady: It has not completed.
          NotFound, TerminalError: As for :meth:`attach`.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.now(raw), serde)

    async def describe(self, invocation_id: str) -> Description:
        """Status, what it waits for, last failure and journal of an invocation.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.describe(parse_id(invocation_id))

    async def check(self) -> CheckReport:
        """Replay the journal of every unfinished invocation against the code at hand, for nothing.

        Nothing is written or delivered, no step runs, and the invocations in memory are left as
        they are: each is replayed beside them and thrown away. Handlers' code runs, as in every
        replay, up to where its journal ends.

        Raises:
          StoreBroken, StoreClosed: The engine failed, or was closed, before the check ended.
        """
        return await check_unfinished(self._open_scheduler())
