"""Who moves the clock of a harness, and who notices that nothing can happen any more.

Theory of operation. An engine is idle when nothing is queued, no step runs, and all is committed.
Time moves only then, from one deadline to the next, so each timer fires at its own time. The test
moves it (``advance``, ``skip``), or the driver does: a task that lives while anyone awaits the
result of an invocation. Idle is looked for at each turn of the loop while the engine has something
to do in the next one; while only steps run it is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from perdure._runtime._layout import TimerKey
from perdure._runtime._scheduler import Scheduler
from perdure._store import Db
from perdure.testing._faults import HarnessError, Problems
from perdure.testing._harness_runner import HarnessRunner
from perdure.testing._held_clock import HeldClock

T = TypeVar("T")

_LOOP_TURNS = 10
"""Turns of the loop without news, before what else runs in it counts as waiting for the result."""

_OTHERS_S = 1.0
"""What other tasks get, where they may still do what a result waits for."""

_STEPS_S = 10.0
"""What the steps under way get, before a test that moves the time is told of them."""


class Wait:
    """A task that awaits the result of an invocation."""

    __slots__ = ("future", "invocation_id", "task")

    def __init__(self, future: asyncio.Future[Any], invocation_id: bytes) -> None:
        self.future = future
        self.invocation_id = invocation_id
        self.task = asyncio.current_task()


class Driver:
    """Owner of the time of a harness.

    Attributes:
      auto_skip: Whether it moves the time itself.
      runner: Of the engine that is open.
      moving: Held by whoever moves the time or opens the engine anew.
    """

    runner: HarnessRunner

    def __init__(
        self,
        clock: HeldClock,
        problems: Problems,
        scheduler: Callable[[], Scheduler],
        why_stuck: Callable[[bytes], Awaitable[HarnessError]],
    ) -> None:
        self.auto_skip = True
        self._clock = clock
        self._problems = problems
        self._scheduler = scheduler
        self._why_stuck = why_stuck
        self._waits: list[Wait] = []
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.moving = asyncio.Lock()

    def tell(self) -> None:
        """Something happens: a unit is sealed, or a step ends."""
        self._news.set()

    # -- awaiting results -------------------------------------------------------------------

    async def until(self, future: asyncio.Future[T], invocation_id: bytes) -> T:
        """The result of *future*, the output of an invocation.

        Raises what has broken the invocation, and ``Stuck`` where it can never come.
        """
        error = self._problems.take(invocation_id)
        if error is not None:
            future.cancel()
            raise error
        wait = Wait(future, invocation_id)
        self._waits.append(wait)
        self.tell()
        if self._task is None or self._task.done():
            # Not by the loop's factory: an eager one would begin before this waits.
            self._task = asyncio.Task(self._drive(), loop=asyncio.get_running_loop())
        try:
            return await future
        finally:
            self._waits.remove(wait)
            self.tell()

    def broke(self, invocation_id: bytes) -> None:
        """Tell who awaits the result of what has broken."""
        for wait in self._waits:
            if wait.invocation_id == invocation_id and not wait.future.done():
                error = self._problems.take(invocation_id)
                if error is not None:
                    wait.future.set_exception(error)

    async def stop(self) -> None:
        """Drive no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _drive(self) -> None:
        try:
            while self._waits:
                await self._drive_on()
        except Exception as error:  # who awaits a result must not wait for ever
            defect = error
            self._fail_waits(lambda _: defect)

    async def _drive_on(self) -> None:
        """Wait until nothing happens any more, and have something happen, if need be."""
        await self._idle()
        if not await self._loop_is_idle() or self.moving.locked():
            async with self.moving:
                return
        error = self._problems.take()
        if error is not None:
            self._fail_waits(lambda _: error)
            return
        due_ms = self.next_timer_ms()
        if self.auto_skip and due_ms is not None:
            async with self.moving:
                await self._move_to(due_ms, self._idle)
            return
        if await self._others_act():
            return
        stuck = {
            wait.invocation_id: await self._why_stuck(wait.invocation_id)
            for wait in list(self._waits)
        }
        self._fail_waits(stuck.get)

    def _fail_waits(self, error_of: Callable[[bytes], BaseException | None]) -> None:
        for wait in self._waits:
            error = error_of(wait.invocation_id)
            if error is not None and not wait.future.done():
                wait.future.set_exception(error)

    async def _loop_is_idle(self) -> bool:
        """Whether nothing else in the loop makes the engine do something."""
        self._news.clear()
        for _ in range(_LOOP_TURNS):
            await asyncio.sleep(0)
            if self._news.is_set() or not self.is_idle():
                return False
        return any(not wait.future.done() for wait in self._waits)

    async def _others_act(self) -> bool:
        """Whether other tasks do something; they get a moment if there are any."""
        known = {wait.task for wait in self._waits} | {asyncio.current_task()}
        others = asyncio.all_tasks() - known - self.runner.tasks()
        if not others:
            return False
        return await _in_time(self._news.wait(), _OTHERS_S)

    # -- moving the time --------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether nothing happens until the time moves or somebody acts."""
        return self._is_quiet() and not self.runner.busy()

    def _is_quiet(self) -> bool:
        scheduler = self._scheduler()
        return (
            scheduler.pump.is_idle()
            and scheduler.store.committed == scheduler.store.sealed
            and not scheduler.gate.holds()
            and not scheduler.residents.recovering
            and scheduler.cleaner.is_idle()
            and not self._clock.is_due()
        )

    async def _idle(self) -> None:
        while not self.is_idle():
            if self._is_quiet():
                self._news.clear()
                await self._news.wait()
            await asyncio.sleep(0)

    async def idle(self) -> None:
        """Return when the engine is idle.

        Raises:
          HarnessError: A step has run for ten seconds.
        """
        if self.is_idle():
            await asyncio.sleep(0)  # who calls this in a loop lets others have their turn
        elif not await _in_time(self._idle(), _STEPS_S):
            names = ", ".join(sorted({repr(each.step.name) for each in self.runner.busy()}))
            raise HarnessError(
                f"step {names} still runs after {_STEPS_S:g} seconds of real time. Give it a "
                'double, or, if it is to be under way while time passes: h.step("…").hangs()'
            )

    async def settle(self) -> None:
        """Return when the engine is idle; raise what has broken, as for advance."""
        await self.idle()
        self._problems.raise_first()

    async def advance_to(self, to_ms: int) -> None:
        """Move the time there, from deadline to deadline.

        Raises:
          Exception: An invocation has broken: what broke it. The time stays there.
        """
        async with self.moving:
            await self._move_to(to_ms, self.idle)
            self._problems.raise_first()

    async def _move_to(self, to_ms: int, idle: Callable[[], Awaitable[None]]) -> None:
        """The same; stops where something breaks."""
        clock = self._clock
        await idle()
        while not self._problems:
            due_ms = clock.next_ms()
            clock.move(to_ms if due_ms is None else min(due_ms, to_ms))
            await idle()
            if due_ms is None or due_ms > to_ms:
                return

    def next_timer_ms(self) -> int | None:
        """When the next timer of a registered invocation is due, or a step's time is over."""
        scheduler = self._scheduler()
        after = (scheduler.clock.now_ms() + 1).to_bytes(8, "big")
        due_ms = self.runner.next_expiry_ms()
        while rows := scheduler.store.scan(Db.TIMERS, b"", after=after, limit=64):
            for suffix, _ in rows:
                timer = TimerKey.unpack(suffix)
                record = scheduler.answers.record(timer.invocation_id)
                if record is None or scheduler.registry.is_registered(record):
                    return timer.due_ms if due_ms is None else min(timer.due_ms, due_ms)
            after = rows[-1][0]
        return due_ms


async def _in_time(what: Awaitable[object], seconds: float) -> bool:
    """Whether *what* ends within *seconds* of real time."""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return False
    return True
