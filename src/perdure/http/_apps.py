"""Stand-ins."""

from __future__ import annotations

from perdure.engine import Engine
from perdure.http._asgi import Receive, Scope, Send
from perdure.http._limits import DEFAULT_LIMITS, Limits
from perdure.http._security import Guard, admin_error, ingress_error
from perdure.http._tokens import Tokens


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def ingress(
    engine: Engine, *, tokens: Tokens | None = None, limits: Limits = DEFAULT_LIMITS
) -> Guard:
    return Guard(_app, form=ingress_error, tokens=tokens, limits=limits)


def admin(
    engine: Engine, *, tokens: Tokens | None = None, limits: Limits = DEFAULT_LIMITS
) -> Guard:
    return Guard(_app, form=admin_error, tokens=tokens, limits=limits)
