"""The attempts of a Restate server that run in this process, and how they are given back.

Theory of operation. An attempt is one request for as long as it lasts: Restate sends what the
handler waits for as it comes, and the SDK answers with what the handler does. Where the request has
ended, the SDK suspends the attempt at the next thing it waits for: that is how Restate takes back
what has waited for long, and it calls another process once there is something to do. So to stop,
the request of each attempt is ended from this side. What waits is given back at once, and costs no
retry; a step that runs is recorded first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

Event: TypeAlias = dict[str, Any]  # of ASGI: values are of any type
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Event, Receive, Send], Awaitable[None]]

_END: Final[Event] = {"type": "http.request", "body": b"", "more_body": False}
_UNAVAILABLE: Final[Event] = {"type": "http.response.start", "status": 503, "headers": []}
_LAST: Final[Event] = {"type": "http.response.body", "body": b"", "more_body": False}


class Attempts:
    """An ASGI app around the one of the SDK, which can give back what runs in it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._running: set[_Request] = set()
        self._is_stopping = False

    @property
    def count(self) -> int:
        """How many attempts run."""
        return len(self._running)

    def give_back(self) -> None:
        """Let each attempt suspend as soon as it waits, and take no new one."""
        self._is_stopping = True
        for each in self._running:
            each.end()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif "/invoke/" not in scope["path"]:
            await self._app(scope, receive, send)
        else:
            request = _Request(receive, send)
            self._running.add(request)
            try:
                if self._is_stopping:
                    await request.refuse()
                else:
                    await self._app(scope, request.receive, request.send)
            finally:
                self._running.discard(request)
                request.close()


async def _live(receive: Receive, send: Send) -> None:
    """Say that the app has nothing to begin, and nothing to end."""
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


class _Request:
    """The request of one attempt, which can be ended from this side.

    Attributes:
      _has_ended: Restate has ended it, or the connection is lost.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._send = send
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._has_ended = asyncio.Event()
        self._is_given_back = False
        self._pump = asyncio.create_task(self._take(receive))

    async def _take(self, receive: Receive) -> None:
        while True:
            event = await receive()
            is_lost = event["type"] == "http.disconnect"
            if is_lost or not self._is_given_back:
                self._events.put_nowait(event)
            if is_lost or not event.get("more_body", False):
                self._has_ended.set()
            if is_lost:
                return

    async def receive(self) -> Event:
        return await self._events.get()

    async def send(self, event: Event) -> None:
        # hypercorn forgets a request with the end of its answer, and fails the whole connection
        # over what Restate still sends in it. The SDK waits too, but only until a signal comes.
        if not event.get("more_body", True):
            await self._has_ended.wait()
        await self._send(event)

    async def refuse(self) -> None:
        await self._send(_UNAVAILABLE)
        await self._has_ended.wait()
        await self._send(_LAST)

    def end(self) -> None:
        if not self._is_given_back and not self._has_ended.is_set():
            self._is_given_back = True
            self._events.put_nowait(_END)

    def close(self) -> None:
        self._pump.cancel()
