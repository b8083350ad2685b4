"""Handles of invocations that were sent."""

from __future__ import annotations

import enum
from typing import Generic, Protocol, TypeVar

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Accepted(enum.StrEnum):
    """Whether ``send`` began an invocation or found one."""

    NEW = "Accepted"
    EXISTING = "PreviouslyAccepted"


class Outcome(Protocol[R_co]):
    """What becomes of one invocation, wherever it runs."""

    async def result(self) -> R_co: ...

    async def output(self) -> R_co: ...

    async def cancel(self) -> bool: ...


class InvocationHandle(Generic[R]):
    """An invocation that was sent: its id, and ways to its result of type R.

    Attributes:
      id: ``inv_`` and 26 characters; keep it to attach later, from any process.
      accepted: Whether this ``send`` began it.
    """

    def __init__(self, id: str, accepted: Accepted, outcome: Outcome[R]) -> None:
        self.id = id
        self.accepted = accepted
        self._outcome = outcome

    def __repr__(self) -> str:
        return f"<InvocationHandle {self.id} {self.accepted.value}>"

    async def result(self) -> R:
        """Wait for the result.

        Cancelling the wait does not cancel the invocation.

        Raises:
          TerminalError: As the invocation failed.
        """
        return await self._outcome.result()

    async def output(self) -> R:
        """The result, if there is one now.

        Raises:
          NotReady: The invocation has not completed.
          TerminalError: As the invocation failed.
        """
        return await self._outcome.output()

    async def cancel(self) -> bool:
        """Ask the invocation to end; see ``engine.cancel``."""
        return await self._outcome.cancel()
