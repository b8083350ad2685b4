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
from asyncio import _enter_task as enter_task
from asyncio import _get_running_loop as get_running_loop
from asyncio import _leave_task as leave_task
from asyncio import _set_running_loop as set_running_loop
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVarTuple, Unpack

from perdure._core._closing import close_generator
from perdure._core._frames import is_coroutine
from perdure._core._future import LoopFuture
from perdure._core._signals import Halted
from perdure._core._task import LoopTask, ReadyQueue
from perdure.errors import InvalidInput, NondeterministicOperationError

Ts = TypeVarTuple("Ts")

DELAY_DAYS_MAX = 36_500
"""Of a timer or a sleep: what comes after it must fit into the journal and its rows."""


class TimerPort(Protocol):
    """Where the loop gets durable timers from: the machine."""

    def start_timer(self, deadline_ms: int, fire: Callable[[], None]) -> Callable[[], None]:
        """Issue a timer that calls *fire* when delivered; returns what cancels it."""
        ...


class _NoTimers:
    """What a closed loop has: nothing asked of it happens any more."""

    def start_timer(self, deadline_ms: int, fire: Callable[[], None]) -> Callable[[], None]:
        raise Halted


_NO_TIMERS = _NoTimers()


def _drop_report(problem: dict[str, Any]) -> None:
    """Nobody hears what a closed loop reports."""


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
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._repr = None


class DurableTimerHandle(TimerHandle):
    """The handle of ``call_later``: cancelling it ends the durable timer."""

    _end: Callable[[], None] | None = None  # set while the timer is outstanding


class Stage:
    """Where deterministic loops run: makes them the running loop of this thread, and gives it back.

    One after the other may enter; :meth:`leave` gives the thread back to the host's loop. Between
    two activations nothing of the host's may run that asks for its loop, unless one has left.
    """

    def __init__(self) -> None:
        self._entered = False
        self._outer: tuple[AbstractEventLoop | None, Any, Any] = None, (None, None), None

    def enter(self, loop: DeterministicLoop) -> None:
        """Make *loop* the running one."""
        if not self._entered:
            self._enter()
        set_running_loop(loop)

    def _enter(self) -> None:
        host = get_running_loop()
        task: Any = None if host is None else current_task(host)
        if host is not None and task is not None:
            # From Python 3.14 a thread has one current task, not one for each loop.
            leave_task(host, task)
        self._outer = host, sys.get_asyncgen_hooks(), task
        sys.set_asyncgen_hooks(_generator_begun, _keep_unfinalized)
        self._entered = True

    def leave(self) -> None:
        """Give the thread back, if a loop has entered."""
        if not self._entered:
            return
        host, hooks, task = self._outer
        self._entered = False
        self._outer = None, (None, None), None
        sys.set_asyncgen_hooks(*hooks)
        set_running_loop(host)
        if host is not None and task is not None:
            enter_task(host, task)


def _generator_begun(generator: Any) -> None:
    loop = get_running_loop()
    if isinstance(loop, DeterministicLoop):
        loop.generator_begun(generator)


class DeterministicLoop(AbstractEventLoop):
    """An event loop whose behaviour depends only on what is delivered to it, in which order."""

    def __init__(
        self, queue: ReadyQueue, timers: TimerPort, report: Callable[[dict[str, Any]], None]
    ) -> None:
        self.queue = queue
        self._timers = timers
        self._report = report  # told what asyncio would give its exception handler
        # Begun, in that order, each with the task that began it.
        self._generators: list[tuple[Any, LoopTask | None]] = []
        self._generators_prune_at = 64
        self.time_ms = 0  # of the activation; it never goes back
        self.closing = False  # or closed: nothing user code asks for happens any more

    # -- driving ----------------------------------------------------------------------------

    def evict(self) -> list[str]:
        """Close every coroutine, last made first; complaints about those that resisted.

        The generators that a task began are closed right after it, last begun first, while what
        its parents hold open is still open. Those of tasks that have ended are closed at last.
        """
        self.closing = True
        self.queue.halt()
        complaints: list[str] = []
        begun_by: dict[LoopTask | None, list[Any]] = {}
        for generator, beginner in reversed(self._generators):
            begun_by.setdefault(beginner, []).append(generator)
        stage = Stage()
        stage.enter(self)
        try:
            for task in reversed(list(self.queue.tasks.values())):
                complaints += task.close_coroutine()
                for generator in begun_by.get(task, ()):
                    complaints += task.closing(close_generator, generator)
            for generator, beginner in reversed(self._generators):
                if beginner is None:  # begun by a callback
                    complaints += close_generator(generator, contextvars.copy_context().run)
                else:
                    complaints += beginner.closing(close_generator, generator)
        finally:
            stage.leave()
        self.queue.tasks.clear()
        self._generators.clear()
        self.queue.halt()
        self._timers = _NO_TIMERS  # the machine, which goes with its last user
        self._report = _drop_report
        return complaints

    def generator_begun(self, generator: Any) -> None:
        # Held until the invocation ends: finalized by the garbage collector, its clean-up would
        # run at a moment no replay could repeat.
        if len(self._generators) >= self._generators_prune_at:
            self._generators = [g for g in self._generators if g[0].ag_frame is not None]
            self._generators_prune_at = max(64, 2 * len(self._generators))
        task: Any = current_task()  # one of this loop's, or None in a callback
        self._generators.append((generator, task))

    # -- the interface of an event loop -----------------------------------------------------

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = ReadyHandle(callback, args, self, context)
        self.queue.items.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        return self.call_at(self.time_ms / 1000 + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        handle = DurableTimerHandle(when, callback, args, self, context)
        if when == math.inf:
            return handle  # never: asyncio.sleep(math.inf)
        delay = when - self.time()
        if not delay <= DELAY_DAYS_MAX * 86_400:  # not a number, too
            raise InvalidInput(
                f"delay of a timer: {delay} is not between 0 and {DELAY_DAYS_MAX:,} days"
            )
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
        if end is not None and not self.closing:
            end()

    def time(self) -> float:
        return self.time_ms / 1000

    # asyncio.Future in all but class.
    def create_future(self) -> LoopFuture:  # type: ignore[override]
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
        if self.closing:
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
        return get_running_loop() is self

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
        if not self.closing:
            self._report(context)


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
