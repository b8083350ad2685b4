"""What the verbs of an engine share: that it is open, and used where it may be."""

from __future__ import annotations

import asyncio

from perdure._binding import Services
from perdure._results import Results
from perdure._runtime._scheduler import Scheduler
from perdure.errors import InvalidInput, StoreClosed


class Opened:
    """The part of an engine that its verbs rest on."""

    _noun = "engine"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop: asyncio.AbstractEventLoop | None = None  # that opened it
        self._scheduler: Scheduler | None = None
        self._results = Results(self._open_scheduler)

    def _open_scheduler(self) -> Scheduler:
        if self._scheduler is None:
            raise StoreClosed(
                f"the {self._noun} is not open; use it inside `async with {self._noun}:`"
            )
        self._scheduler.check_open()
        if asyncio.get_running_loop() is not self._loop:
            # The answer would wake the asker outside its journal, or on a loop that never looks.
            raise InvalidInput(
                "the engine was used outside the event loop that opened it: in a handler (do it in "
                "a step: await ctx.run('name', engine.call, …)) or on the loop of another thread "
                "(hand it over: asyncio.run_coroutine_threadsafe)"
            )
        return self._scheduler
