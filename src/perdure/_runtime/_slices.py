"""Long reads, cut into slices: between two of them the host's loop has its turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

SLICE_S = 0.003
"""A slice ends after this long; what is left of 5 ms is for the row it is at."""


class Slices:
    """The slices of one read.

    What is read within a slice is of one moment: nothing else runs. Between two slices anything
    may have happened, the close of the engine included.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._ticks = scheduler.ticks
        self._end = self._ticks() + SLICE_S

    async def turn(self) -> None:
        """Give the host's loop its turn, if the slice is over.

        Raises:
          StoreClosed, StoreBroken: The engine has closed or failed meanwhile.
        """
        if self._ticks() > self._end:
            await asyncio.sleep(0)
            self._scheduler.check_open()
            self._end = self._ticks() + SLICE_S
