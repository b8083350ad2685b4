"""What an engine takes from the machine it runs on, the wall clock aside."""

from __future__ import annotations

import asyncio
import random
import time

from perdure._runtime._steps import Failure, StepRunner, Success
from perdure._runtime._threads import StepThreads
from perdure._store import Durability, Store


class Host:
    """The machine. The test kit gives an engine another one, of which nothing is left to chance."""

    def open_store(self, path: str, *, durability: Durability, map_size: int) -> Store:
        """The store of the directory *path*; raises as :class:`~perdure._store.Store` does."""
        return Store(path, durability=durability, map_size=map_size)

    def random_bits(self, count: int) -> int:
        """A number of *count* random bits, for the ids of invocations."""
        return random.SystemRandom().getrandbits(count)

    def ticks(self) -> float:
        """Seconds since some moment, by which what takes long is cut into slices."""
        return time.perf_counter()

    def step_runner(
        self, loop: asyncio.AbstractEventLoop, threads: int, succeeded: Success, failed: Failure
    ) -> StepRunner:
        """Who runs the functions of steps: those that are not async in *threads* threads."""
        return StepRunner(loop, StepThreads(threads), succeeded, failed)
