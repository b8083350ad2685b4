"""What the engine of a harness has in the place of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import Callable
from typing import Any

from perdure._runtime._host import Host
from perdure._runtime._steps import Failure, Success
from perdure._runtime._threads import StepThreads
from perdure._store import Durability
from perdure.testing._harness_runner import HarnessRunner
from perdure.testing._sim_store import SimStore, blank_disk


class HarnessHost(Host):
    """A disk in memory, ids that are the same in each run, and steps with doubles.

    Attributes:
      disk: Survives a crash of the engine.
    """

    def __init__(
        self,
        tell: Callable[[], None],
        make_runner: Callable[..., HarnessRunner],
        *,
        perturb: bool,
    ) -> None:
        self.disk = blank_disk()
        self._tell = tell
        self._make_runner = make_runner
        self._random = random.Random(0)
        self._perturb = perturb
        self._noise: list[Any] = []

    def open_store(self, path: str, *, durability: Durability, map_size: int) -> SimStore:
        loop = asyncio.get_running_loop()

        def schedule(commit: Callable[[], None]) -> None:
            self._tell()
            with contextlib.suppress(RuntimeError):  # the test's loop is closed: it is over
                loop.call_soon(commit)

        return SimStore(self.disk, schedule=schedule)

    def random_bits(self, count: int) -> int:
        # A crash goes on in the sequence: no id comes twice.
        return self._random.getrandbits(count)

    def ticks(self) -> float:
        # The engine looks at the time between any two activations.
        if self._perturb:
            gc.collect()
            self._noise = [object() for _ in range(self._random.randrange(1000))]
        return time.perf_counter()

    def step_runner(
        self, loop: asyncio.AbstractEventLoop, threads: int, succeeded: Success, failed: Failure
    ) -> HarnessRunner:
        return self._make_runner(loop, StepThreads(threads), succeeded, failed)
