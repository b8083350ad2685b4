"""A request as the apps see it: its body, its headers, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qsl

from perdure.http._replies import Overloaded, Reply
from perdure.http._traffic import Waiting, may_wait

T = TypeVar("T")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

PATIENCE_S: Final = 1.0
"""How long an answer is waited for before it is looked whether the client has gone."""

# Of the connection, or secret: no handler's business, and not to be kept in any journal.
_NOT_HANDED_ON: Final = frozenset(
    {
        *(b"authorization", b"connection", b"content-length", b"cookie", b"expect", b"host"),
        *(b"idempotency-key", b"keep-alive", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)


class ClientGone(Exception):
    """The client has closed the connection: nobody is there to be answered."""


class Request(NamedTuple):
    """Attributes:
    headers: By lower-case name; of several with one name, the last.
    """

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Request:
        return cls(scope, receive, dict(scope["headers"]))

    @property
    def content_type(self) -> bytes | None:
        return self.headers.get(b"content-type")

    def query(self) -> dict[str, str]:
        """The parameters behind the question mark; of several with one name, the last."""
        text = self.scope["query_string"].decode("latin-1")
        return dict(parse_qsl(text, keep_blank_values=True)) if text else {}

    async def body(self) -> bytes:
        """All of the body.

        Raises:
          ClientGone: It has not come whole.
        """
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            return bytes(message.get("body", b""))
        parts: list[bytes] = []
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)
            message = await self.receive()

    def handed_on(self) -> dict[str, str]:
        """The headers that a handler sees; of several with one name, their values in a list."""
        handed: dict[str, str] = {}
        for raw, value in self.scope["headers"]:
            if raw in _NOT_HANDED_ON:
                continue
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            handed[name] = f"{handed[name]}, {text}" if name in handed else text
        query = self.scope["query_string"]
        path = (self.scope.get("raw_path") or self.scope["path"].encode()).decode("latin-1")
        handed["x-restate-ingress-path"] = f"{path}?{query.decode('latin-1')}" if query else path
        return handed

    def check_room(self) -> None:
        """To be called before what is to be waited for is begun.

        Raises:
          Overloaded: As many requests wait as may.
        """
        if not may_wait(self.scope):
            raise Overloaded("too many requests wait for results; nothing was accepted, try again")

    async def unless_gone(self, answer: asyncio.Future[T]) -> T:
        """Wait for *answer* as long as the client does; to be called after the body was read.

        Raises:
          ClientGone: The client has gone. The wait is cancelled; what it was for goes on.
        """
        watch = _Watch(self, answer)
        try:
            with Waiting(self.scope):
                return await answer
        except asyncio.CancelledError:
            if watch.gone:
                raise ClientGone from None
            raise
        finally:
            watch.end()
            answer.cancel()


class _Watch:
    """Looks whether the client of *request* is still there, and cancels *answer* when it is not.

    It begins after PATIENCE_S: most answers are there before, and need no task that looks.
    """

    __slots__ = ("_answer", "_looking", "_request", "_timer", "gone")

    def __init__(self, request: Request, answer: asyncio.Future[Any]) -> None:
        self._request = request
        self._answer = answer
        self._looking: asyncio.Task[None] | None = None
        self._timer = answer.get_loop().call_later(PATIENCE_S, self._begin)
        self.gone = False

    def _begin(self) -> None:
        self._looking = self._answer.get_loop().create_task(self._look())

    async def _look(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        if not self._answer.done():
            self.gone = True
            self._answer.cancel()

    def end(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()


async def send_reply(send: Send, answer: Reply) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.content})
