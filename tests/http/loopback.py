"""Servers on loopback for tests of the wire, ended with the block that they are for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from engine_support import until


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[str]:
    """The URL of *app* under uvicorn, on a port that was free."""
    config = uvicorn.Config(app, log_config=None, ws="none", **options)
    server = uvicorn.Server(config)
    # As uvicorn's serve() would, but without its handlers of signals: those are pytest's.
    with listening() as bound:
        serving = asyncio.ensure_future(server._serve([bound]))
        try:
            await until(lambda: server.started, "uvicorn")
            yield url_of(bound)
        finally:
            server.should_exit = True
            await serving


def listening() -> socket.socket:
    """A socket on a free port of loopback."""
    # Of a socket that does not name TCP asyncio leaves Nagle's algorithm on: 40 ms a request.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    return bound


def url_of(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}"
