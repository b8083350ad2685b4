"""The wire to a server: what is asked once, what may be asked again, and when to give up.

Theory of operation. What went out may have been done, answered or not. So a request is sent again
only if it never went out, if the server says that it was not taken up (429), or if doing it twice
is doing it once. A request that waits for a result has no end of its own, for results take days;
when its connection is lost, a fresh time begins within which the server has to be reached.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias
from urllib.parse import urlencode

import httpx

from perdure._client._asking import Body
from perdure._client._replies import SOURCE_HEADER, error_of
from perdure.errors import InvalidInput, Unavailable

Query: TypeAlias = Mapping[str, str] | list[tuple[str, str]]

_NEVER_WENT_OUT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FIRST_PAUSE_S: Final = 0.05
_PAUSE_S_MAX: Final = 2.0
_HELD_S: Final = 1.0
"""A request that lasted so long had reached a server: what follows is another outage."""

_IDLE_S: Final = 2.0
"""A connection unused for so long is closed here. uvicorn closes its own after 5 s, and a request
that meets the closing may have been taken up or not."""

_IDLE_MAX: Final = 20
"""Connections kept for the next request. httpcore looks at all of them, for each of them."""

_NOTHING: Final = Body()
_NO_QUERY: Final[Query] = []


def open_http(transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A pool of connections; each request that waits has one to itself."""
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=_IDLE_MAX, keepalive_expiry=_IDLE_S
    )
    if transport is None:
        transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=_keep_alive())
    return httpx.AsyncClient(transport=transport, follow_redirects=False)


def _keep_alive() -> list[tuple[int, int, int]]:
    # Without it a wait for a server whose machine has gone would never end.
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
    return options


class Wire:
    """One interface of a server, by its base URL.

    Args:
      http: The connections.
      url: ``http://host:port``, and a path where the interface is mounted below one.
      token: Sent as a bearer token; None: none.
      timeout: Seconds within which the server has to be reached and, where nothing is waited for,
        to have answered, all tries included.
    """

    def __init__(
        self, http: httpx.AsyncClient, url: str, token: str | None, timeout: float
    ) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._authorization = {} if token is None else {"authorization": f"Bearer {token}".encode()}
        self._timeout = timeout

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Query = _NO_QUERY,
        body: Body = _NOTHING,
        headers: Mapping[str, bytes] | None = None,
        waits: bool = False,
        again: bool = False,
    ) -> httpx.Response:
        """The reply to a request, be it a refusal.

        Args:
          waits: The reply may take for ever.
          again: To do it twice is to do it once.

        Raises:
          Unavailable: There was none.
        """
        again = again or method == "GET"
        maybe_accepted = False
        refused: httpx.Response | None = None
        deadline = time.monotonic() + self._timeout
        tries = itertools.count()
        while True:
            self._check_open(maybe_accepted)  # each time: it may have been closed in a pause
            began = time.monotonic()
            request = self._request(method, path, query, body, headers, deadline - began, waits)
            response: httpx.Response | None = None
            error: httpx.RequestError | None = None
            try:
                response = await self._http.send(request)
            except httpx.RequestError as caught:
                error = caught
            if response is not None and not _is_put_off(response, again):
                return response
            now = time.monotonic()
            if not isinstance(error, _NEVER_WENT_OUT):
                maybe_accepted |= error is not None and method != "GET"
                if waits and now - began >= _HELD_S:
                    deadline, tries = now + self._timeout, itertools.count()
            pause = _pause(next(tries), response)
            if response is not None or maybe_accepted:
                refused = response
            may_try = again or not maybe_accepted
            if may_try and now + pause < deadline and not self._http.is_closed:
                await asyncio.sleep(pause)
            elif refused is not None:
                return refused  # it says more than a last try that had no time left
            else:
                raise self._no_answer(error, maybe_accepted) from error

    def _request(
        self,
        method: str,
        path: str,
        query: Query,
        body: Body,
        headers: Mapping[str, bytes] | None,
        seconds: float,
        waits: bool,
    ) -> httpx.Request:
        sent = {**(headers or {}), **self._authorization}
        if body.content_type is not None:
            sent["content-type"] = body.content_type.encode()
        seconds = max(seconds, 0.001)
        url = f"{self._url}{path}?{urlencode(query)}" if query else f"{self._url}{path}"
        try:
            return self._http.build_request(
                method,
                url,
                content=body.content or None,
                headers=[(name.encode(), value) for name, value in sent.items()],
                timeout=httpx.Timeout(seconds, read=None if waits else seconds, pool=None),
            )
        except httpx.InvalidURL as error:
            raise InvalidInput(f"{url} is no URL: {error}") from error

    def _check_open(self, maybe_accepted: bool) -> None:
        if self._http.is_closed:
            raise Unavailable("the client is closed", maybe_accepted=maybe_accepted)

    def _no_answer(self, error: httpx.RequestError | None, maybe_accepted: bool) -> Unavailable:
        reason = str(error) or type(error).__name__
        outcome = (
            "whether the server took the request up is unknown"
            if maybe_accepted
            else "the request was not taken up"
        )
        return Unavailable(
            f"no answer from {self._url} ({reason}); {outcome}", maybe_accepted=maybe_accepted
        )

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[httpx.Response]:
        """The reply to a GET whose content may be long, and long in coming.

        Raises:
          PerdureError: The server refused.
          Unavailable: There was none, or the connection was lost while it was read.
        """
        self._check_open(False)
        request = self._request("GET", path, _NO_QUERY, _NOTHING, None, self._timeout, waits=True)
        try:
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                yield response
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            raise self._no_answer(error, False) from error


def _is_put_off(response: httpx.Response, again: bool) -> bool:
    """Whether the server says: not now. 503 may also be the answer to what was taken up."""
    if response.headers.get(SOURCE_HEADER) == "invocation":
        return False  # a handler has said so, and that is final
    return response.status_code == 429 or (again and response.status_code == 503)


def _pause(count: int, response: httpx.Response | None) -> float:
    """Seconds until the next try; the server's word goes before."""
    if response is not None:
        try:
            return max(_FIRST_PAUSE_S, float(response.headers.get("retry-after", "")))
        except ValueError:
            pass  # a date, or none
    longest = min(_PAUSE_S_MAX, _FIRST_PAUSE_S * 2.0 ** min(count, 10))
    return longest * random.uniform(0.5, 1)  # not all clients at one moment
