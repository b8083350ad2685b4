"""What stands before both apps: tokens, limits, and answers that tell a stranger nothing."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from perdure.http._limits import DEFAULT_LIMITS, Limits
from perdure.http._replies import Headers
from perdure.http._requests import App, Message, Receive, Scope, Send
from perdure.http._tokens import Tokens
from perdure.http._traffic import TRAFFIC, Traffic

logger = logging.getLogger("perdure.http")

RETRY_AFTER: Final = (b"retry-after", b"1")

SECURITY_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_NO_STORE: Final = (b"cache-control", b"no-store")
_NO_CONTENT_POLICY: Final = (
    b"content-security-policy",
    b"default-src 'none'; frame-ancestors 'none'",
)

ErrorForm: TypeAlias = Callable[[int, str], tuple[Headers, bytes]]
"""Headers and body in which an app tells an error: of its status and its text."""


class Refusal(NamedTuple):
    """An answer that is not the app's."""

    status: int
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_NO_TOKEN: Final = Refusal(
    401,
    "a bearer token is needed: send it as `Authorization: Bearer …`",
    ((b"www-authenticate", b"Bearer"),),
)
_WRONG_TOKEN: Final = Refusal(
    401, "this token is not valid", ((b"www-authenticate", b'Bearer error="invalid_token"'),)
)
_FOREIGN: Final = Refusal(
    403,
    "without a token this server answers programs of its own machine only, and no page of "
    "another site: address it as localhost, or start it with a token",
)
_STOPPING: Final = Refusal(
    503,
    "the server stops; what it has accepted goes on when it is back",
    (RETRY_AFTER, (b"connection", b"close")),
)
_BUSY: Final = Refusal(429, "too many requests at a time; nothing was accepted", (RETRY_AFTER,))
_TOO_LARGE: Final = Refusal(413, "length limit exceeded")
_FAILED: Final = Refusal(500, "internal error")


def ingress_error(status: int, message: str) -> tuple[Headers, bytes]:
    """An error in the form of the ingress."""
    body = json.dumps({"code": status, "message": message, "source": "ingress"}).encode()
    return _json_headers(body, (b"x-restate-error-source", b"ingress")), body


def admin_error(status: int, message: str) -> tuple[Headers, bytes]:
    """An error in the form of the admin app."""
    body = json.dumps({"message": message, "restate_code": None, "code": status}).encode()
    return _json_headers(body), body


def _json_headers(body: bytes, *more: tuple[bytes, bytes]) -> Headers:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]


def secured(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """*headers* of an answer, and those that keep browsers from doing more with it than read it."""
    answered = [*headers, *SECURITY_HEADERS]
    kept = False
    for name, value in tuple(answered):
        if name == b"cache-control":
            kept = True
        elif name == b"content-type" and value.startswith(b"text/html"):
            answered.append(_NO_CONTENT_POLICY)
    if not kept:
        answered.append(_NO_STORE)
    return answered


class Guard:
    """ASGI app before *app*.

    Args:
      app: What is guarded.
      form: How it tells errors.
      tokens: What opens it; None: it is open.
      limits: What a request may ask.
      open_paths: Paths that need no token.

    Attributes:
      traffic: The requests that are on their way through.
      local_only: Requests that name another host, or come from a page of one, are refused. Else a
        page that a browser on this machine shows could use a server that needs no token.
    """

    def __init__(
        self,
        app: App,
        *,
        form: ErrorForm,
        tokens: Tokens | None = None,
        limits: Limits = DEFAULT_LIMITS,
        open_paths: Iterable[str] = (),
    ) -> None:
        self.traffic = Traffic(limits.waiting)
        self.local_only = False
        self.form = form
        self._app = app
        self._tokens = tokens
        self.limits = limits
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, _Exchange(receive, send, self.form, self.limits.body_bytes))
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    async def _request(self, scope: Scope, exchange: _Exchange) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await exchange.refuse(refusal)
            return
        traffic = scope[TRAFFIC] = self.traffic
        traffic.working += 1
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not traffic.stopping:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            if not exchange.started:
                await exchange.refuse(_STOPPING)
        except ClientDisconnect:
            return
        except Exception as error:
            if exchange.started and not exchange.gone:
                raise  # the server logs it, and cuts off the answer
            logger.error("%s %r failed", scope["method"], scope["path"], exc_info=error)
            if not exchange.gone:
                await exchange.refuse(_FAILED)
        finally:
            traffic.working -= 1

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why the app does not get this request."""
        limits, traffic = self.limits, self.traffic
        presented: list[bytes] = []
        length = b""
        header_bytes = 0
        for name, value in scope["headers"]:
            header_bytes += len(name) + len(value)
            if name == b"content-length":
                length = value
            elif name == b"authorization":
                presented.append(value)
        if self._tokens is not None:
            refused = _refused_token(self._tokens, presented)
            if refused is not None and not self._needs_no_token(scope):
                return refused
        elif self.local_only and not _is_local(scope["headers"]):
            return _FOREIGN
        target_bytes = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if target_bytes > limits.target_bytes:
            return Refusal(414, f"path and query are longer than {limits.target_bytes:,} bytes")
        if header_bytes > limits.header_bytes:
            return Refusal(431, f"the headers are longer than {limits.header_bytes:,} bytes")
        if length.isdigit() and (len(length) > 18 or int(length) > limits.body_bytes):
            return _TOO_LARGE
        if traffic.stopping:
            return _STOPPING
        if traffic.working >= limits.working:
            return _BUSY
        return None

    def _needs_no_token(self, scope: Scope) -> bool:
        """Health, which tells names alone; and a preflight, in which a browser can send none."""
        if scope["path"].removeprefix(scope.get("root_path", "")) in self._open_paths:
            return True
        if scope["method"] != "OPTIONS":
            return False
        names = {name for name, _ in scope["headers"]}
        return b"origin" in names and b"access-control-request-method" in names


def _refused_token(tokens: Tokens, presented: list[bytes]) -> Refusal | None:
    if len(presented) != 1:
        return _WRONG_TOKEN if presented else _NO_TOKEN
    scheme, _, token = presented[0].partition(b" ")
    if scheme.lower() != b"bearer":
        return _NO_TOKEN
    return None if tokens.accepts(token.strip()) else _WRONG_TOKEN


def _is_local(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request is to this machine, by a name of it, and from no page of another site."""
    found = dict(headers)
    host, origin = found.get(b"host"), found.get(b"origin")
    if host is not None and not is_loopback(_host_of(b"//" + host)):
        return False
    if origin is not None:
        return is_loopback(_host_of(origin))
    return found.get(b"sec-fetch-site") != b"cross-site"


@functools.lru_cache(256)
def _host_of(address: bytes) -> str:
    try:
        return urlsplit(address.decode("latin-1")).hostname or ""
    except ValueError:
        return ""


@functools.lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether *host* is this machine as only its own programs reach it."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class _Exchange:
    """A request and its answer, as the app is let see them.

    Attributes:
      started: An answer has begun.
      gone: Nobody waits for the app's answer: the client has left, or was answered in its place.
    """

    __slots__ = ("_body_bytes_left", "_form", "_receive", "_send", "gone", "started")

    def __init__(self, receive: Receive, send: Send, form: ErrorForm, body_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._form = form
        self._body_bytes_left = body_bytes
        self.started = False
        self.gone = False

    async def receive(self) -> Message:
        if not self.gone:
            message = await self._receive()
            if message["type"] != "http.request":
                self.gone = True
                return message
            self._body_bytes_left -= len(message.get("body", b""))
            if self._body_bytes_left >= 0:
                return message
            if not self.started:
                await self.refuse(_TOO_LARGE)
            self.gone = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": secured(message.get("headers", ()))}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer in the place of the app."""
        self.started = self.gone = True
        status, text, more = refusal
        headers, body = _plain(text) if status == 413 else self._form(status, text)
        start: dict[str, Any] = {
            "type": "http.response.start",
            "status": status,
            "headers": secured([*headers, *more]),
        }
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _plain(text: str) -> tuple[Headers, bytes]:
    body = text.encode()
    return [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ], body
