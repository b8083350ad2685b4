"""The verbs that begin invocations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure._absent import ABSENT
from perdure._admission import Ask, Called, begin_call, begin_send
from perdure._binding import bind_public, result_serde
from perdure._handles import InvocationHandle
from perdure._opened import Opened
from perdure._results import decode_output
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
        ask = Ask.checked(definition, key, payload, headers, idempotency_key)
        called = begin_call(scheduler, ask)
        if called.output is None and definition.kind is HandlerKind.RUN:
            await scheduler.answers.committed()
            raise Conflict(
                f"run of {definition.service} was already started for key {key!r}; use submit "
                "to attach to it"
            )
        return await self._result_of(called, definition, returns)

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
        ask = Ask.checked(definition, key, payload, headers, idempotency_key, delay)
        sent = begin_send(scheduler, ask)
        if sent.durable is not None:
            await sent.durable
        else:
            await scheduler.answers.committed()
            serde = self._results.serde_of_existing(sent.id, definition, returns)
        return InvocationHandle(self._results, sent.id, sent.accepted, serde)

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
        called = begin_call(scheduler, Ask.checked(definition, key, payload, headers))
        return await self._result_of(called, definition, returns)

    async def _result_of(self, called: Called, definition: HandlerDefinition, returns: Any) -> Any:
        if called.output is not None:
            return decode_output(await called.output, result_serde(definition, returns))
        serde = self._results.serde_of_existing(called.id, definition, returns)
        return decode_output(await self._results.wait(called.id), serde)
