"""The verbs that begin invocations, and those that get their results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar

from perdure import _verbs
from perdure._client._asking import ask_for, delay_of, headers_of, run_of
from perdure._client._connected import Connected
from perdure._client._replies import value_of
from perdure._client._requests import result_of, send
from perdure._handles import Accepted, InvocationHandle
from perdure.serde import UNTYPED, Serde, serde_for

# Any, in this module: results are of any type.

R = TypeVar("R")


class Invoking(_verbs.Beginning, Connected):
    """Calling, sending, submitting; results by id."""

    async def _call(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
    ) -> Any:
        asked = ask_for(handler, arg, key, returns)
        response = await self._ingress.ask(
            "POST",
            asked.path,
            body=asked.body,
            headers=headers_of(headers, idempotency_key, asked),
            waits=True,
            again=idempotency_key is not None,
        )
        return value_of(response, asked.serde)

    async def _send(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        delay: timedelta | float | None,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
    ) -> InvocationHandle[Any]:
        asked = ask_for(handler, arg, key, returns)
        sent = await send(
            self._ingress,
            asked,
            headers_of(headers, idempotency_key, asked),
            delay_of(delay, asked),
            again=asked.is_run or idempotency_key is not None,
        )
        return self._handle(sent.id, sent.status, asked.serde)

    async def _submit(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        headers: Mapping[str, str] | None,
    ) -> Any:
        asked = run_of(ask_for(handler, arg, key, returns))
        checked = headers_of(headers, None, asked)
        return await (await self._at_ingress()).submit(asked, checked)

    def _handle(self, id: str, accepted: Accepted, serde: Serde[R]) -> InvocationHandle[R]:
        return InvocationHandle(id, accepted, _Outcome(self, id, serde))

    async def attach(self, invocation_id: str, returns: Any = None) -> Any:
        """Wait for the result of an invocation, however often the connection is lost meanwhile.

        Args:
          invocation_id: ``inv_`` and 26 characters.
          returns: Type of the result; without it, plain builtins as JSON has them.

        Raises:
          NotFound: There is none with this id, or its result is not kept.
          TerminalError: As the invocation failed.
          Unavailable: The server was not reached for as long as ``timeout``.
        """
        return await result_of(self._ingress, invocation_id, "attach", _serde(returns))

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one now; arguments as of :meth:`attach`.

        Raises:
          NotReady: It has not completed.
          NotFound, TerminalError, Unavailable: As for :meth:`attach`.
        """
        return await result_of(self._ingress, invocation_id, "output", _serde(returns))

    @abstractmethod
    async def _cancel(self, invocation_id: str) -> bool: ...


class _Outcome(Generic[R]):
    """What becomes of an invocation at a server."""

    __slots__ = ("_client", "_id", "_serde")

    def __init__(self, client: Invoking, id: str, serde: Serde[R]) -> None:
        self._client = client
        self._id = id
        self._serde = serde

    async def result(self) -> R:
        return await result_of(self._client._ingress, self._id, "attach", self._serde)

    async def output(self) -> R:
        return await result_of(self._client._ingress, self._id, "output", self._serde)

    async def cancel(self) -> bool:
        return await self._client._cancel(self._id)


def _serde(returns: Any) -> Serde[Any]:
    return serde_for(UNTYPED if returns is None else returns)
