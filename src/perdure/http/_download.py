"""A copy of the data directory as the answer to a request."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from perdure.engine import Engine

_PIECE_BYTES: Final = 1 << 20


class Download(Response):
    """Sends a file, and gives up what made it when it is sent, or the client has gone."""

    def __init__(self, file: BinaryIO, cleanup: contextlib.AsyncExitStack) -> None:
        super().__init__()
        self._file = file
        self._cleanup = cleanup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._cleanup:
            length = os.fstat(self._file.fileno()).st_size
            streamed = StreamingResponse(
                _pieces(self._file),
                media_type="application/octet-stream",
                headers={
                    "content-length": str(length),
                    "content-disposition": 'attachment; filename="data.mdb"',
                },
            )
            await streamed(scope, receive, send)


async def download_backup(engine: Engine) -> Download:
    """The data file, as it is at one moment after now."""
    async with contextlib.AsyncExitStack() as stack:
        file = await stack.enter_async_context(engine.backup_file())
        return Download(file, stack.pop_all())


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece
