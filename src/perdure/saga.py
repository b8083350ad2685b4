"""Undoing what was done, when what was meant to follow can not be.

Theory of operation. What undoes an action is noted before the action's command is issued, so there
is no moment at which an action may have begun and nothing would undo it. Nothing of it is written:
a replay runs the handler again and notes the same. Only an exit that is final undoes, for a failed
attempt is made again and goes on from the same actions. While undoing, a cancellation ends a wait
and not the step that is waited for, so the saga goes on waiting and hands it on at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, TypeVarTuple, overload

from perdure._base_context import Context
from perdure.errors import InvalidInput, TerminalError, terminal_leaf
from perdure.futures import DurableFuture, Step
from perdure.retry import RetryPolicy

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PREFIX = "undo "


class _Undo(NamedTuple):
    """A compensation, to be issued, and the action it is for, where the saga began that itself."""

    step: Step[Any]
    action: Step[Any] | None = None


class Saga:
    """A block whose steps are undone, the last first, when it can not be completed.

    ``async with Saga(ctx) as saga``: left by a ``TerminalError`` or by cancellation, it runs the
    compensations as durable steps, one after the other, and then lets the error out. Each action
    that may have begun is undone, also one that failed or was cut short; so a compensation must do
    no harm where its action had no effect. Any other exception fails the attempt of the handler,
    which is made again: nothing is undone. A kill undoes nothing either.

    Cancelled while it undoes, it undoes the rest all the same; then it is cancelled. A compensation
    that fails for good is logged and noted in :attr:`not_undone`, and the others follow.

    Args:
      ctx: Of the handler; the block is entered once.
      undo_retry: When to try a failed compensation again. None: as the invocation is retried, and
        paused when that is exhausted. Given: exhausted, the compensation has failed.

    Attributes:
      not_undone: Name and error of each compensation that failed. If there are any, a terminal
        error leaves the block as a plain ``TerminalError`` that has them, too, in its metadata.
    """

    def __init__(self, ctx: Context, *, undo_retry: RetryPolicy | None = None) -> None:
        if not isinstance(ctx, Context):
            raise InvalidInput(f"Saga takes the context of its handler, not {ctx!r}")
        if undo_retry is not None and not isinstance(undo_retry, RetryPolicy):
            raise InvalidInput(f"Saga: undo_retry= takes a RetryPolicy, not {undo_retry!r}")
        self.not_undone: list[tuple[str, TerminalError]] = []
        self._ctx = ctx
        self._undo_retry = undo_retry
        self._undos: list[_Undo] = []
        self._is_open: bool | None = None  # None: not entered yet

    # -- acting -----------------------------------------------------------------------------

    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        undo: Callable[[*Ts], Any],
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: type[T],
    ) -> DurableFuture[T]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        undo: Callable[[*Ts], Any],
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: None = None,
    ) -> DurableFuture[T]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        undo: Callable[[*Ts], Any],
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: None = None,
    ) -> DurableFuture[T]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        undo: Callable[[*Ts], Any],
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any,
    ) -> DurableFuture[Any]: ...

    def step(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        undo: Callable[[*Ts], Any],
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any = None,
    ) -> DurableFuture[Any]:
        """``ctx.run(name, fn, *args, …)``, undone by the step ``undo(*args)``.

        *undo* gets what the action got, and not its result, for there may be none. So give what
        is made outside a name beforehand, ``ctx.uuid4()`` for one, and pass that. *name* has at
        most 91 bytes; the compensation is called ``undo`` and that.
        """
        step = self._prepare(_PREFIX + name if isinstance(name, str) else name, undo, args)
        action = self._ctx._make_step(name, fn, args, retry, timeout, returns)
        self._undos.append(_Undo(step, action))
        action.issue()
        return action

    def add(self, name: str, undo: Callable[[*Ts], Any], *args: *Ts) -> None:
        """Note the step ``undo(*args)`` for an action that is no step, before it begins.

        Args:
          name: Of the compensation; 1 to 96 bytes of UTF-8.
        """
        self._undos.append(_Undo(self._prepare(name, undo, args)))

    def _prepare(self, name: str, undo: Callable[..., Any], args: tuple[Any, ...]) -> Step[Any]:
        """A compensation. What is wrong with it shows now: undoing, it would be too late."""
        if not self._is_open:
            when = "has ended" if self._is_open is False else "has not begun"
            raise InvalidInput(
                f"saga: {name!r} is outside its block, which {when}; use it inside "
                "`async with Saga(ctx) as saga:`"
            )
        return self._ctx._make_step(name, undo, args, self._undo_retry)

    # -- undoing ----------------------------------------------------------------------------

    async def __aenter__(self) -> Saga:
        if self._is_open is not None:
            raise InvalidInput("a saga is one block; make another Saga(ctx) for the next")
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        leaf = terminal_leaf(error)
        # Eviction and failed attempts come out here as well: they must leave no trace.
        if leaf is None and not isinstance(error, asyncio.CancelledError):
            return
        for undo in self._undos:
            if undo.action is not None and not undo.action.done():
                undo.action.cancel()  # of a gather, say: it must not overtake its compensation
        cancelled: asyncio.CancelledError | None = None
        for undo in reversed(self._undos):
            cancelled = await self._compensate(undo.step) or cancelled
        if leaf is None:
            return
        if cancelled is not None:
            raise cancelled from error
        if self.not_undone:
            # A new error: the handler may raise the same object in other invocations.
            failures = "; ".join(f"{name}: {failure}" for name, failure in self.not_undone)
            metadata = {**leaf.metadata, "not_undone": failures}
            raise TerminalError(leaf.message, leaf.code, metadata) from error

    async def _compensate(self, step: Step[Any]) -> asyncio.CancelledError | None:
        """Run one compensation to its end; the last cancellation that came meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        step.issue()
        while not step.done():
            try:
                await self._ctx.wait_first(step)  # which, cancelled, ends no step
            except asyncio.CancelledError as again:
                cancelled = again
        try:
            step.result()
        except TerminalError as failure:
            self.not_undone.append((step.name, failure))
            self._ctx.log.error("saga: %r failed, its action is not undone: %s", step.name, failure)
        return cancelled


__all__ = ["Saga"]
