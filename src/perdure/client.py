"""The verbs of an engine, at a server: ``perdure.connect``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from perdure._client._backing_up import BackingUp
from perdure._client._completing import Completing
from perdure._client._inspecting import Inspecting
from perdure._client._operating import Operating
from perdure.errors import InvalidInput

if TYPE_CHECKING:
    import httpx

    from perdure._client._wire import Wire

__all__ = ["Client", "connect"]


class Client(Operating, Completing, Inspecting, BackingUp):
    """An engine behind a server, with the verbs, types and errors of :class:`perdure.Engine`.

    :func:`connect` makes it. Leaving ``async with`` closes its connections; invocations go on.

    A request that may have been taken up is not sent again by itself, unless to do it twice is to
    do it once: reading, ``submit``, ``send`` of a workflow's ``run``, ``call`` and ``send`` with an
    idempotency key, completing an awakeable. Those, and whatever certainly did not reach a
    handler, are tried again within the *timeout*. Waiting for a result has no end, and outlasts
    a lost connection where it may be tried again. All verbs can raise ``Unavailable``.

    The server may be Restate's; then some verbs do less, and raise ``NotSupportedOnRestate``.
    """

    def __init__(self, ingress: Wire, admin: Wire | None, http: httpx.AsyncClient) -> None:
        super().__init__(ingress, admin)
        self._http = http

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; who waits on one gets ``Unavailable``."""
        await self._http.aclose()


def connect(
    url: str,
    *,
    admin_url: str | None = None,
    token: str | None = None,
    admin_token: str | None = None,
    timeout: float = 30.0,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Client:
    """A client of the server at *url*; nothing is sent before a verb is used.

    Args:
      url: Of the ingress, of ``perdure serve`` or of a Restate server.
      admin_url: Of the admin interface, for the verbs of operators; None: there are none.
      token: Sent to the ingress as a bearer token; None: none.
      admin_token: The same for the admin interface.
      timeout: Seconds within which the server has to be reached and, where no result is waited
        for, to have answered, all tries included.
      transport: What carries requests, as httpx takes it: for TLS of your own, or an app in this
        process.

    Raises:
      ImportError: httpx is not installed.
      InvalidInput: An argument makes no sense.
    """
    try:
        from perdure._client._wire import Wire, open_http
    except ImportError as error:
        raise ImportError("perdure.connect needs httpx: pip install perdure[client]") from error
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InvalidInput(f"timeout: expected seconds, more than 0, got {timeout!r}")
    for name, given in (("url", url), ("admin_url", admin_url)):
        is_url = isinstance(given, str) and given.startswith(("http://", "https://"))
        if not is_url and not (name == "admin_url" and given is None):
            raise InvalidInput(f"{name}: expected http://… or https://…, got {given!r:.100}")
    http = open_http(transport)
    ingress = Wire(http, url, token, timeout)
    admin = None if admin_url is None else Wire(http, admin_url, admin_token, timeout)
    return Client(ingress, admin, http)
