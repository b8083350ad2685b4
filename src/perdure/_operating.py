"""The verbs that act on what is there."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from perdure._declarations import PromiseDeclaration
from perdure._ids import parse_id
from perdure._opened import Opened
from perdure._promises import complete, find_promise
from perdure.errors import TerminalError
from perdure.futures import failure_of
from perdure.serde import encode_failure

T = TypeVar("T")


class Operating(Opened):
    """What operators, and the world outside, do to invocations."""

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.resume(parse_id(invocation_id))

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
        self._open_scheduler()
        target = find_promise(self._services, promise, key)
        payload = target.serde.encode(value, f"value of promise {target.name!r}")
        await complete(self._open_scheduler(), target, payload, failed=False)

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
        self._open_scheduler()
        target = find_promise(self._services, promise, key)
        payload = encode_failure(failure_of(reason, code))
        await complete(self._open_scheduler(), target, payload, failed=True)
