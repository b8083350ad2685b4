"""A real Restate, to compare perdure with or to serve handlers to, and a process of handlers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
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


def hypercorn(app: str) -> Callable[[int], list[Any]]:
    """The command that serves *app*, ``module:name``, on a port of loopback."""
    return lambda port: [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", app]


@contextlib.asynccontextmanager
async def restate(
    directory: Path,
    handlers: Callable[[int], list[Any]] | None = None,
    folder: Path = HERE,
) -> AsyncIterator[Restate]:
    """Restate on loopback with its data in *directory*; skips where there is none.

    Args:
      handlers: The command that serves handlers on a port; they are registered. None: those of
        restate_services.py.
      folder: Where it runs, and finds its modules.
    """
    serve = handlers or hypercorn("restate_services:app")
    server = server_binary()
    node, admin, ingress, endpoint = free_ports(4)
    config = _written(directory, CONFIG.format(node=node, admin=admin, ingress=ingress))
    command = [server, "--no-logo", "-c", config, "--base-dir", directory / "base"]
    with (
        _running(serve(endpoint), directory / "endpoint.log", folder) as serving,
        _running(command, directory / "server.log", folder) as it,
    ):
        urls = Restate(f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}")
        async with httpx.AsyncClient() as client:
            await _until_ok(client, "GET", f"http://127.0.0.1:{endpoint}/discover", None, serving)
            uri = {"uri": f"http://127.0.0.1:{endpoint}"}
            made = await _until_ok(client, "POST", f"{urls.admin}/deployments", uri, it)
            services = {each["name"] for each in made.json()["services"]}
            known: set[str] = set()
            while not services <= known:  # the ingress learns of them later than the admin
                health = await _until_ok(client, "GET", f"{urls.ingress}/restate/health", None, it)
                known = set(health.json()["services"])
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
def _running(command: list[Any], log: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """*command* in *folder* while the block runs, however that ends."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=environment
        )
    try:
        yield process
    finally:
        # Of SIGTERM hypercorn hears nothing: the SDK takes it from it with the first request.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ok(
    client: httpx.AsyncClient, method: str, url: str, body: Any, process: subprocess.Popen[bytes]
) -> httpx.Response:
    """Ask until the answer is one of success, or START_S are over."""
    async with asyncio.timeout(START_S):
        while True:
            assert process.poll() is None, f"{process.args!r} has ended with {process.returncode}"
            with contextlib.suppress(httpx.TransportError):
                answer = await client.request(method, url, json=body, timeout=START_S)
                if answer.status_code < 400 or url.endswith("/discover"):
                    return answer
            await asyncio.sleep(0.05)
