"""How answers leave a real listener: their heads and bodies, in as few pieces as can be."""

from __future__ import annotations

import asyncio
from typing import cast

from server_support import answer, client_of

from perdure.http._joining import Joining
from perdure.http._requests import Receive, Scope, Send


class Written:
    """Stands for a transport, and keeps what is written to it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, content: bytes) -> None:
        assert not self.closed
        self.pieces.append(content)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def joining(written: Written) -> Joining:
    return Joining(cast(asyncio.Transport, written))


def test_a_head_leaves_with_the_beginning_of_its_body_and_the_rest_as_it_comes() -> None:
    written = Written()
    transport = joining(written)
    for content in (b"head ", b"first", b"second"):
        transport.write(content)
    assert written.pieces == [b"head first", b"second"]


def test_a_head_whose_body_is_empty_leaves() -> None:
    written = Written()
    transport = joining(written)
    transport.write(b"head")
    transport.write(b"")
    assert written.pieces == [b"head"]


def test_a_head_leaves_before_the_connection_closes() -> None:
    written = Written()
    transport = joining(written)
    transport.write(b"head")
    transport.close()
    assert (written.pieces, written.closed, transport.is_closing()) == ([b"head"], True, True)


def test_an_answer_of_which_only_the_head_is_wanted_leaves() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"")

    async def scenario() -> None:
        async with client_of(app) as client:
            for _ in range(2):
                await client.send(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert (await client.answer()).status == 200

    asyncio.run(scenario())


def test_a_client_that_waits_to_be_told_to_send_its_body_is_told_so() -> None:
    async def scenario() -> None:
        async with client_of() as client:
            head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n"
            await client.send(head, b"expect: 100-continue\r\n\r\n")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"body")
            assert (await client.answer()).body == b"4"

    asyncio.run(scenario())
