"""A client that asks as fast as it is answered: ``python -m benchmarks._http_client JSON``.

Each connection is kept alive and has one request under way: the next is sent when the answer to the
one before is there. Requests are made before the clock starts and answers are read by their
length alone, so that the client costs little beside a server on the same machine. Prints what it
measured as one JSON object.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import cast

from benchmarks._measure import milliseconds, percentile, run


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server on loopback.

    Attributes:
      path: With ``{key}`` where each request has one of *keys* keys, at random.
      body: JSON.
      warm_up: Seconds in which nothing is counted.
    """

    port: int
    path: str
    body: str
    connections: int
    seconds: float
    warm_up: float = 1.0
    keys: int = 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load has shown.

    Attributes:
      accepted: All answers with 200, the warm-up and the end included; *other*: all others.
    """

    calls_per_s: float
    ms_p50: float
    ms_p99: float
    accepted: int
    other: int


def measured(load: Load) -> Measured:
    """Put *load* on the server, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._http_client", json.dumps(dataclasses.asdict(load))],
        stdout=subprocess.PIPE,
        check=True,
        timeout=load.seconds + load.warm_up + 60,
    )
    return Measured(**json.loads(done.stdout))


class _Tally:
    """What the connections of one client count together."""

    def __init__(self, load: Load) -> None:
        keys = range(load.keys if "{key}" in load.path else 1)
        self.requests = [_request(load, f"k{key}") for key in keys]
        self.random = random.Random(8)
        self.counting = False
        self.ending = False
        self.lasting: list[float] = []
        self.accepted = 0
        self.other = 0


def _request(load: Load, key: str) -> bytes:
    path = load.path.replace("{key}", key)
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(load.body)}\r\n\r\n{load.body}"
    ).encode()


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, tally: _Tally, ended: asyncio.Future[None]) -> None:
        self._tally = tally
        self._ended = ended
        self._read = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._read = read = self._read + data if self._read else data
        head = read.find(b"\r\n\r\n") + 4
        if head < 4 or len(read) < head + _content_length(read[:head]):
            return
        tally = self._tally
        if read.startswith(b"HTTP/1.1 200 "):
            tally.accepted += 1
            if tally.counting:
                tally.lasting.append(time.perf_counter() - self._sent_at)
        else:
            tally.other += 1
        self._read = b""
        if tally.ending:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended.done():
            return
        if error is None and self._tally.ending:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error or ConnectionError("closed by the server"))

    def _send(self) -> None:
        requests = self._tally.requests
        self._sent_at = time.perf_counter()
        self._transport.write(requests[int(self._tally.random.random() * len(requests))])


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:") + 17
    if at < 17:
        raise SystemExit(f"an answer without content-length: {head!r}")
    return int(head[at : head.index(b"\r\n", at)])


async def _ask(load: Load) -> Measured:
    loop = asyncio.get_running_loop()
    tally = _Tally(load)
    ended: list[asyncio.Future[None]] = [loop.create_future() for _ in range(load.connections)]
    for future in ended:
        await loop.create_connection(
            lambda future=future: _Connection(tally, future),  # type: ignore[misc]
            "127.0.0.1",
            load.port,
        )
    await asyncio.sleep(load.warm_up)
    tally.counting, begin = True, time.perf_counter()
    await asyncio.sleep(load.seconds)
    tally.counting, lasted = False, time.perf_counter() - begin
    tally.ending = True
    await asyncio.wait_for(asyncio.gather(*ended), timeout=30)
    return Measured(
        round(len(tally.lasting) / lasted, 1),
        milliseconds(percentile(tally.lasting, 50)),
        milliseconds(percentile(tally.lasting, 99)),
        tally.accepted,
        tally.other,
    )


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(lambda: _ask(Load(**json.loads(sys.argv[1])))))))
