"""One life of an engine in the simulated world, and what its clients hold of it.

A client is outside: it asks, and the engine's own tasks, in the context of the process, carry it
out. When the process dies they are never run again, and who waits for an answer is told that none
will come.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from perdure._handles import InvocationHandle
from perdure._ids import parse_id
from perdure._runtime._clock import Clock
from perdure._verbs import Listing
from perdure.engine import Engine
from perdure.errors import InvalidInput, PerdureError, StoreClosed
from perdure.retry import RetryPolicy
from perdure.serde import Serde
from perdure.testing._sim_host import SimHost
from perdure.testing._sim_loop import SimLoop, SimTask, current_owner

T = TypeVar("T")
R = TypeVar("R")

CLOSES_MAX = 5
"""How often a coroutine of the dead may refuse to be closed."""


class ProcessDied(Exception):
    """The process died before it had answered: what was asked may have happened, or not."""


class SimEngine(Engine):
    """An engine on a simulated machine."""

    def __init__(
        self,
        host: SimHost,
        clock: Clock,
        services: Iterable[Any],
        *,
        retry: RetryPolicy,
        max_resident: int,
    ) -> None:
        super().__init__(
            "simulated",
            services,
            clock=clock,
            default_retry=retry,
            max_resident=max_resident,
            stall_warning=None,
        )
        self.host = self._host = host


class Process:
    """A process with an engine, from its start to its death.

    Attributes:
      alive: Whether its callbacks run.
    """

    def __init__(self, loop: SimLoop, engine: SimEngine) -> None:
        self.alive = True
        self.engine = engine
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(current_owner.set, self)
        self._tasks: list[SimTask[Any]] = []
        self._prune_at = 64
        self._asked: dict[asyncio.Future[Any], None] = {}

    def began(self, task: SimTask[Any]) -> None:
        if len(self._tasks) >= self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = 64 + 2 * len(self._tasks)
        self._tasks.append(task)

    async def ask(
        self, make: Callable[[SimEngine], Awaitable[T]], answered: Callable[[T], object]
    ) -> T:
        """What the engine answers; *answered* is told within the process, when it is given.

        Raises:
          ProcessDied: The process died before.
        """
        answer: asyncio.Future[T] = self._loop.create_future()

        async def carry_out() -> None:
            try:
                value = await make(self.engine)
                answered(value)
            except BaseException as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(value)

        self._asked[answer] = None
        task = self._loop.create_task(carry_out(), context=self._context.copy())
        try:
            return await answer
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._asked.pop(answer, None)

    def failure(self) -> PerdureError | None:
        """Why the engine answers nothing any more, if it has failed."""
        scheduler = self.engine._scheduler
        failure = None if scheduler is None else scheduler.failure
        return None if isinstance(failure, StoreClosed) else failure

    def die(self) -> None:
        """Nothing of it runs from now on."""
        self.alive = False
        self.engine.host.end()
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ProcessDied("the process died before it had answered"))

    def bury(self) -> None:
        """Let go of what the dead process has left in memory: only now do ``finally``s run."""
        scheduler = self.engine._scheduler
        if scheduler is not None:
            scheduler.gate.fail(StoreClosed("the simulated process is dead"))
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # asyncio's own
                close = cast(Any, task.get_coro()).close
                for _ in range(CLOSES_MAX):
                    with contextlib.suppress(BaseException):
                        task.context.run(close)
                        break
        if scheduler is not None:
            with contextlib.suppress(BaseException):
                scheduler.residents.close()


Ask = Callable[[Callable[[SimEngine], Awaitable[Any]]], Awaitable[Any]]


class Outside(Listing):
    """The verbs of an engine, asked from outside of its process, whichever lives."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __getattr__(self, name: str) -> Any:
        verb = getattr(SimEngine, name)
        if name.startswith("_") or not inspect.iscoroutinefunction(verb):
            raise AttributeError(f"a client has no {name}")
        if name in _NOT_OUTSIDE:
            raise InvalidInput(f"{name} is not simulated")

        async def asked(*args: Any, **options: Any) -> Any:
            given = await self._ask(lambda engine: getattr(engine, name)(*args, **options))
            if isinstance(given, InvocationHandle):
                serde = cast(Any, given)._outcome._serde
                outcome = _Outcome(self._ask, given, serde)
                return InvocationHandle(given.id, given.accepted, outcome)
            return given

        return asked

    async def invocations(self, *args: Any, **options: Any) -> Any:
        return await self._ask(lambda engine: engine.invocations(*args, **options))


_NOT_OUTSIDE = {"open", "close", "query", "backup"}


class _Outcome(Generic[R]):
    """What becomes of an invocation, asked of whichever process lives then."""

    def __init__(self, ask: Ask, handle: InvocationHandle[R], serde: Serde[R]) -> None:
        self._ask = ask
        self._id = parse_id(handle.id)
        self._accepted = handle.accepted
        self._serde = serde

    def _handle(self, engine: SimEngine) -> InvocationHandle[R]:
        return engine._results.handle(self._id, self._accepted, self._serde)

    async def result(self) -> R:
        return cast(R, await self._ask(lambda engine: self._handle(engine).result()))

    async def output(self) -> R:
        return cast(R, await self._ask(lambda engine: self._handle(engine).output()))

    async def cancel(self) -> bool:
        return cast(bool, await self._ask(lambda engine: self._handle(engine).cancel()))
