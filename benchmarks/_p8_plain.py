"""A server that answers without looking, to see what the client can do: prints its port."""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks._measure import run

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n"
    b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
    b'"hi Bob"'
)


class Plain(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Plain, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run(serve)
