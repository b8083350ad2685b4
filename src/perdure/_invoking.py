"""The verbs that begin invocations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure._absent import ABSENT
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

A = TypeVar("A")
R = TypeVar("R")


class Invoking(Opened):
    """Calling, sending, submitting."""

    @overload
    async def call(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any: ...

    async def call(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Invoke *handler* and wait for its result; cancelling the wait does not cancel it.

        Args:
          handler: A method of a service class, or ``"Service.handler"``. Whatever version the class
            is of, the invocation begins on the highest here that has the handler.
          arg: Its argument, where it takes one.
          key: For handlers of workflows and objects.
          returns: Type of the result; wins over the handler's own annotation.
          idempotency_key: The first call with it begins an invocation, later ones get its result,
            as long as that is kept. Not for a workflow's ``run``, which has its key for that.
          headers: Handed to the handler as ``ctx.request.headers``.

        Raises:
          Conflict: The workflow's ``run`` was already started for *key*.
          InvalidInput: *arg* is not what the handler takes, or the handler is private.
          NotFound: No such service or handler here.
          StoreBroken, StoreClosed: The disk refused a write; the engine is not open, or closes.
          TerminalError: As the invocation failed.
        """
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

    @overload
    async def send(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[R]: ...
    @overload
    async def send(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[R]: ...
    @overload
    async def send(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[Any]: ...

    async def send(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[Any]:
        """Invoke *handler* and return once that is durable.

        A second ``run`` of a workflow on one key begins nothing, nor does a second send with one
        idempotency key: the handle is of the first, and ``accepted`` says so. Arguments and errors
        are otherwise those of :meth:`call`, without ``Conflict``.

        Args:
          delay: Seconds or timedelta until it begins; only then does it queue for its key.
        """
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
            return InvocationHandle(self._results, existing, Accepted.EXISTING, serde)
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
        return InvocationHandle(self._results, InvocationId(instance.id), Accepted.NEW, serde)

    @overload
    async def submit(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def submit(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def submit(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any: ...

    async def submit(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a workflow's ``run`` on *key*, or attach to it if it was started; its result.

        Arguments and errors are those of :meth:`call`, without ``Conflict``. Attaching, *arg* is
        checked and not used.
        """
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
