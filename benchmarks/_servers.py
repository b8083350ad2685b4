"""The servers that P8 and P12 ask, each in processes of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PACKAGE = "@restatedev/restate-server-linux-x64"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "perdure-benchmarks"
START_S = 60.0
STOP_S = 30.0

PARTITIONS = 4
"""Of 2, 4 and 24 (the default), 2 and 4 are equally fast on two processors."""

RESTATE = """\
listen-mode = "tcp"
node-name = "n1"
bind-address = "127.0.0.1:{node}"
advertised-address = "http://127.0.0.1:{node}/"
default-num-partitions = {partitions}
disable-telemetry = true
log-filter = "warn"

[admin]
bind-address = "127.0.0.1:{admin}"

[ingress]
bind-address = "127.0.0.1:{ingress}"

[worker.invoker]
inactivity-timeout = "{inactivity}"
"""

INACTIVITY = "1m"
"""How long an invocation may wait before it is suspended: the default."""

HYPERCORN = """\
bind = "127.0.0.1:{endpoint}"
worker_class = "uvloop"
workers = 0  # none beside the process that is started
loglevel = "ERROR"
# The defaults close a connection after 1,000 requests, which Restate sees as failed attempts.
keep_alive_max_requests = 1000000000
h2_max_concurrent_streams = 1000
"""


class Skipped(Exception):
    """Something that is measured beside perdure is not to be had here; says what."""


def restate_server() -> Path:
    """The executable of Restate, from npm the first time.

    Raises:
      Skipped: It is not to be had on this machine.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Skipped(f"{PACKAGE} is for Linux on x86-64")
    found = CACHE / "node_modules" / PACKAGE / "bin" / "restate-server"
    if not found.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise Skipped("Restate's server comes from npm, and there is no npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--prefix", CACHE, PACKAGE],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not found.exists():
            raise Skipped(f"npm can not install {PACKAGE}: {done.stderr[-300:]}")
    return found


def version_of(server: Path) -> str:
    done = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


class Restate(NamedTuple):
    """Ports of a server, and the process ids of its handlers."""

    ingress: int
    admin: int
    handlers: Sequence[int]


@contextmanager
def restate(directory: Path) -> Iterator[int]:
    """Restate with P8's handlers; yields the port of its ingress.

    Raises:
      Skipped: A part of it is not to be had on this machine.
    """
    with restate_with(directory, {"benchmarks._p8_restate:app": ("/Greeter/greet", "Bob")}) as it:
        yield it.ingress


@contextmanager
def restate_with(
    directory: Path, apps: Mapping[str, tuple[str, object]], *, inactivity: str = INACTIVITY
) -> Iterator[Restate]:
    """Restate with *apps*, each in a process of its own.

    Args:
      apps: ``module:app`` to the path and body of a call that it answers once it is ready.
      inactivity: How long an invocation may wait before it is suspended.

    Raises:
      Skipped: A part of it is not to be had on this machine.
    """
    server = restate_server()
    try:
        import hypercorn
        import restate as sdk
    except ImportError as error:
        raise Skipped(f"the handlers need hypercorn and restate-sdk: {error}") from error
    del hypercorn, sdk
    node, admin, ingress, *endpoints = free_ports(3 + len(apps))
    directory.mkdir()
    config = RESTATE.format(
        node=node, admin=admin, ingress=ingress, partitions=PARTITIONS, inactivity=inactivity
    )
    (directory / "restate.toml").write_text(config)
    command = [str(server), "--no-logo", "-c", str(directory / "restate.toml")]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("wb")).fileno()
        handlers = []
        for endpoint, app in zip(endpoints, apps, strict=True):
            hypercorn_config = directory / f"hypercorn-{endpoint}.toml"
            hypercorn_config.write_text(HYPERCORN.format(endpoint=endpoint))
            serve = [sys.executable, "-m", "hypercorn", "-c", str(hypercorn_config), app]
            handlers.append(stack.enter_context(ended_at_last(serve, log)))
        base = str(directory / "base")
        process = stack.enter_context(ended_at_last([*command, "--base-dir", base], log))
        wait_for_port(ingress, process)
        wait_for_port(admin, process)
        for endpoint, handler, (path, body) in zip(endpoints, handlers, apps.values(), strict=True):
            wait_for_port(endpoint, handler)
            uri = f"http://127.0.0.1:{endpoint}"
            until_answered(f"http://127.0.0.1:{admin}/deployments", {"uri": uri}, process)
            until_answered(f"http://127.0.0.1:{ingress}{path}", body, process)
        yield Restate(ingress, admin, [handler.pid for handler in handlers])


@contextmanager
def perdure(directory: Path) -> Iterator[int]:
    """perdure with P8's handlers; yields the port of its ingress."""
    (ingress,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks._p8_services", str(directory), str(ingress)]
    with ended_at_last(command, None) as process:
        wait_for_port(ingress, process)
        until_answered(f"http://127.0.0.1:{ingress}/Greeter/greet", "Bob", process)
        yield ingress


@contextmanager
def plain() -> Iterator[int]:
    """A server that does nothing; yields its port."""
    command = [sys.executable, "-m", "benchmarks._p8_plain"]
    with ended_at_last(command, subprocess.PIPE) as process:
        assert process.stdout is not None
        with process.stdout as printed:
            yield int(printed.readline())


@contextmanager
def ended_at_last(command: list[str], output: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """*command* while the block runs, however that ends; *output*: where it prints to."""
    process = subprocess.Popen(command, stdout=output, stderr=None if output is None else output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has: the servers can not be asked which they took."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in moments(process):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return


def until_answered(url: str, body: object, process: subprocess.Popen[bytes]) -> None:
    """POST *body* as JSON until the answer is one of success."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    for _ in moments(process):
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(request, timeout=START_S),
        ):
            return


def moments(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Times to look whether *process* is ready.

    Raises:
      RuntimeError: It has ended, or START_S are over.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended with {process.returncode}")
        yield
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} is not ready after {START_S:.0f} s")
