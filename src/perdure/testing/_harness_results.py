"""Awaiting results in a test: the time moves meanwhile, and a crash of the engine ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure._ids import InvocationId, format_id
from perdure._results import Results
from perdure._runtime._layout import Output
from perdure._runtime._scheduler import Scheduler
from perdure.errors import NotFound, StoreClosed
from perdure.testing._driver import Driver
from perdure.testing._faults import HarnessError


class HarnessResults(Results):
    """Results of the engine of a harness, of each that takes the place of the one before."""

    def __init__(self, scheduler: Callable[[], Scheduler], driver: Driver) -> None:
        super().__init__(scheduler)
        self._driver = driver

    async def wait(self, invocation_id: InvocationId) -> Output:
        return await self.follow(invocation_id, None)

    async def follow(
        self, invocation_id: InvocationId, future: asyncio.Future[Output] | None
    ) -> Output:
        """The output, which *future* gives, if it is given.

        Raises:
          HarnessError: The engine has crashed, and the invocation was not durable.
          Stuck: It can never come.
        """
        crashed = False
        while True:
            scheduler = self._scheduler()
            try:
                if future is None:
                    output = await self._known(scheduler, invocation_id)
                    if output is not None:
                        return output
                    future = scheduler.answers.result(invocation_id)
                return await self._driver.until(future, invocation_id)
            except NotFound as missing:
                if not crashed:
                    raise
                raise HarnessError(
                    f"{format_id(invocation_id)} is lost: the engine crashed before it was "
                    "durable; `await h.send(…)` returns when it is"
                ) from missing
            except StoreClosed:
                async with self._driver.moving:  # until the next one is open
                    if self._scheduler() is scheduler:
                        raise
                crashed, future = True, None

    async def _known(self, scheduler: Scheduler, invocation_id: InvocationId) -> Output | None:
        try:
            output = scheduler.output(invocation_id)
        except NotFound:
            await scheduler.answers.committed()
            raise
        if output is not None:
            await scheduler.answers.committed()
        return output
