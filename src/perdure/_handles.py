"""Handles of invocations that were sent."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

from perdure._ids import InvocationId, format_id
from perdure._results import Results, decode_output
from perdure.serde import Serde

R = TypeVar("R")


class Accepted(enum.StrEnum):
    """Whether ``send`` began an invocation or found one."""

    NEW = "Accepted"
    EXISTING = "PreviouslyAccepted"


class InvocationHandle(Generic[R]):
    """An invocation that was sent: its id, and ways to its result of type R.

    Attributes:
      id: ``inv_`` and 26 characters; keep it to attach later, from any process.
      accepted: Whether this ``send`` began it.
    """

    def __init__(
        self, results: Results, invocation_id: InvocationId, accepted: Accepted, serde: Serde[R]
    ) -> None:
        self.id = format_id(invocation_id)
        self.accepted = accepted
        self._results = results
        self._invocation_id = invocation_id
        self._serde = serde

    def __repr__(self) -> str:
        return f"<InvocationHandle {self.id} {self.accepted.value}>"

    async def result(self) -> R:
        """Wait for the result.

        Cancelling the wait does not cancel the invocation.

        Raises:
          TerminalError: As the invocation failed.
        """
        output = await self._results.wait(self._invocation_id)
        return decode_output(output, self._serde)

    async def output(self) -> R:
        """The result, if there is one now.

        Raises:
          NotReady: The invocation has not completed.
          TerminalError: As the invocation failed.
        """
        output = await self._results.now(self._invocation_id)
        return decode_output(output, self._serde)

    async def cancel(self) -> bool:
        """Ask the invocation to end; see ``engine.cancel``."""
        return await self._results.cancel(self._invocation_id)
