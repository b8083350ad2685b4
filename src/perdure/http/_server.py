"""``perdure serve``: the ingress and the admin app of one engine, each on its port, in one loop.

Theory of operation. Both sockets are taken before the engine opens, so that a port in use leaves
nothing behind, and listen after. To stop, the server takes nothing new, ends the waits for results
that are not there in a moment (what they wait for goes on after the next start), lets requests that
are being worked on end within a grace time, and closes the engine, which drains. Of uvicorn it has
the protocol alone: its servers would each handle the signals, and each look ten times a second
whether they are to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, TypedDict, Unpack

import uvicorn

from perdure.engine import Engine
from perdure.errors import PerdureError
from perdure.http._apps import admin, ingress
from perdure.http._connection import Connection, Watch
from perdure.http._limits import DEFAULT_LIMITS, Limits
from perdure.http._listening import (
    BACKLOG,
    CanNotServe,
    Place,
    address_of,
    room_for_connections,
    sockets_of_all,
)
from perdure.http._logs import LogFormat, log_to_stderr
from perdure.http._process import STOP_SIGNALS, run_alone, stopper
from perdure.http._security import Guard
from perdure.http._tokens import Tokens

logger = logging.getLogger("perdure.http")

ADMIN_CONNECTIONS: Final = 128
"""Of ``Limits.connections`` apart, so that the busiest ingress leaves room for its operators."""

WAITS_S: Final = 0.5
"""How long results are waited for in a stop: those of quick handlers still reach who has asked."""

_CUT_OFF_S: Final = 1.0
"""How long tasks that were cancelled, and the last bytes of answers, are waited for."""


class Listener:
    """One app on its sockets."""

    def __init__(
        self, app: Guard, place: Place, sockets: list[socket.socket], limits: Limits, log: bool
    ) -> None:
        self.place = place
        self.port: int = sockets[0].getsockname()[1]
        self._app = app
        self.sockets = sockets
        self.watch = Watch(limits, app.form)
        self._access_log = log
        self._servers: list[asyncio.Server] = []
        # The ingress answers pages of any origin, as Restate's does; a page that could reach the
        # admin app could end everything.
        app.local_only = bool(place.flag) and not place.guarded
        self._config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.idle_seconds,
        )
        self._config.load()

    async def start(self) -> None:
        self.watch.start()
        loop = asyncio.get_running_loop()
        for sock in self.sockets:
            self._servers.append(
                await loop.create_server(self._connection, sock=sock, backlog=BACKLOG)
            )
        address = address_of(self.place.host or "0.0.0.0", self.port)
        logger.info("the %s listens on http://%s", self.place.name, address)

    def _connection(self) -> Connection:
        return Connection(self._config, self.watch, access_log=self._access_log)

    async def stop(self, grace_s: float) -> None:
        """Take nothing new, and end what is there: waits soon, work within *grace_s*."""
        for server in self._servers:
            server.close()
        state = self.watch.state
        for connection in tuple(state.connections):
            connection.shutdown()
        waits_s = min(WAITS_S, grace_s)
        await _ended(state.tasks, waits_s)
        self._app.traffic.stop()
        await _ended(state.tasks, grace_s - waits_s)
        late = tuple(state.tasks)
        if late:
            logger.warning("%d requests to the %s are cut off", len(late), self.place.name)
            for connection in tuple(state.connections):
                if isinstance(connection, Connection):  # all are
                    connection.cut_off()
            for task in late:
                task.cancel()
            await _ended(late, _CUT_OFF_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.watch.closed.wait(), _CUT_OFF_S)
        self.close()

    def close(self) -> None:
        """Let go of everything, at once."""
        self.watch.stop()
        for connection in tuple(self.watch.state.connections):
            connection.transport.abort()
        for server in self._servers:
            server.close()
        for sock in self.sockets:
            sock.close()


class Options(TypedDict, total=False):
    """How a server is to listen.

    Attributes:
      host, port: Of the ingress, by default 127.0.0.1 and 8080; port 0: any that is free.
      admin_host, admin_port: Of the admin app, by default 127.0.0.1 and 9070.
      tokens, admin_tokens: What opens each of them; none: it listens on this machine only.
      limits: Of each of them.
      grace_s: In which requests that are being worked on may end when the server stops; 10.
      access_log: A line in the log of ``uvicorn.access`` for each request; it has no headers.
    """

    host: str
    port: int
    admin_host: str
    admin_port: int
    tokens: Tokens | None
    admin_tokens: Tokens | None
    limits: Limits
    grace_s: float
    access_log: bool


async def _ended(tasks: Iterable[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait until *tasks* have ended, but no longer than that."""
    running = tuple(tasks)
    if running:
        await asyncio.wait(running, timeout=timeout_s)


class Server:
    """Ingress and admin of an engine, listening on sockets that are taken when this is made.

    Use it as ``async with Server(engine, …) as server``, where the engine is open.

    Attributes:
      port, admin_port: The real ones.

    Raises:
      CanNotServe: A port is in use, or an app would be open to everybody.
    """

    def __init__(self, engine: Engine, **options: Unpack[Options]) -> None:
        tokens, admin_tokens = options.get("tokens"), options.get("admin_tokens")
        limits, log = options.get("limits", DEFAULT_LIMITS), options.get("access_log", False)
        places = [
            Place(
                "ingress",
                options.get("host", "127.0.0.1"),
                options.get("port", 8080),
                flag="",
                guarded=tokens is not None,
            ),
            Place(
                "admin",
                options.get("admin_host", "127.0.0.1"),
                options.get("admin_port", 9070),
                flag="admin-",
                guarded=admin_tokens is not None,
            ),
        ]
        apps = [
            ingress(engine, tokens=tokens, limits=limits),
            admin(engine, tokens=admin_tokens, limits=limits),
        ]
        sockets = sockets_of_all(places)
        connections = room_for_connections(limits.connections)
        rooms = [connections, min(ADMIN_CONNECTIONS, connections)]
        self._listeners = [
            Listener(app, place, each, dataclasses.replace(limits, connections=room), log)
            for app, place, each, room in zip(apps, places, sockets, rooms, strict=True)
        ]
        self.port, self.admin_port = (each.port for each in self._listeners)
        self._grace_s = options.get("grace_s", 10.0)

    async def __aenter__(self) -> Server:
        try:
            for each in self._listeners:
                await each.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await asyncio.gather(*(each.stop(self._grace_s) for each in self._listeners))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything, at once; also of what was never entered."""
        for each in self._listeners:
            each.close()


async def serve(
    engine: Engine,
    *,
    started: Callable[[Server], None] | None = None,
    **options: Unpack[Options],
) -> None:
    """Open *engine*, serve it as :class:`Server` does until SIGTERM or SIGINT, and close it.

    A second signal ends the process at once, as a crash would: nothing acknowledged is lost.
    *started* is called once both apps listen.

    Raises:
      CanNotServe: Before anything was opened.
      PerdureError: The engine did not open, or it has failed: start again.
    """
    server = Server(engine, **options)
    try:
        with _signals() as stop:
            async with engine, server:
                if started is not None:
                    started(server)
                failure = await _until_stop_or_failure(engine, stop)
            if failure is not None:
                raise failure
            logger.info("stopped")
    finally:
        server.close()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; where signals are another's, nothing sets it."""
    stop = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    loop, received = asyncio.get_running_loop(), stopper(stop, logger)
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, received, number)
    try:
        yield stop
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _until_stop_or_failure(engine: Engine, stop: asyncio.Event) -> PerdureError | None:
    """Wait for the one or the other; why the engine has failed, if it has."""
    scheduler = engine._open_scheduler()
    waits = [asyncio.ensure_future(each.wait()) for each in (stop, scheduler.failed)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
    return scheduler.failure


def run(
    engine: Engine,
    *,
    log_format: LogFormat = "text",
    log_level: int = logging.INFO,
    **options: Unpack[Options],
) -> int:
    """:func:`serve` as a whole program, with its log on stderr.

    Returns:
      Exit code: 0 after SIGTERM or SIGINT; 1 if the engine did not open or has failed; 2 if the
      server can not listen as it is told.
    """
    log_to_stderr(log_format, log_level)
    try:
        run_to_the_end(engine, **options)
    except CanNotServe as error:
        logger.critical("%s", error)
        return 2
    except PerdureError as error:
        logger.critical("%s: %s", type(error).__name__, error)
        return 1
    except KeyboardInterrupt:  # before or after the server has the signals
        return 128 + signal.SIGINT
    return 0


def run_to_the_end(
    engine: Engine,
    *,
    started: Callable[[Server], None] | None = None,
    **options: Unpack[Options],
) -> None:
    """:func:`serve` in a process that does nothing else; raises as that does."""
    run_alone(serve(engine, started=started, **options))
