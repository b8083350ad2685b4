"""The outside of a trial: who asks the engine, and outlives its process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from perdure._handles import InvocationHandle
from perdure.errors import AlreadyCompleted, Conflict, NotFound, StoreError
from perdure.service import HandlerKind, reference_of
from perdure.testing._sim_process import ProcessDied

if TYPE_CHECKING:
    from perdure.testing._trial import Trial


class Client:
    """The outside of a trial: the verbs of an engine, each done once, whatever dies meanwhile.

    A call that the process did not live to answer is made again under the same idempotency key; a
    completion that turns out to have been made already has succeeded. Signals may arrive twice.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._calls = 0

    @property
    def world(self) -> Any:
        """What the trial's ``world`` has made."""
        return self._trial.world

    async def sleep(self, seconds: float) -> None:
        """Let time go by, outside."""
        await self._trial.sleep(seconds)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._trial.engine, name)

        async def asked(*args: Any, **options: Any) -> Any:
            if name in ("call", "send", "submit"):
                self._identify(args[0] if args else options.get("handler"), options)
            await self._trial.about_to_ask(name)
            given = await self._insist(name, lambda: verb(*args, **options))
            if isinstance(given, InvocationHandle):
                outcome = _Outcome(self._insist, given)
                return InvocationHandle(given.id, given.accepted, outcome)
            return given

        return asked

    async def begin(self, handler: Any, arg: Any, key: str | None) -> Any:
        """The result of what the trial is about."""
        options: dict[str, Any] = {"key": key}
        self._identify(handler, options)
        engine = self._trial.engine
        verb = engine.call if "idempotency_key" in options else engine.submit
        return await self._insist("begin", lambda: verb(handler, arg, **options))

    def _identify(self, handler: Any, options: dict[str, Any]) -> None:
        """Give a call an idempotency key, unless it begins a workflow: that has its own key."""
        reference = reference_of(handler)
        is_run = reference is not None and reference.definition.kind is HandlerKind.RUN
        if not is_run and "idempotency_key" not in options:
            self._calls += 1
            options["idempotency_key"] = f"script {self._calls}"

    async def _insist(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        died = False
        while True:
            try:
                return await ask()
            except (ProcessDied, StoreError):
                died = True
                await asyncio.sleep(0)
            except AlreadyCompleted:
                if not died:
                    raise
                return None
            except (Conflict, NotFound):
                # The first time it was done: the invocation has ended since, or is gone.
                if not died or name not in ("signal", "purge"):
                    raise
                return None


class _Outcome:
    """What becomes of an invocation that a script has begun, whatever dies meanwhile."""

    def __init__(
        self, insist: Callable[..., Awaitable[Any]], handle: InvocationHandle[Any]
    ) -> None:
        self._insist = insist
        self._handle = handle

    async def result(self) -> Any:
        return await self._insist("result", self._handle.result)

    async def output(self) -> Any:
        return await self._insist("output", self._handle.output)

    async def cancel(self) -> Any:
        return await self._insist("cancel", self._handle.cancel)
