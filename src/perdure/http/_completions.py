"""What invocations wait for, completed over HTTP: awakeables, promises, signals."""

from __future__ import annotations

import re
from typing import Any

from perdure._bodies import RAW, value_of
from perdure._ids import parse_awakeable
from perdure._promises import find_promise
from perdure.engine import Engine
from perdure.errors import AlreadyCompleted, InvalidInput
from perdure.http._replies import Reply, reply
from perdure.http._requests import Request
from perdure.serde import UNTYPED, Serde, serde_for


class Completions:
    """Completes what is waited for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def awakeable(self, request: Request, awakeable_id: str, verb: str) -> Reply:
        """Complete an awakeable; accepted also where it was completed before, as on Restate."""
        try:
            parse_awakeable(awakeable_id)
        except InvalidInput as error:
            raise InvalidInput(f"bad awakeable id '{awakeable_id[:80]}': bad format") from error
        body = await request.body()
        try:
            if verb == "resolve":
                value = _free_value(request, body, f"value of awakeable {awakeable_id}")
                await self._engine.resolve_awakeable(awakeable_id, value)
            else:
                await self._engine.reject_awakeable(awakeable_id, _text(body), _code(request))
        except AlreadyCompleted:
            pass  # who sends it again, not having had the answer, is told the same
        return reply(202)

    async def promise(
        self, request: Request, workflow: str, key: str, name: str, verb: str
    ) -> Reply:
        """Complete a promise of a workflow's key; its value is typed where it is declared."""
        body = await request.body()
        target = f"{workflow}.{name}"
        if verb == "resolve":
            serde = find_promise(self._engine._services, target, key).serde
            value = value_of(serde, body, request.content_type, f"value of promise {name!r}")
            await self._engine.resolve(target, value, key=key)
        else:
            await self._engine.reject(target, _text(body), key=key, code=_code(request))
        return reply(200)

    async def signal(self, request: Request, invocation_id: str, name: str) -> Reply:
        """Give an invocation a message; it is typed where its class declares it."""
        body = await request.body()
        serde = self._engine._signal_serde(invocation_id, name)
        place = f"value of signal {name!r}"
        if serde.annotation is UNTYPED:
            value = _free_value(request, body, place)
        else:
            value = value_of(serde, body, request.content_type, place)
        await self._engine.signal(invocation_id, name, value)
        return reply(200)


def _free_value(request: Request, body: bytes, place: str) -> Any:
    """The value of a body for whoever waits, of whose type nothing is known: nothing is None.

    JSON whatever it says that it is, as on Restate, except that bytes may be sent as they are.
    """
    if not body:
        return None
    if request.content_type is not None and request.content_type.startswith(RAW):
        return body
    serde: Serde[Any] = serde_for(UNTYPED)
    return serde.from_json(body, place)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("the reason is not UTF-8") from error


def _code(request: Request) -> int:
    given = request.query().get("code", "500")
    if not re.fullmatch("[45][0-9]{2}", given):
        raise InvalidInput(f"code: expected an HTTP status from 400 to 599, got {given[:20]!r}")
    return int(given)
