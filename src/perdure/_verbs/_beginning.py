"""The verbs that begin invocations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure._absent import ABSENT
from perdure._handles import InvocationHandle

# Any, in this module: handlers are any callables, and take and return any storable values.

A = TypeVar("A")
R = TypeVar("R")


class Beginning(ABC):
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
        return await self._call(handler, arg, key, returns, idempotency_key, headers)

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
        return await self._send(handler, arg, key, returns, delay, idempotency_key, headers)

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
        return await self._submit(handler, arg, key, returns, headers)

    @abstractmethod
    async def _call(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
    ) -> Any: ...

    @abstractmethod
    async def _send(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        delay: timedelta | float | None,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
    ) -> InvocationHandle[Any]: ...

    @abstractmethod
    async def _submit(
        self,
        handler: Any,
        arg: Any,
        key: str | None,
        returns: Any,
        headers: Mapping[str, str] | None,
    ) -> Any: ...
