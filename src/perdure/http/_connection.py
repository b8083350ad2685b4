"""A connection of the server, and the patience it has with its client.

Theory of operation. uvicorn's protocol parses requests and runs the app; this adds what a stranger
could abuse: time and memory. A connection is in one of four phases, and each but the last has its
deadline: between requests, in the headers of one, in its body, and with a request read and not
answered, which may take weeks. Beside that, what was answered has to be taken in time. All
deadlines of one kind are equally long, so that those kept in the order of their beginning are in
the order of their end: beginning and ending one costs a dictionary's insertion and removal, and a
sweep each second looks at none that is not due.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from perdure.http._joining import Joining
from perdure.http._limits import Limits
from perdure.http._security import ErrorForm, secured

SWEEP_S: Final = 1.0

_CLOSED_BY_CLIENT: Final = (7, 8)  # CLOSE and CLOSE_WAIT, as Linux numbers them
_OF_AN_OFFER: Final = (b"connection", b"upgrade", b"http2-settings")


class Deadlines:
    """Connections that have *seconds* for what they do; *expired* is called with one that is late.

    It may be called up to a sweep later.
    """

    def __init__(self, seconds: float, expired: Callable[[Connection], None]) -> None:
        self.seconds = seconds
        self._expired = expired
        self._due: dict[Connection, float] = {}

    def begin(self, connection: Connection, now: float) -> None:
        self._due.pop(connection, None)
        self._due[connection] = now + self.seconds

    def end(self, connection: Connection) -> None:
        self._due.pop(connection, None)

    def sweep(self, now: float) -> None:
        late = []
        for connection, due in self._due.items():
            if due > now:
                break
            late.append(connection)
        for connection in late:
            del self._due[connection]
            self._expired(connection)


class Watch:
    """The connections of one listening app.

    Attributes:
      state: uvicorn's own view of them.
      closed: Set while there is none.
    """

    def __init__(self, limits: Limits, form: ErrorForm) -> None:
        self.limits = limits
        self.form = form
        self.headers_too_long = f"the headers are longer than {limits.header_bytes:,} bytes"
        self.state = ServerState()
        self.heads = Deadlines(limits.header_seconds, Connection.head_is_late)
        self.bodies = Deadlines(limits.body_seconds, Connection.body_is_late)
        self.answers = Deadlines(limits.send_seconds, Connection.answer_is_not_taken)
        self.queueing: set[Connection] = set()  # with requests behind one that is not answered
        self.closed = asyncio.Event()
        self.closed.set()
        self._all = (self.heads, self.bodies, self.answers)
        self._every = min(SWEEP_S, min(each.seconds for each in self._all) / 4)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._sweep()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadlines in self._all:
            deadlines.sweep(now)
        for connection in tuple(self.queueing):
            connection.look_after_client()
        self._timer = loop.call_later(self._every, self._sweep)

    def opened(self) -> None:
        self.closed.clear()

    def lost(self, connection: Connection) -> None:
        for deadlines in self._all:
            deadlines.end(connection)
        self.queueing.discard(connection)
        if not self.state.connections:
            self.closed.set()


class _Phase(Enum):
    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()
    READ = auto()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits of time and memory."""

    def __init__(self, config: Config, watch: Watch, *, access_log: bool) -> None:
        super().__init__(config, watch.state, {})
        self.access_log = access_log
        self._watch = watch
        self._phase = _Phase.HEAD
        self._undigested = 0  # bytes since the parser last got somewhere
        self._begun = False  # a request, the first one
        self._timed = False  # there is a deadline for this phase
        self._unanswered = 0  # requests
        self._answering: RequestResponseCycle | None = None  # the first of them

    # -- the connection -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        watch = self._watch
        watch.opened()
        if len(self.connections) > watch.limits.connections:
            self._refuse(503, "too many connections")
        else:
            self._begin(watch.heads)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        answering = self._answering
        if answering is not None and not answering.response_complete:
            answering.disconnected = True  # uvicorn tells it to the last request alone
            answering.message_event.set()
        self._unset_keepalive_if_required()
        self._watch.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.BETWEEN:
            self._phase = _Phase.HEAD  # also for what begins no request
        self._undigested += len(data)
        self._parse(data)
        if self._phase is _Phase.HEAD:
            if self._undigested > self._watch.limits.header_bytes:
                self._refuse(431, self._watch.headers_too_long)
            elif not self._timed:
                self._begin(self._watch.heads)
        elif self._phase is _Phase.BODY:
            if self._undigested > self._watch.limits.header_bytes:
                self.transport.abort()  # what frames a body can be without end too
            elif not self._timed and not self.pipeline:  # else it waits for its turn
                self._begin(self._watch.bodies)

    def _begin(self, deadlines: Deadlines) -> None:
        """Have the client end the phase that it is in; most have, when this is asked."""
        self._timed = True
        deadlines.begin(self, self.loop.time())

    # -- the parser -----------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """As uvicorn does, apart from offers to speak another protocol."""
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserError:
                self._refuse(400, "this is no request of HTTP/1.1")
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._without_offer(data[offer.args[0] :])

    def _without_offer(self, rest: bytes) -> bytes:
        """The request to be parsed again without its offer, and *rest* behind its head.

        Java's client offers HTTP/2 in its first request, whatever that is. httptools takes a body
        behind such a head for the other protocol's.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(400, "this is no proxy")
            return b""
        lines = [method + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
            elif name not in _OF_AN_OFFER:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join([*lines, b"", rest])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._undigested = 0
        self._phase = _Phase.HEAD

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is parsed again
        super().on_headers_complete()  # first: where it raises, there is no request
        self._phase = _Phase.BODY
        self._undigested = 0
        self._unanswered += 1
        if self._timed:
            self._timed = False
            self._watch.heads.end(self)
        if self.pipeline:
            self._watch.queueing.add(self)
        else:
            self._answering = self.cycle
        if self.scope["method"] != "HEAD":  # nothing follows its head
            self.cycle.transport = Joining(self.transport)  # type: ignore[assignment]
        # Those behind the body would change a request that was let in without them.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._undigested = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._phase = _Phase.READ
        if self._timed:
            self._timed = False
            self._watch.bodies.end(self)
        super().on_message_complete()
        if self.cycle.response_complete:  # it was answered before it had come whole
            self._is_between()

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        waiting = len(self.pipeline)
        if waiting:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._watch.answers.begin(self, self.loop.time())
        if waiting == 1 and self._phase is _Phase.BODY:
            self._begin(self._watch.bodies)
        elif not waiting and self._phase is _Phase.READ:
            self._phase = _Phase.BETWEEN

    def _is_between(self) -> None:
        """Wait for the next request, as long as uvicorn does after an answer."""
        self._phase = _Phase.BETWEEN
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # -- the answer ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch.answers.begin(self, self.loop.time())

    # -- patience -------------------------------------------------------------------------------

    def head_is_late(self) -> None:
        if not self._begun:  # not a byte has come: a browser's spare connection
            self.transport.close()
        else:
            self._refuse(408, "the headers did not come in time")

    def body_is_late(self) -> None:
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse(408, "the body did not come in time")

    def answer_is_not_taken(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def look_after_client(self) -> None:
        """Notice that the client has gone, where nothing is read before the next answer."""
        if not self.pipeline:
            self._watch.queueing.discard(self)
        elif _has_left(self.transport):
            self.transport.abort()

    def cut_off(self) -> None:
        """Close, where an answer has begun: the part that has come is not to pass for all."""
        answering = self._answering
        if answering and answering.response_started and not answering.response_complete:
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Answer, if that is still possible, and close."""
        if self._unanswered:
            of_last = self._phase is _Phase.BODY and self._unanswered == 1
            if not of_last or self.cycle.response_started:
                self.transport.abort()  # it would be taken for the answer to another request
                return
            self.cycle.disconnected = True
        headers, body = self._watch.form(status, message)
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
        answered = secured([*self.server_state.default_headers, *headers])
        lines += [name + b": " + value for name, value in answered]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self.transport.close()


def _has_left(transport: asyncio.Transport) -> bool:
    """Whether the client has closed its side; False where the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return False
    try:
        told = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:
        return False
    return bool(told[0] in _CLOSED_BY_CLIENT)
