"""``serve --restate``: the handlers, served to a Restate server, which keeps what they do.

Theory of operation. Nothing is kept in this process, so to stop it gives back what runs, and lets
steps end within a grace time. What is left then is cut off, and Restate runs it again elsewhere.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from perdure.cli._attempts import App, Attempts
from perdure.cli._failures import CommandError, usage
from perdure.cli._output import plain
from perdure.cli._sdk_log import shorten_failures
from perdure.http._listening import BACKLOG, CanNotServe, Place, address_of, bound
from perdure.http._process import STOP_SIGNALS, run_alone, stopper
from perdure.http._security import is_loopback
from perdure.service import definition_of

if TYPE_CHECKING:
    from hypercorn.config import Config

logger = logging.getLogger("perdure.restate")

DEFAULT_PORT: Final = 9080

GRACE_S: Final = 10.0
"""In which steps that run may end when the server stops."""

_CUT_OFF_S: Final = 1.0
"""How long tasks that were cancelled, and threads, are waited for."""

_STREAMS: Final = 900
"""Attempts on one connection at a time: hypercorn can tell 1,000 of them apart."""

_ALIVE_S: Final = 600
"""After which a connection that nothing goes on in is closed; Restate looks after it itself."""

_FOR_EVER: Final = 2**62

_KEY: Final = re.compile(r"publickeyv1_[1-9A-HJ-NP-Za-km-z]{32,44}")


def serve_restate(
    services: Sequence[Any],  # Any: services, as an engine takes them
    *,
    host: str,
    port: int,
    identity_keys: Sequence[str],
    access_log: bool,
    told: bool,
) -> None:
    """Serve *services* to a Restate server until a signal comes; *told*: people are told where.

    Raises:
      CommandError: An extra is not installed, a key is none, or it can not listen.
      DefinitionError: One of the services can not be served to Restate.
    """
    place = _place(host, port, identity_keys)
    app = _app(services, identity_keys)
    try:
        sockets = bound(place)
    except CanNotServe as error:
        raise usage(str(error)) from error
    address = address_of(host, sockets[0].getsockname()[1])
    names = sorted({definition_of(each).name for each in services})
    # It can be stopped from when people are told of it on.
    started = functools.partial(_tell, names, address) if told else None
    shorten_failures()
    run_alone(_serve(Attempts(app), _config(sockets, access_log), address, started))


def _app(services: Sequence[Any], identity_keys: Sequence[str]) -> App:
    try:
        import hypercorn  # noqa: F401
        from restate import exceptions  # noqa: F401
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("hypercorn", "restate"):
            raise
        raise CommandError(
            f"--restate needs {missing}", hint="pip install 'perdure[restate]'"
        ) from error
    from perdure.restate import app

    return app(services, identity_keys=identity_keys)


def _place(host: str, port: int, identity_keys: Sequence[str]) -> Place:
    for each in identity_keys:
        if not _KEY.fullmatch(each):
            raise usage(
                f"{each!r} is no identity key",
                "Restate's log has it at the start of a server: publickeyv1_, and what follows",
            )
    if not identity_keys and not is_loopback(host):
        raise usage(
            f"the handlers would be open to everybody who reaches {host or 'any address'}",
            "name the key that Restate signs its requests with, by --identity-key; or listen on "
            "127.0.0.1",
        )
    return Place("handlers", host, port, flag="", guarded=bool(identity_keys))


def _tell(names: Sequence[str], address: str) -> None:
    """Tell people that the handlers are there, and what to do next."""
    lines = (
        f"perdure serves {', '.join(names)} to Restate",
        f"  handlers    http://{address}",
        f"Tell Restate of them: perdure register http://{_reached_by_others(address)}",
        "Ctrl-C stops it; what runs is given back to Restate.",
    )
    print(*map(plain, lines), sep="\n", flush=True)


def _reached_by_others(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in ("", "0.0.0.0", "[::]") else address


def _config(sockets: Sequence[socket.socket], access_log: bool) -> Config:
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{each.detach()}" for each in sockets]
    config.backlog = BACKLOG
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    if access_log:
        config.accesslog = logging.getLogger("hypercorn.access")
        config.access_log_format = '%(h)s "%(R)s" %(s)s'
    config.include_server_header = False
    config.h2_max_concurrent_streams = _STREAMS
    config.keep_alive_timeout = _ALIVE_S
    # With the last request that a connection may have hypercorn would cut off all others on it.
    config.keep_alive_max_requests = _FOR_EVER
    config.graceful_timeout = 2 * GRACE_S  # it is not hypercorn that ends the grace time
    return config


async def _serve(
    attempts: Attempts, config: Config, address: str, started: Callable[[], None] | None
) -> None:
    from hypercorn.asyncio import serve

    stop = _signals()
    serving = asyncio.create_task(
        serve(attempts, config, shutdown_trigger=stop.wait, mode="asgi")  # type: ignore[arg-type]
    )
    logger.info("the handlers listen on http://%s", address)
    if started is not None:
        started()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving  # raises: it ends by itself only in failure
    attempts.give_back()
    await asyncio.wait({serving}, timeout=GRACE_S)
    if attempts.count:
        logger.warning("%d attempts are cut off: Restate runs them again", attempts.count)
    await _end_all()
    logger.info("stopped")


def _signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    from restate.server import install_shutdown_hook

    stop = asyncio.Event()
    loop, received = asyncio.get_running_loop(), stopper(stop, logger)
    for number in STOP_SIGNALS:
        # Set as a handler of the loop, it would be lost with the first request: the SDK sets its
        # own then, unless there is one that was set in this way.
        install_shutdown_hook(loop, functools.partial(received, number), number)
    return stop


async def _end_all() -> None:
    """Cancel all tasks, and see threads end; what does not let itself be ended goes with us."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for each in tasks:
        each.cancel()
    threads = loop.create_task(loop.shutdown_default_executor())
    _, left = await asyncio.wait({*tasks, threads}, timeout=_CUT_OFF_S)
    if left:
        logger.warning("handlers that do not end are left behind")
        sys.stdout.flush()
        os._exit(0)
