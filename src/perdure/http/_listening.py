"""Sockets of a server: taken before anything else is, so that nothing is left where one is not."""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple

from perdure.errors import PerdureError
from perdure.http._security import is_loopback

logger = logging.getLogger("perdure.http")

OTHER_FILES: Final = 256
"""Descriptors that are no clients': of operators, of the store, of what the handlers open."""

_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class CanNotServe(PerdureError):
    """The server did not start, and nothing is left behind; the text has the remedy."""


BACKLOG: Final = 4096
"""Connections that nobody has taken yet."""


class Place(NamedTuple):
    """Where an app listens.

    Attributes:
      name: Of the app.
      port: 0: any that is free.
      flag: Of the command line, in which the options are named; empty or ``admin-``.
      guarded: It needs a token.
    """

    name: str
    host: str
    port: int
    flag: str
    guarded: bool


def check_place(place: Place) -> None:
    """Refuse to let strangers in.

    Raises:
      CanNotServe: Others than this machine would reach the app, and it needs no token.
    """
    if not place.guarded and not is_loopback(place.host):
        variable = f"PERDURE_{place.flag.upper().replace('-', '_')}TOKEN"
        raise CanNotServe(
            f"the {place.name} would be open to everybody who reaches {place.host or 'any address'}"
            f": give it a token, in a file with --{place.flag}token-file or {variable}_FILE, or in "
            f"{variable}; or listen on 127.0.0.1"
        )


def bound(place: Place) -> list[socket.socket]:
    """Sockets for all addresses of a host, listening: who comes waits until somebody answers.

    Bound alone they would not be had for sure: two that are bound to one port are one too many
    only when the second listens.

    Raises:
      CanNotServe: The port is in use, or the host is none of this machine's.
    """
    taken: list[socket.socket] = []
    port = place.port
    try:
        for family, address in _addresses(place):
            sock = socket.socket(family, socket.SOCK_STREAM)
            taken.append(sock)
            _set_options(sock, family)
            sock.bind((address, port))
            sock.listen(BACKLOG)
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in taken:
            sock.close()
        raise CanNotServe(_why_not_bound(place, port, error)) from error
    return taken


def _addresses(place: Place) -> Iterator[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(
        place.host or None, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    yield from dict.fromkeys((each[0], str(each[4][0])) for each in found)


def _set_options(sock: socket.socket, family: socket.AddressFamily) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # Connections inherit these. Head and body of an answer are two writes, and the second is not to
    # wait until the client has acknowledged the first, 40 ms later: asyncio sees to that only for
    # sockets that were made with TCP's number.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that waits for weeks sends nothing: only so is it noticed
    # that its machine is gone.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _why_not_bound(place: Place, port: int, error: OSError) -> str:
    where = f"the {place.name} can not listen on {address_of(place.host, port)}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is in use; choose another one with --{place.flag}port"
    if error.errno == errno.EACCES:
        return f"{where}: this user may not; choose a port above 1023 with --{place.flag}port"
    return f"{where}: {error.strerror or error}; see --{place.flag}host"


def address_of(host: str, port: int) -> str:
    """Host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def room_for_connections(wanted: int) -> int:
    """Let this process have as many files as it may; how many clients fit, *wanted* at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A system may grant less than it names; then it stays as it was.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return wanted
    room = max(1, soft - min(OTHER_FILES, soft // 2))
    if room < wanted:
        logger.warning(
            "this process may have %d files: it takes %d connections, not %d; see `ulimit -n`, or "
            "LimitNOFILE= in a unit of systemd",
            soft,
            room,
            wanted,
        )
    return min(room, wanted)


def sockets_of_all(places: list[Place]) -> list[list[socket.socket]]:
    """The sockets of each of *places*, or of none.

    Raises:
      CanNotServe: One can not be had.
    """
    taken: list[list[socket.socket]] = []
    try:
        for place in places:
            check_place(place)
        taken.extend(map(bound, places))  # those before one that fails are in it
    except CanNotServe:
        for sock in (each for sockets in taken for each in sockets):
            sock.close()
        raise
    return taken
