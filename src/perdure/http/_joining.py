"""Answers in one piece."""

from __future__ import annotations

import asyncio
from typing import Final

_CONTINUE: Final = b"HTTP/1.1 100 "


class Joining:
    """The part of a transport that uvicorn answers through: the head leaves with what follows it.

    Alone it would cost the server a system call, and the client another.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None  # None: there was none; empty: it has left

    def write(self, content: bytes) -> None:
        if self._head:
            content, self._head = self._head + content, b""
        elif self._head is None and not content.startswith(_CONTINUE):
            self._head = content
            return
        self._transport.write(content)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()
