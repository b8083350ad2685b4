"""Handles of invocations that were sent."""

from __future__ import annotations

import enum
from typing import Generic, Protocol, TypeVar

from perdure._ids import InvocationId, format_id
from perdure._runtime._layout import Output
from perdure.serde import Serde, decode_failure

R = TypeVar("R")


class Outputs(Protocol):
    """Where a handle gets results from: the engine."""

    async def _await_output(self, invocation_id: InvocationId) -> Output: ...

    async def _output_now(self, invocation_id: InvocationId) -> Output: ...


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
        self, engine: Outputs, invocation_id: InvocationId, accepted: Accepted, serde: Serde[R]
    ) -> None:
        self.id = format_id(invocation_id)
        self.accepted = accepted
        self._engine = engine
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
        output = await self._engine._await_output(self._invocation_id)
        return decode_output(output, self._serde)

    async def output(self) -> R:
        """The result, if there is one now.

        Raises:
          NotReady: The invocation has not completed.
          TerminalError: As the invocation failed.
        """
        output = await self._engine._output_now(self._invocation_id)
        return decode_output(output, self._serde)


def decode_output(output: Output, serde: Serde[R]) -> R:
    """The value, or the failure raised."""
    if output.failed:
        raise decode_failure(output.payload)
    return serde.decode(output.payload, "result")
