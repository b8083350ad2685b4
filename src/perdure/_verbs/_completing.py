"""The verbs that give invocations what they wait for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar, overload

from perdure._declarations import PromiseDeclaration, SignalDeclaration
from perdure.errors import TerminalError

T = TypeVar("T")


class Completing(ABC):
    """Giving invocations what they wait for."""

    @overload
    async def signal(self, invocation_id: str, name: SignalDeclaration[T], value: T) -> None: ...
    @overload
    async def signal(self, invocation_id: str, name: str, value: Any) -> None: ...

    async def signal(
        self, invocation_id: str, name: str | SignalDeclaration[Any], value: Any
    ) -> None:
        """Give an invocation the message *name*; kept for it where it does not wait yet.

        *name* may be a declaration of its class; then *value* is checked against its type.

        Raises:
          Conflict: It has ended.
          InvalidInput: *value* can not be stored, or *name* is another class's.
          NotFound: There is none with this id.
        """
        await self._signal(invocation_id, name, value)

    @overload
    async def resolve(self, promise: PromiseDeclaration[T], value: T, *, key: str) -> None: ...
    @overload
    async def resolve(self, promise: str, value: Any, *, key: str) -> None: ...

    async def resolve(self, promise: Any, value: Any, *, key: str | None = None) -> None:
        """Complete a promise of a workflow's key with *value*, before ``run`` starts or after.

        Args:
          promise: ``Approval.approval``, declared with :func:`perdure.promise`, or the text
            ``"Approval.approval"``.
          value: Checked against the declared type; without a declaration, plain builtins.
          key: Of the workflow.

        Raises:
          AlreadyCompleted: It was resolved or rejected before.
          InvalidInput: *promise* or *key* can be none, or *value* is not of its type.
          NotFound: No such service here.
          StoreBroken, StoreClosed: As for :meth:`call`.
        """
        await self._resolve(promise, value, key)

    @overload
    async def reject(
        self,
        promise: PromiseDeclaration[Any],
        reason: str | TerminalError,
        *,
        key: str,
        code: int = 500,
    ) -> None: ...
    @overload
    async def reject(
        self, promise: str, reason: str | TerminalError, *, key: str, code: int = 500
    ) -> None: ...

    async def reject(
        self,
        promise: Any,
        reason: str | TerminalError,
        *,
        key: str | None = None,
        code: int = 500,
    ) -> None:
        """Fail who waits for a promise of a workflow's key with ``TerminalError(reason, code)``.

        Args:
          promise: As for :meth:`resolve`.
          reason: A text, or the error itself, which has a code of its own.
          key: Of the workflow.
          code: An HTTP status.

        Raises:
          AlreadyCompleted: It was resolved or rejected before.
          InvalidInput: *promise*, *reason*, *key* or *code* can be none.
          NotFound, StoreBroken, StoreClosed: As for :meth:`resolve`.
        """
        await self._reject(promise, reason, key, code)

    @abstractmethod
    async def _signal(
        self, invocation_id: str, name: str | SignalDeclaration[Any], value: Any
    ) -> None: ...

    @abstractmethod
    async def _resolve(self, promise: Any, value: Any, key: str | None) -> None: ...

    @abstractmethod
    async def _reject(
        self, promise: Any, reason: str | TerminalError, key: str | None, code: int
    ) -> None: ...
