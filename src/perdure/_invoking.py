"""The verbs that begin invocations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast, overload

from perdure._binding import ABSENT, bind_public, result_serde
from perdure._handles import Accepted, InvocationHandle
from perdure._ids import InvocationId
from perdure._limits import check_headers
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
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
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
        headers: Mapping[str, str] | None = None,
    ) -> Any: ...

    async def call(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Invoke *handler* and wait for its result; cancelling the wait does not cancel it.

        Args:
          handler: A method of a service class, or ``"Service.handler"``.
          arg: Its argument, where it takes one.
          key: For handlers of workflows and objects.
          returns: Type of the result; wins over the handler's own annotation.
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
        if (
            definition.kind is HandlerKind.RUN
            and scheduler.find_run(definition.service, key) is not None
        ):
            await scheduler.answers.committed()
            raise Conflict(
                f"run of {definition.service} was already started for key {key!r}; use submit "
                "to attach to it"
            )
        output = await self._begin_and_wait(definition, key, payload, headers)
        return decode_output(output, result_serde(definition, returns))

    @overload
    async def send(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[R]: ...
    @overload
    async def send(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
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
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[Any]: ...

    async def send(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[Any]:
        """Invoke *handler* and return once that is durable.

        A second ``run`` of a workflow on one key begins nothing: the handle is of the first, and
        ``accepted`` says so. Arguments and errors are those of :meth:`call`, without ``Conflict``.
        """
        scheduler = self._open_scheduler()
        definition, key, payload = bind_public(self._services, handler, arg, key)
        await scheduler.room()
        serde = result_serde(definition, returns)
        if definition.kind is HandlerKind.RUN:
            existing = scheduler.find_run(definition.service, key)
            if existing is not None:
                await scheduler.answers.committed()
                return InvocationHandle(
                    self._results, InvocationId(existing), Accepted.EXISTING, serde
                )
        instance = scheduler.admit(
            definition, key=key, argument=payload, headers=check_headers(headers), one_way=True
        )
        instance.accepted = accepted = asyncio.get_running_loop().create_future()
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
        existing = scheduler.find_run(definition.service, key)
        if existing is not None:
            output = await self._results.wait(InvocationId(existing))
        else:
            output = await self._begin_and_wait(definition, key, payload, headers)
        return decode_output(output, result_serde(definition, returns))

    async def _begin_and_wait(
        self,
        definition: HandlerDefinition,
        key: str,
        payload: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Output:
        instance = self._open_scheduler().admit(
            definition, key=key, argument=payload, headers=check_headers(headers), one_way=False
        )
        answer = instance.answer = asyncio.get_running_loop().create_future()
        return cast(Output, await answer)
