"""An event loop in simulated time: nothing waits, and a seed decides what asyncio leaves open.

Theory of operation. The loop is asyncio's own, without selector and threads. Callbacks run first
in, first out, as asyncio promises; each round takes some microseconds of simulated time, drawn from
the seed. When nothing is ready, time jumps to the next timer, and without one nothing can ever
happen: that is an error, not a hang. What runs "in a thread" runs here, after a drawn delay.

A process that dies leaves no ``finally`` to run. So each callback carries, in its context, the
process it belongs to, and callbacks of a dead one are dropped.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
AnyCoroutine: TypeAlias = "Coroutine[Any, Any, T] | Generator[Any, None, T]"

START_S = 1_000.0
ROUND_NS_MAX = 20_000
THREAD_S_MAX = 0.003
ROUNDS_MAX = 5_000_000
"""After so many rounds something goes round in circles."""


class Owner(Protocol):
    """A process of the simulated world."""

    @property
    def alive(self) -> bool: ...

    def began(self, task: SimTask[Any]) -> None:
        """A task of the process was made."""


current_owner: contextvars.ContextVar[Owner | None] = contextvars.ContextVar(
    "perdure_simulated_process", default=None
)


class SimulationStuck(Exception):
    """Nothing is ready and no timer is set, or rounds go on without an end."""


class SimTask(asyncio.Task[T]):
    """A task whose hash is the number of its creation: sets of them have one order everywhere."""

    def __init__(self, number: int, coroutine: Any, **options: Any) -> None:
        self._number = number  # first: the constructor of Task puts it into a set
        self.context = options.setdefault("context", None) or contextvars.copy_context()
        options["context"] = self.context
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class SimFuture(asyncio.Future[T]):
    """A future whose hash is the number of its creation."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The loop; *chance* draws how long things take."""

    round_ns_max = ROUND_NS_MAX
    rounds_max = ROUNDS_MAX

    # Of asyncio's own loop; its stubs do not have them.
    _ready: Any
    _scheduled: list[Any]
    _stopping: bool
    _check_closed: Callable[[], None]

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._made = 0
        self._rounds = 0
        self.time_ns = int(START_S * 1e9)

    def time(self) -> float:
        return self.time_ns / 1e9

    def pass_time(self, seconds: float) -> None:
        """Have *seconds* gone by, in which nothing else ran: the thread was blocked."""
        self.time_ns += int(seconds * 1e9)

    def _number(self) -> int:
        self._made += 1
        return self._made

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(self._number(), self)

    def create_task(self, coro: Any, **options: Any) -> Any:  # as asyncio's versions differ
        self._check_closed()
        task: SimTask[Any] = SimTask(self._number(), coro, loop=self, **options)
        owner = task.context.get(current_owner)
        if owner is not None:
            owner.began(task)
        return task

    # The stubs of Python's versions differ.
    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Any, *args: Any
    ) -> Any:
        """Run *func* on this thread, in a moment that is drawn."""
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = without_loop(func, *args)
            except BaseException as error:
                self.after_thread(_unless_done, future, future.set_exception, error)
            else:
                self.after_thread(_unless_done, future, future.set_result, result)

        self.after_thread(run)
        return future

    def after_thread(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Call back when a thread has had its turn."""
        return self.call_later(self._chance.random() * THREAD_S_MAX, callback, *args)

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("a simulated loop has no network: have a step double for it")

    getnameinfo = getaddrinfo

    def _write_to_self(self) -> None:
        """Nothing: no selector sleeps."""

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        self._rounds += 1
        if self._rounds > self.rounds_max:
            self._rounds = 0  # what cleans up has rounds of its own
            raise SimulationStuck(f"no end after {self.rounds_max:,} rounds of the event loop")
        self.time_ns += self._chance.randrange(self.round_ns_max)
        while scheduled and (scheduled[0]._cancelled or _is_dead(scheduled[0])):
            self._drop_first()
        if not ready and not scheduled and not self._stopping:
            self.nothing_left()
        if not ready and not self._stopping:
            self.time_ns = max(self.time_ns, int(scheduled[0]._when * 1e9) + 1)
        now = self.time()
        while scheduled and scheduled[0]._when <= now:
            ready.append(self._drop_first())
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled and not _is_dead(handle):
                handle._run()

    def nothing_left(self) -> None:
        """Called when nothing is ready and no timer is set; makes something ready, or raises."""
        raise SimulationStuck(
            "nothing is ready and no timer is set: what is awaited can never happen"
        )

    def _drop_first(self) -> Any:
        handle = heapq.heappop(self._scheduled)
        handle._scheduled = False
        return handle


def without_loop(function: Callable[..., T], *args: Any) -> T:
    """Call *function* as a thread would, in which no loop runs."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return function(*args)
    finally:
        asyncio._set_running_loop(loop)


def _is_dead(handle: Any) -> bool:
    owner = handle._context.get(current_owner)
    return owner is not None and not owner.alive


def _unless_done(future: asyncio.Future[Any], set_it: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        set_it(value)
