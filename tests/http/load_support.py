"""What the load tests share: a server in a process of its own, and a client that sees it die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

PROGRAM: Final = Path(__file__).parent / "served_program.py"

LOST: Final = (ConnectionError, asyncio.IncompleteReadError)
"""What a request ends with whose answer the server did not live to give."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.content)


class Connection:
    """One connection to the server, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, value: Any = None, **headers: str) -> Answer:
        """The answer to one request; *value* is its body, as JSON.

        Raises:
          ConnectionError, IncompleteReadError: The server has gone, or closed the connection.
        """
        await self.begin(method, path, value, **headers)
        return await self.answer()

    async def begin(self, method: str, path: str, value: Any = None, **headers: str) -> None:
        """Send a request, and do not wait for the answer."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        body = b"" if value is None else json.dumps(value).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
        lines += ["content-type: application/json"] if body else []
        lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """The answer to the request that was begun."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        content = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split(" ")[1]), headers, content)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


class Served:
    """The server on *directory* in a process of its own, while entered; ended by SIGTERM.

    Args:
      environment: What its environment has in addition to ours.
    """

    def __init__(self, directory: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._directory = directory
        self._environment = {**os.environ, **environment}

    async def __aenter__(self) -> Served:
        command = [sys.executable, str(PROGRAM), str(self._directory), str(self.port)]
        self._process = await asyncio.to_thread(subprocess.Popen, command, env=self._environment)
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:
                assert self._process.poll() is None, "the server did not start"
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            code = await self.end(signal.SIGTERM if error is None else signal.SIGKILL)
            assert error is not None or code == 0

    @property
    def pid(self) -> int:
        return self._process.pid

    async def end(self, number: signal.Signals) -> int:
        """End it by a signal; its exit code."""
        self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait, 30)

    def memory(self) -> int:
        """Bytes of memory that it has to itself."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (kib,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
        return int(kib) * 1024
