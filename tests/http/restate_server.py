"""A real Restate, with the services of restate_services.py, to compare perdure with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from loopback import listening, url_of
from npm_packages import node_modules

PACKAGE = "@restatedev/restate-server-linux-x64"
HERE = Path(__file__).parent
START_S = 60.0
STOP_S = 10.0

CONFIG = """\
listen-mode = "tcp"
node-name = "n1"
bind-address = "127.0.0.1:{node}"
advertised-address = "http://127.0.0.1:{node}/"
default-num-partitions = 1
disable-telemetry = true
log-filter = "warn"

[admin]
bind-address = "127.0.0.1:{admin}"

[ingress]
bind-address = "127.0.0.1:{ingress}"
"""


class Restate(NamedTuple):
    """URLs."""

    ingress: str
    admin: str


@contextlib.asynccontextmanager
async def restate(directory: Path) -> AsyncIterator[Restate]:
    """Restate on loopback with its data in *directory*; skips where there is none."""
    server = server_binary()
    node, admin, ingress, endpoint = free_ports(4)
    config = _written(directory, CONFIG.format(node=node, admin=admin, ingress=ingress))
    handlers = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{endpoint}"]
    command = [server, "--no-logo", "-c", config, "--base-dir", directory / "base"]
    with (
        _running([*handlers, "restate_services:app"], directory / "endpoint.log") as serving,
        _running(command, directory / "server.log") as it,
    ):
        urls = Restate(f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}")
        async with httpx.AsyncClient() as client:
            await _until_ok(client, "GET", f"http://127.0.0.1:{endpoint}/discover", None, serving)
            uri = {"uri": f"http://127.0.0.1:{endpoint}"}
            await _until_ok(client, "POST", f"{urls.admin}/deployments", uri, it)
            await _until_ok(client, "POST", f"{urls.ingress}/Greeter/greet", "Bob", it)
        yield urls


def server_binary() -> Path:
    """The server's program, from npm; skips where there is none."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip(f"{PACKAGE} is for Linux on x86-64")
    return node_modules(HERE / "restate") / PACKAGE / "bin" / "restate-server"


def _written(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True)
    config = directory / "restate.toml"
    config.write_text(text)
    return config


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has: these servers can not tell which they took."""
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(listening()) for _ in range(count)]
        return [int(url_of(each).rpartition(":")[2]) for each in bound]


@contextlib.contextmanager
def _running(command: list[Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """*command* while the block runs, however that ends."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=HERE, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ok(
    client: httpx.AsyncClient, method: str, url: str, body: Any, process: subprocess.Popen[bytes]
) -> None:
    """Ask until the answer is one of success, or START_S are over."""
    answer: Any = None
    async with asyncio.timeout(START_S):
        while True:
            assert process.poll() is None, f"{process.args!r} has ended with {process.returncode}"
            try:
                answer = await client.request(method, url, json=body, timeout=START_S)
            except httpx.TransportError as error:
                answer = error
            else:
                if answer.status_code < 400 or url.endswith("/discover"):
                    return
            await asyncio.sleep(0.05)
