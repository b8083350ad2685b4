"""The tortured server as its parent sees it, and a connection that sees it die."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from load_support import LOST, Answer, Connection

PROGRAM: Final = Path(__file__).parent / "torture_program.py"
START_S: Final = 60.0


class Lost(Exception):
    """The answer did not come: what was asked for may have happened, or may yet, or never."""


class Place:
    """The directory of one trial: the server's data, the world outside, the logs of all lives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.outside = root / "outside.jsonl"
        self.log = root / "server.log"
        self.ledger = root / "ledger.jsonl"


class Server:
    """One life of the server."""

    def __init__(self, place: Place, max_resident: int) -> None:
        self.port, self.admin_port = _free_ports()
        ports = [str(self.port), str(self.admin_port)]
        paths = [str(place.data), str(place.outside)]
        self.started = time.monotonic()
        with place.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *ports, *paths, str(max_resident)], stderr=log
            )

    async def ready(self) -> float:
        """Wait until it answers; how many seconds that took from its start."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.admin_port)
            except ConnectionError:
                assert self._process.poll() is None, "the server did not start: see its log"
                took_s = time.monotonic() - self.started
                assert took_s < START_S, f"the server has not started in {took_s:.0f} s"
                await asyncio.sleep(0.005)
            else:
                writer.close()
                return time.monotonic() - self.started

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, expected: int) -> None:
        """Wait until it has ended, with this exit code."""
        code = await asyncio.to_thread(self._process.wait, 60)
        assert code == expected, f"it ended with {code} and not {expected}: see its log"

    def end(self) -> None:
        """Leave no process behind, whatever has happened."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Link:
    """Connections to both apps of one life of the server, for one request at a time."""

    def __init__(self, server: Server) -> None:
        self._ingress = Connection(server.port)
        self._admin = Connection(server.admin_port)

    async def ask(
        self, method: str, path: str, value: Any = None, *, admin: bool = False, **headers: str
    ) -> Answer:
        """The answer to one request.

        Raises:
          Lost: The server has gone, or stops.
        """
        connection = self._admin if admin else self._ingress
        try:
            answer = await connection.ask(method, path, value, **headers)
        except LOST as error:
            connection.close()
            raise Lost from error
        if answer.status == 503:  # said of what was accepted, too, when the server stops
            connection.close()
            raise Lost
        return answer

    def close(self) -> None:
        self._ingress.close()
        self._admin.close()
