"""The verbs that begin invocations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from perdure import _verbs
from perdure._binding import bind_public, result_serde
from perdure._calling import no_idempotency_key
from perdure._core._outgoing import Outgoing
from perdure._handles import Accepted, InvocationHandle
from perdure._ids import InvocationId
from perdure._limits import check_headers, check_idempotency_key, seconds_of
from perdure._opened import Opened
from perdure._results import decode_output
from perdure._runtime._layout import Output
from perdure.errors import Conflict, InvalidInput
from perdure.service import HandlerDefinition, HandlerKind


class Invoking(_verbs.Beginning, Opened):
    """Calling, sending, submitting."""

    async def _call(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
    ) -> Any:
        scheduler = self._open_scheduler()
        definition, key, payload = bind_public(self._services, handler, arg, key)
        await scheduler.room()
        existing = self._existing(definition, key, idempotency_key)
        if existing is None:
            output = await self._begin_and_wait(definition, key, payload, headers, idempotency_key)
        elif definition.kind is HandlerKind.RUN:
            await scheduler.answers.committed()
            raise Conflict(
                f"run of {definition.service} was already started for key {key!r}; use submit "
                "to attach to it"
            )
        else:
            serde = self._results.serde_of_existing(existing, definition, returns)
            return decode_output(await self._results.wait(existing), serde)
        return decode_output(output, result_serde(definition, returns))

    async def _send(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        delay: timedelta | float | None,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
    ) -> InvocationHandle[Any]:
        scheduler = self._open_scheduler()
        definition, key, payload = bind_public(self._services, handler, arg, key)
        await scheduler.room()
        serde = result_serde(definition, returns)
        checked = check_headers(headers)
        delay_ms = None
        if delay is not None:
            seconds = seconds_of(delay, f"delay of a send to {definition.service}")
            delay_ms = math.ceil(round(seconds * 1_000_000) / 1000)
        existing = self._existing(definition, key, idempotency_key)
        if existing is not None:
            await scheduler.answers.committed()
            serde = self._results.serde_of_existing(existing, definition, returns)
            return self._results.handle(existing, Accepted.EXISTING, serde)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        instance = scheduler.admit(
            definition,
            key=key,
            argument=payload,
            headers=checked,
            accepted=accepted,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms,
        )
        await accepted
        return self._results.handle(InvocationId(instance.id), Accepted.NEW, serde)

    async def _submit(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        headers: Mapping[str, str] | None,
    ) -> Any:
        scheduler = self._open_scheduler()
        definition, key, payload = bind_public(self._services, handler, arg, key)
        if definition.kind is not HandlerKind.RUN:
            raise InvalidInput(
                f"submit starts or attaches to a workflow's run; {definition.service}."
                f"{definition.name} is called with engine.call"
            )
        await scheduler.room()
        existing = self._existing(definition, key, None)
        if existing is not None:
            serde = self._results.serde_of_existing(existing, definition, returns)
            return decode_output(await self._results.wait(existing), serde)
        output = await self._begin_and_wait(definition, key, payload, headers)
        return decode_output(output, result_serde(definition, returns))

    def _existing(
        self, definition: HandlerDefinition, key: str, idempotency_key: str | None
    ) -> InvocationId | None:
        """The invocation that stands already where a new one would begin."""
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            if definition.kind is HandlerKind.RUN:
                raise no_idempotency_key(definition.service)
        elif definition.kind is not HandlerKind.RUN:
            return None
        outgoing = Outgoing(definition.service, definition.name, key, b"", {}, idempotency_key)
        existing = self._open_scheduler().existing(outgoing)
        return None if existing is None else InvocationId(existing)

    async def _begin_and_wait(
        self,
        definition: HandlerDefinition,
        key: str,
        payload: bytes | None,
        headers: Mapping[str, str] | None,
        idempotency_key: str | None = None,
    ) -> Output:
        answer: asyncio.Future[Output] = asyncio.get_running_loop().create_future()
        self._open_scheduler().admit(
            definition,
            key=key,
            argument=payload,
            headers=check_headers(headers),
            answer=answer,
            idempotency_key=idempotency_key,
        )
        return await answer
