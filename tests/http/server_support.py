"""What the tests of the server share: small apps, and clients that are slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from perdure.http._limits import DEFAULT_LIMITS, Limits
from perdure.http._listening import Place, bound
from perdure.http._requests import App, Message, Receive, Scope, Send
from perdure.http._security import Guard, ingress_error
from perdure.http._server import Listener

Headers = list[tuple[bytes, bytes]]


async def answer(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    start = {"type": "http.response.start", "status": 200}
    length = (b"content-length", b"%d" % len(body))
    await send({**start, "headers": [(b"content-type", b"application/json"), length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Receive) -> bytes | None:
    """The body of a request; None if it did not come whole."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def length_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    body = await body_of(receive)
    await answer(send, b"gone" if body is None else b"%d" % len(body))


async def headers_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the names of the headers, when it has read the body."""
    await body_of(receive)
    names = sorted(name.decode() for name, _ in scope["headers"])
    await answer(send, json.dumps(names).encode())


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Asked:
    """A request made of an app without a server."""

    app: App
    method: str = "POST"
    path: str = "/Greeter/greet"
    root_path: str = ""
    query: bytes = b""
    headers: Headers = field(default_factory=list)
    body: Iterable[bytes] = (b"",)

    async def answer(self) -> Answer:
        parts = list(self.body)
        sent: list[Message] = []

        async def receive() -> Message:
            if not parts:
                return {"type": "http.disconnect"}
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": self.root_path,
            "query_string": self.query,
            "headers": self.headers,
        }
        await self.app(scope, receive, send)
        assert [each["type"] for each in sent[:1]] == ["http.response.start"]
        body = b"".join(each.get("body", b"") for each in sent[1:])
        return Answer(sent[0]["status"], dict(sent[0]["headers"]), body)


def guarded(app: App = length_app, **options: Any) -> Guard:
    return Guard(app, **{"form": ingress_error, **options})


class Raw:
    """A client that sends and reads only what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.encode(): value.encode() for name, value in pairs}
        body = await self.reader.readexactly(int(headers[b"content-length"]))
        return Answer(int(head[0].split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Whether the server has closed, or does before it says anything more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@contextlib.asynccontextmanager
async def listening(
    app: App = length_app, limits: Limits = DEFAULT_LIMITS
) -> AsyncIterator[Listener]:
    """A real listener of *app*."""
    place = Place("ingress", "127.0.0.1", 0, "", False)
    listener = Listener(guarded(app, limits=limits), place, bound(place), limits, False)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(0.0)


@contextlib.asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def client_of(app: App = length_app, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Raw]:
    """A client that is connected to a real listener of *app*."""
    async with listening(app, limits) as listener, connected(listener) as client:
        yield client
