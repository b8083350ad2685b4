"""The verbs that begin invocations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from perdure import _verbs
from perdure._admission import Ask, Called, begin_call, begin_send
from perdure._binding import bind_public, result_serde
from perdure._handles import InvocationHandle
from perdure._opened import Opened
from perdure._results import decode_output
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
        ask = Ask.checked(definition, key, payload, headers, idempotency_key)
        called = begin_call(scheduler, ask)
        if called.output is None and definition.kind is HandlerKind.RUN:
            await scheduler.answers.committed()
            raise Conflict(
                f"run of {definition.service} was already started for key {key!r}; use submit "
                "to attach to it"
            )
        return await self._result_of(called, definition, returns)

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
        ask = Ask.checked(definition, key, payload, headers, idempotency_key, delay)
        sent = begin_send(scheduler, ask)
        if sent.durable is not None:
            await sent.durable
        else:
            await scheduler.answers.committed()
            serde = self._results.serde_of_existing(sent.id, definition, returns)
        return self._results.handle(sent.id, sent.accepted, serde)

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
        called = begin_call(scheduler, Ask.checked(definition, key, payload, headers))
        return await self._result_of(called, definition, returns)

    async def _result_of(self, called: Called, definition: HandlerDefinition, returns: Any) -> Any:
        if called.output is not None:
            return decode_output(await called.output, result_serde(definition, returns))
        serde = self._results.serde_of_existing(called.id, definition, returns)
        return decode_output(await self._results.wait(called.id), serde)
