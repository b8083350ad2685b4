"""The deterministic event loop on which handlers run.

Theory of operation. One invocation has one loop. It is a FIFO of ready callbacks and nothing else:
no selector, no threads, no clock. The machine fills it, by delivering, and runs it until nothing is
ready; whatever the handler then waits for is an operation in the journal. ``time()`` is the
recorded time of the activation, ``call_later`` issues a durable timer. Everything that would reach
the outside raises.
"""

from __future__ import annotations

import contextvars
import math
import sys
from asyncio import AbstractEventLoop, Handle, TimerHandle, current_task
from asyncio import _get_running_loop as get_running_loop
from asyncio import _set_running_loop as set_running_loop
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Protocol

from perdure._core._frames import is_coroutine
from perdure._core._future import LoopFuture
from perdure._core._signals import Halted
from perdure._core._task import CLOSE_ATTEMPTS_MAX, LoopTask, ReadyQueue
from perdure.errors import NondeterministicOperationError


class TimerPort(Protocol):
    """Where the loop gets durable timers from: the machine."""

    def start_timer(self, deadline_ms: int, fire: Callable[[], None]) -> Callable[[], None]:
        """Issue a timer that calls *fire* when delivered; returns what cancels it."""
        ...


class ReadyHandle(Handle):
    """A handle without asyncio's debug bookkeeping, which costs more than the callback."""

    __slots__ = ()
    _source_traceback = None  # what Handle's own repr asks for

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._callback = callback  # type: ignore[misc]
        self._args = args  # type: ignore[misc]
        self._loop = loop  # type: ignore[misc]
        self._context = contextvars.copy_context() if context is None else context  # type: ignore[misc]
        self._cancelled = False
        self._repr = None  # type: ignore[misc]


class DurableTimerHandle(TimerHandle):
    """The handle of ``call_later``: cancelling it ends the durable timer."""

    _end: Callable[[], None] | None = None  # set while the timer is outstanding


class DeterministicLoop(AbstractEventLoop):
    """An event loop whose behaviour depends only on what is delivered to it, in which order."""

    def __init__(
        self, queue: ReadyQueue, timers: TimerPort, report: Callable[[dict[str, Any]], None]
    ) -> None:
        self.queue = queue
        self._timers = timers
        self._report = report  # told what asyncio would give its exception handler
        # Begun, in that order, each with the context of the task that began it.
        self._generators: list[tuple[AsyncGenerator[Any, Any], contextvars.Context | None]] = []
        self._generators_prune_at = 64
        self.time_ms = 0  # of the activation; it never goes back
        self.running = False
        self._inert = False  # closed: nothing user code asks for happens any more

    # -- driving ----------------------------------------------------------------------------

    def enter(self) -> tuple[AbstractEventLoop | None, Any]:
        """Become the running loop of this thread; give what is returned to :meth:`leave`."""
        outer = get_running_loop(), sys.get_asyncgen_hooks()
        set_running_loop(self)
        sys.set_asyncgen_hooks(self._generator_begun, _keep_unfinalized)
        self.running = True
        return outer

    def leave(self, outer: tuple[AbstractEventLoop | None, Any]) -> None:
        self.running = False
        loop, hooks = outer
        sys.set_asyncgen_hooks(*hooks)
        set_running_loop(loop)

    def evict(self) -> list[str]:
        """Close every coroutine, last made first; complaints about those that resisted."""
        self._inert = True
        self.queue.items.clear()
        complaints: list[str] = []
        outer = self.enter()
        try:
            for task in reversed(list(self.queue.tasks.values())):
                complaint = task.close_coroutine()
                if complaint:
                    complaints.append(complaint)
            for generator, context in reversed(self._generators):
                complaint = _close_generator(generator, context)
                if complaint:
                    complaints.append(complaint)
        finally:
            self.leave(outer)
        self.queue.tasks.clear()
        self._generators.clear()
        self.queue.items.clear()
        return complaints

    def _generator_begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Held until the invocation ends: finalized by the garbage collector, its clean-up would
        # run at a moment no replay could repeat.
        if len(self._generators) >= self._generators_prune_at:
            self._generators = [g for g in self._generators if g[0].ag_frame is not None]
            self._generators_prune_at = max(64, 2 * len(self._generators))
        task: Any = current_task()  # ours, while a handler runs
        self._generators.append((generator, None if task is None else task.get_context()))

    # -- the interface of an event loop -----------------------------------------------------

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = ReadyHandle(callback, args, self, context)
        self.queue.items.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        return self.call_at(self.time_ms / 1000 + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        handle = DurableTimerHandle(when, callback, args, self, context)
        if when == math.inf:
            return handle  # never: asyncio.sleep(math.inf)
        # Rounded to the microsecond first: 1700000000.123 + 0.001 must not become .125.
        deadline_ms = math.ceil(round(when * 1_000_000) / 1000)
        if deadline_ms <= self.time_ms:
            self.queue.items.append(handle)
            return handle

        def fire() -> None:
            handle._end = None
            self.queue.items.append(handle)

        handle._end = self._timers.start_timer(deadline_ms, fire)
        return handle

    def _timer_handle_cancelled(self, handle: DurableTimerHandle) -> None:
        end, handle._end = handle._end, None
        if end is not None and not self._inert:
            end()

    def time(self) -> float:
        return self.time_ms / 1000

    def create_future(self) -> LoopFuture:
        return LoopFuture(self, self.queue.next_number())

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> LoopTask:
        if not is_coroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        if self._inert:
            coro.close()
            raise Halted
        if options.pop("eager_start", None):
            coro.close()
            raise NondeterministicOperationError("eager tasks are not supported in a handler")
        if options:
            coro.close()
            raise TypeError(f"create_task() got unexpected options: {', '.join(options)}")
        return LoopTask(coro, self, self.queue, name, context)

    def is_running(self) -> bool:
        return self.running

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        raise NondeterministicOperationError("a handler's loop has no debug mode")

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._inert:
            self._report(context)


def _close_generator(
    generator: AsyncGenerator[Any, Any], context: contextvars.Context | None
) -> str | None:
    """Close *generator* in *context*; what it did wrong, or None. It cannot hang."""
    if generator.ag_frame is None:
        return None  # it ended, or was closed with the task that was in it
    closing = generator.aclose()
    run = contextvars.copy_context().run if context is None else context.run
    try:
        run(closing.send, None)
        for _ in range(CLOSE_ATTEMPTS_MAX):
            # It awaits in its `finally`.
            run(closing.throw, GeneratorExit())
    except (StopIteration, StopAsyncIteration, GeneratorExit, Halted):
        return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return f"async generator {generator!r}: {type(error).__name__}: {error}"
    return f"async generator {generator!r} awaits in its finally while being closed"


def _keep_unfinalized(generator: AsyncGenerator[Any, Any]) -> None:
    """Never called in practice: the loop holds every generator it saw begin."""


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(self: DeterministicLoop, *args: Any, **kwargs: Any) -> Any:
        raise NondeterministicOperationError(
            f"loop.{name}() reaches outside the journal and can not be replayed; do it in a step: "
            "use ctx.run('name', function, …)"
        )

    refuse.__name__ = name
    return refuse


# Everything of AbstractEventLoop that this loop does not do itself: sockets, files, threads,
# processes, signals, servers, and starting or stopping the loop from within.
for _name in dir(AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(DeterministicLoop):
        setattr(DeterministicLoop, _name, _refuse(_name))
