"""The drivers of ``_core`` that tests of the programming model run on, behind the same verbs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import hypercorn.asyncio
import restate
from engine_support import QUICK
from hypercorn.config import Config
from loopback import listening, url_of
from npm_packages import node_modules
from restate_server import CONFIG, HERE, PACKAGE, _running, _until_ok, _written, free_ports
from scripted import SERVICES, Body, Script, named

import perdure
import perdure.restate
from perdure import Engine

T = TypeVar("T")

HANG_S = 10.0
"""A test that takes longer hangs."""

SUSPENDING = """
[worker.invoker]
inactivity-timeout = "0s"
"""

QUICK_RETRIES = """
[default-retry-policy]
initial-interval = "5ms"
exponentiation-factor = 1.0
max-interval = "5ms"
max-attempts = 10
"""

SMALL = 'rocksdb-total-memory-size = "256.0 MiB"\n'


class Place(NamedTuple):
    """URLs of a Restate server, and its process."""

    ingress: str
    admin: str
    process: subprocess.Popen[bytes]


class World:
    """A driver, with the scripted services and others.

    Attributes:
      on_restate: It is a Restate server.
      suspends: At every await.
      step_s: How long a step is to run that something overtakes. A Restate server that wants an
        attempt to suspend tells it nothing more, and it waits for its running steps to end.
    """

    def __init__(self, place: Place | Path, *, suspends: bool) -> None:
        self._place = place
        self.on_restate = isinstance(place, Place)
        self.suspends = suspends
        self.step_s = 0.5 if self.on_restate and suspends else 20.0
        self.key = uuid.uuid4().hex  # of this test alone: all share one server

    @contextlib.asynccontextmanager
    async def open(self, services: list[Any] | None = None) -> AsyncIterator[Any]:
        """What has the verbs of an engine; Any: an engine or a client."""
        if isinstance(self._place, Place):
            url, admin_url, _ = self._place
            async with perdure.connect(url, admin_url=admin_url) as client:
                yield client
        else:
            async with Engine(
                self._place,
                [service() for service in SERVICES] if services is None else services,
                durability="memory",
                max_resident=0 if self.suspends else 10_000,
                default_retry=QUICK,
                drain_timeout=5.0,
            ) as engine:
                yield engine

    def play(self, story: Callable[[Any], Awaitable[T]], services: list[Any] | None = None) -> T:
        """What *story*, which is given the verbs, returns; it fails, rather than hangs.

        Args:
          services: In the place of the scripted ones.
        """

        async def main() -> T:
            async with asyncio.timeout(HANG_S), self.open(services) as verbs:
                return await story(verbs)

        with contextlib.ExitStack() as stack:
            if services is not None and isinstance(self._place, Place):
                uri = stack.enter_context(hosted(perdure.restate.app(services)))
                asyncio.run(_register(self._place, [uri]))
            return asyncio.run(main())

    async def signal(self, verbs: Any, invocation_id: str, name: str, value: Any) -> None:
        """Send a signal, as one can there: Restate takes them from handlers of its SDKs alone."""
        if self.on_restate:
            arg = {"id": invocation_id, "name": name, "value": value}
            await verbs.call("Outside.signal", arg)
        else:
            await verbs.signal(invocation_id, name, value)

    def result(self, body: Body) -> Any:
        """The result of *body* as the run of a workflow."""
        return self.play(lambda verbs: verbs.submit(Script.run, named(body), key=self.key))


def outside() -> Any:
    """An app of the SDK's own, without perdure."""
    service = restate.Service("Outside")

    @service.handler()
    async def signal(ctx: restate.Context, arg: dict[str, Any]) -> None:
        ctx.resolve_signal(arg["id"], arg["name"], arg["value"])

    return restate.app([service])


# -- the real thing -------------------------------------------------------------------------------


@contextlib.contextmanager
def hosted(app: Any) -> Iterator[str]:
    """The URL of *app*, served over HTTP/2 in a thread of this process."""
    stop: list[Callable[[], object]] = []
    began = threading.Event()
    with listening() as bound:
        bound.listen(256)

        async def serve() -> None:
            stopped = asyncio.Event()
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
            config = Config()
            config.bind = [f"fd://{bound.detach()}"]
            config.accesslog = config.errorlog = None
            config.graceful_timeout = 0.2
            began.set()
            await hypercorn.asyncio.serve(app, config, shutdown_trigger=stopped.wait)

        url = url_of(bound)
        thread = threading.Thread(target=asyncio.run, args=(serve(),), name="handlers")
        thread.start()
        began.wait()
        try:
            yield url
        finally:
            stop[0]()
            thread.join(10)


@contextlib.contextmanager
def restate_server(directory: Path, uris: list[str], extra: str) -> Iterator[Place]:
    """A Restate server with its data in *directory*, to which what is at *uris* is registered."""
    binary = node_modules(HERE / "restate") / PACKAGE / "bin" / "restate-server"
    node, admin, ingress = free_ports(3)
    text = SMALL + CONFIG.format(node=node, admin=admin, ingress=ingress) + extra
    command = [
        binary,
        "--no-logo",
        "-c",
        _written(directory, text),
        "--base-dir",
        directory / "base",
    ]
    with _running(command, directory / "server.log", HERE) as process:
        place = Place(f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}", process)
        asyncio.run(_register(place, uris))
        yield place


async def _register(place: Place, uris: list[str]) -> None:
    ingress, admin, process = place
    async with httpx.AsyncClient() as client:
        services: set[str] = set()
        for uri in uris:
            made = await _until_ok(client, "POST", f"{admin}/deployments", {"uri": uri}, process)
            services |= {each["name"] for each in made.json()["services"]}
        known: set[str] = set()
        while not services <= known:  # the ingress learns of them later than the admin
            health = await _until_ok(client, "GET", f"{ingress}/restate/health", None, process)
            known = set(health.json()["services"])
