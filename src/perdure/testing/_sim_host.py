"""What a simulated process takes from its simulated machine: time, chance, threads, the disk."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from perdure._runtime._clock import WallClock
from perdure._runtime._host import Host
from perdure._runtime._running import RunningStep
from perdure._runtime._steps import Failure, StepRunner, Success
from perdure._runtime._threads import StepThreads
from perdure._store import Durability, Store
from perdure.testing._sim_disk import Faults, SectorDisk
from perdure.testing._sim_loop import SimLoop, without_loop
from perdure.testing._sim_store import SimStore

EPOCH_MS = 1_767_225_600_000
"""The wall clock's time when a simulation begins: 2026, UTC."""

WRITER_WAKES_S_MAX = 0.000_2
TICK_S_MEAN = 0.000_4
"""Between two looks at the clock by which long work is cut into slices."""


class SimClock(WallClock):
    """The wall clock: it may go wrong, and be set."""

    def __init__(self, loop: SimLoop, chance: random.Random, faults: Faults) -> None:
        self._loop = loop
        self._rate = 1 + faults.drift * chance.uniform(-1, 1)
        self._set_ms = 0

    def now_ms(self) -> int:
        return EPOCH_MS + self._set_ms + int(self._loop.time_ns * self._rate) // 1_000_000

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._set_ms += int(seconds * 1000)


class SimThreads(StepThreads):
    """Threads that take their time, one at a time, on the loop's own thread."""

    def __init__(self, loop: SimLoop, count: int) -> None:
        super().__init__(count)
        self._loop = loop
        self._free = count
        self._lined_up: deque[Callable[[], None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        self._lined_up.append(work)
        self._take()

    def _take(self) -> None:
        if self._free and self._lined_up:
            self._free -= 1
            self._loop.after_thread(self._turn, self._lined_up.popleft())

    def _turn(self, work: Callable[[], None]) -> None:
        without_loop(work)
        self._free += 1
        self._take()

    def close(self) -> None:
        self._lined_up.clear()


class SimStepRunner(StepRunner):
    """Runs steps on a simulated loop; tells *begins* of each attempt."""

    def __init__(
        self,
        loop: SimLoop,
        threads: int,
        succeeded: Success,
        failed: Failure,
        begins: Callable[[RunningStep], None],
    ) -> None:
        super().__init__(loop, SimThreads(loop, threads), succeeded, failed)
        self._sim_loop = loop
        self._begins = begins

    def start(self, running: RunningStep) -> None:
        self._begins(running)
        super().start(running)

    def _task(self, attempt: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._sim_loop.create_task(attempt, context=self._context.copy())
        return task

    def _call_on_loop(self, callback: Callable[..., object], *args: object) -> None:
        self._sim_loop.after_thread(callback, *args)


class SimHost(Host):
    """What one process has of the machine.

    Attributes:
      step_begins: Told of each attempt of a step, before it runs.
    """

    def __init__(self, loop: SimLoop, disk: SectorDisk, chance: random.Random) -> None:
        self._loop = loop
        self._disk = disk
        self._chance = chance
        self._ticks_s = 0.0
        self._store: SimStore | None = None
        self.step_begins: Callable[[RunningStep], None] = lambda _: None

    def open_store(self, path: str, *, durability: Durability, map_size: int) -> Store:
        def wake_writer(commit: Callable[[], None]) -> None:
            self._loop.call_later(self._chance.random() * WRITER_WAKES_S_MAX, commit)

        self._store = SimStore(self._disk, schedule=wake_writer, now_ns=lambda: self._loop.time_ns)
        return self._store

    def end(self) -> None:
        """The process is dead: what may still run of it, to clean up, writes nothing."""
        if self._store is not None:
            self._store.simulated.watch(None)
            self._store.simulated.fail("the simulated process is dead")

    def random_bits(self, count: int) -> int:
        return self._chance.getrandbits(count)

    def ticks(self) -> float:
        self._ticks_s += self._chance.expovariate(1 / TICK_S_MEAN)
        return self._ticks_s

    def step_runner(
        self, loop: asyncio.AbstractEventLoop, threads: int, succeeded: Success, failed: Failure
    ) -> StepRunner:
        return SimStepRunner(cast(SimLoop, loop), threads, succeeded, failed, self.step_begins)
