"""The verbs that begin invocations, and those that get their results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from perdure import _verbs
from perdure._client._asking import (
    Asked,
    ask_for,
    delay_of,
    headers_of,
    path_of,
    run_of,
    text_id,
)
from perdure._client._connected import Connected
from perdure._client._replies import message_of, record_of, value_of
from perdure._handles import Accepted, InvocationHandle
from perdure.serde import UNTYPED, Serde, serde_for

if TYPE_CHECKING:
    from perdure._client._wire import Wire

# Any, in this module: results are of any type.

R = TypeVar("R")

_NO_SUBMIT = ("bad path", "service 'perdure' not found")
"""How a Restate server refuses a path that it does not have."""


class Invoking(_verbs.Beginning, Connected):
    """Calling, sending, submitting; results by id."""

    _has_submit = True  # until a server says that it has not

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
        return await self._sent(
            asked,
            headers_of(headers, idempotency_key, asked),
            delay_of(delay, asked),
            again=asked.is_run or idempotency_key is not None,
        )

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
        if self._has_submit:
            response = await self._ingress.ask(
                "POST",
                path_of("perdure", "submit", asked.service, asked.key or "", asked.handler),
                body=asked.body,
                headers=checked,
                waits=True,
                again=True,
            )
            if not message_of(response).startswith(_NO_SUBMIT):
                return value_of(response, asked.serde)
            self._has_submit = False
        # On a Restate server: two requests. A result that is not kept is gone in between.
        sent = await self._sent(asked, checked, {}, again=True)
        return await sent.result()

    async def _sent(
        self, asked: Asked, headers: dict[str, bytes], query: dict[str, str], *, again: bool
    ) -> InvocationHandle[Any]:
        response = await self._ingress.ask(
            "POST",
            f"{asked.path}/send",
            query=query,
            body=asked.body,
            headers=headers,
            again=again,
        )
        sent = record_of(response, _Sent)
        return self._handle(sent.id, sent.status, asked.serde)

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
        return await _result(self._ingress, invocation_id, "attach", _serde(returns))

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one now; arguments as of :meth:`attach`.

        Raises:
          NotReady: It has not completed.
          NotFound, TerminalError, Unavailable: As for :meth:`attach`.
        """
        return await _result(self._ingress, invocation_id, "output", _serde(returns))

    @abstractmethod
    async def _cancel(self, invocation_id: str) -> bool: ...


class _Sent(msgspec.Struct):
    """The reply to a send."""

    id: str = msgspec.field(name="invocationId")
    status: Accepted


class _Outcome(Generic[R]):
    """What becomes of an invocation at a server."""

    __slots__ = ("_client", "_id", "_serde")

    def __init__(self, client: Invoking, id: str, serde: Serde[R]) -> None:
        self._client = client
        self._id = id
        self._serde = serde

    async def result(self) -> R:
        return await _result(self._client._ingress, self._id, "attach", self._serde)

    async def output(self) -> R:
        return await _result(self._client._ingress, self._id, "output", self._serde)

    async def cancel(self) -> bool:
        return await self._client._cancel(self._id)


def _serde(returns: Any) -> Serde[Any]:
    return serde_for(UNTYPED if returns is None else returns)


async def _result(wire: Wire, invocation_id: str, verb: str, serde: Serde[R]) -> R:
    path = path_of("restate", "invocation", text_id(invocation_id), verb)
    return value_of(await wire.ask("GET", path, waits=verb == "attach"), serde)
