"""One run of a workflow from its start to its end, in which a test decides what happens when.

Theory of operation. A trial is a simulation without chance: commits, threads and clients take no
time, and a disk commits unit by unit. The workflow is begun from outside and its result awaited
there; a script beside it does what people and webhooks would. Both are clients that survive the
death of the process: they ask again, under idempotency keys, until they have an answer.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from perdure._core._entries import Entry
from perdure._journal import decode_entries
from perdure._runtime._running import RunningStep
from perdure._runtime._steps import Failure, Success
from perdure._store import Db, Durability, Store
from perdure.errors import TerminalError
from perdure.retry import RetryPolicy
from perdure.service import HandlerReference
from perdure.testing._outside import Client
from perdure.testing._sim_disk import Faults, PowerFailed, SectorDisk
from perdure.testing._sim_environment import Unit
from perdure.testing._sim_host import SimClock, SimHost, SimStepRunner
from perdure.testing._sim_loop import SimLoop, SimulationStuck
from perdure.testing._sim_store import SimStore
from perdure.testing._simulation import Simulation

MOMENT_S = 0.000_1
"""It goes by only when nothing is ready any more."""

Script = Callable[[Client], Awaitable[object]]


@dataclass(frozen=True)
class Subject:
    """What is run: a handler, its argument and key, and how its services are made.

    Attributes:
      make: Given the world of one trial, all services; called for each trial.
    """

    handler: HandlerReference
    arg: Any
    key: str | None
    make: Callable[[Any], Sequence[Any]]
    world: Callable[[], Any]
    script: Script | None
    retry: RetryPolicy
    always_replay: bool
    perturb: bool


class TrialDisk(SectorDisk):
    """Commits at once, unit by unit; what is committed survives."""

    def write(self, units: Sequence[Unit], done: Callable[[str | None], object]) -> None:
        for unit in units:
            self.commit([unit])
            try:
                self.committed([unit])
            except PowerFailed:
                return
        done(None)

    def finish(self) -> None:
        """Nothing is ever under way."""

    def kill(self) -> None:
        self.in_flight = []


class TrialClock(SimClock):
    """Is never set, so nobody has to look whether it was: a month takes one jump."""

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        return loop.call_later(max(0.0, (when_ms - self.now_ms() + 1) / 1000), callback)


class TrialHost(SimHost):
    """No thread takes time, and the end of each attempt of a step is told to the trial."""

    def __init__(self, trial: Trial, loop: SimLoop, disk: SectorDisk, ids: random.Random) -> None:
        super().__init__(loop, disk, ids)
        self._trial = trial

    def open_store(self, path: str, *, durability: Durability, map_size: int) -> Store:
        loop = self._loop

        def commit_soon(commit: Callable[[], None]) -> None:
            loop.call_soon(commit)

        self._store = SimStore(self._disk, schedule=commit_soon, now_ns=lambda: loop.time_ns)
        return self._store

    def ticks(self) -> float:
        if self._trial.subject.perturb:
            gc.collect(self._trial.random.randrange(2))  # all of it takes too long to do often
            count = self._trial.random.randrange(1000)
            self._trial.noise = [object() for _ in range(count)]
        return 0.0

    def step_runner(
        self, loop: asyncio.AbstractEventLoop, threads: int, succeeded: Success, failed: Failure
    ) -> SimStepRunner:
        trial = self._trial

        def has_succeeded(running: RunningStep, payload: bytes) -> None:
            trial.hear(lambda: trial.step_ended(running, lambda: succeeded(running, payload)))

        def has_failed(running: RunningStep, error: BaseException) -> None:
            trial.hear(lambda: trial.step_ended(running, lambda: failed(running, error)))

        return SimStepRunner(
            cast(SimLoop, loop),
            threads,
            has_succeeded,
            has_failed,
            self.step_begins,
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trial ended.

    Attributes:
      payload: The result or the failure, encoded.
      failed: Whether it is a failure.
      value: The same for people: the result, or the TerminalError.
    """

    payload: bytes
    failed: bool
    value: Any = field(compare=False)

    def __str__(self) -> str:
        if isinstance(self.value, TerminalError):
            return f"{type(self.value).__name__}: {self.value}"
        return repr(self.value)


class TrialFailed(Exception):
    """A trial came to no end, or something that must not be has happened."""


class Trial(Simulation):
    """One run of *subject*.

    Attributes:
      ending: Once it has ended.
      sites: The recorded call sites, by number.
    """

    _disk_type = TrialDisk
    # A crash takes no time either, so ctx.now() is what it is without one.
    _latency_s_max = 0.0
    _restart_s_max = 0.0

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.noise: list[object] = []
        self.ending: Ending | None = None
        self.sites: dict[int, str] = {0: ""}
        self._sites_of: dict[tuple[bytes, int], int] = {}
        super().__init__(
            0,
            lambda _: self._services_once(),
            world=subject.world,
            faults=Faults(slow=0, stalled=0),
            retry=subject.retry,
            max_resident=0 if subject.always_replay else 10_000,
        )
        self._made: Sequence[Any] | None = None

    def _services_once(self) -> Sequence[Any]:
        if self._made is None:
            self._made = self.subject.make(self.world)
        return self._made

    def _make_loop(self, chance: random.Random) -> SimLoop:
        return TrialLoop(self)

    def _make_clock(self, faults: Faults) -> SimClock:
        return TrialClock(self._loop, self._chance, faults)

    def _make_host(self) -> SimHost:
        return TrialHost(self, self._loop, self._disk, self._ids)

    async def about_to_ask(self, verb: str) -> None:
        """The script is about to ask the engine for something."""

    # -- what happens -----------------------------------------------------------------------

    def hear(self, what: Callable[[], None]) -> None:
        """Do *what*, in a task of the process, which would swallow what it raises."""
        try:
            what()
        except BaseException as error:
            self._fail(error)

    def step_ended(self, running: RunningStep, tell: Callable[[], None]) -> None:
        """An attempt of a step has ended, and nobody has been told; *tell* tells the engine."""
        tell()

    def _committed(self, units: Sequence[Unit]) -> None:
        super()._committed(units)
        for unit in units:
            for db, key, value in unit:
                if db == Db.SITES and value is not None:
                    self.sites[int.from_bytes(key, "big")] = value.decode()
                elif db == Db.JOURNAL and value is not None:
                    first = int.from_bytes(key[16:], "big")
                    for index, entry in enumerate(decode_entries(value, Entry), first):
                        if entry.site:
                            self._sites_of[key[:16], index] = entry.site

    def site_of(self, running: RunningStep) -> str:
        """The line that issued a step: ``file:line in function``."""
        return self.sites.get(self._sites_of.get((running.invocation_id, running.index), 0), "")

    def nothing_left(self) -> None:
        """Nothing is ready, and no time is waited for: have something happen, or end the trial."""
        if self._failure is None:
            self._loop.create_task(self._explain(), context=self._outside.copy())

    async def _explain(self) -> None:
        """End the trial, for what it waits for can never happen."""
        found = []
        engine = self._current().engine
        for summary in (await engine.invocations(limit=1_000)).items:
            description = await engine.describe(summary.id)
            if description.completed_at is None:
                target = f"{description.service}.{description.handler}"
                waits = "; ".join(map(str, description.waiting_on)) or "nothing"
                text = f"{target} is {description.status} and waits for {waits}"
                if description.last_failure:
                    text += f"; its last failure: {description.last_failure}"
                found.append(text)
        told = "\n".join(found) or "nothing is under way: does the script wait for something else?"
        self._fail(TrialFailed(f"it comes to no end, for nothing can happen any more:\n{told}"))

    # -- from start to end ------------------------------------------------------------------

    async def _play(self, scenario: Any) -> None:
        self._open = asyncio.Event()
        await self._begin()
        await scenario(self)
        await self._come_to_rest()
        self._ending = True
        await self._close()
        self._die("closed")

    async def _come_to_rest(self) -> None:
        """Return when all is done that takes no time, such as what the workflow has sent."""
        await asyncio.sleep(MOMENT_S)
        await self.until_open()

    def play(self) -> Ending:
        """Run it.

        Raises:
          TrialFailed, PromiseBroken, or what the script raised.
        """
        try:
            self.run(cast(Any, self._scenario))
        except SimulationStuck as stuck:
            raise TrialFailed(f"it comes to no end: {stuck}") from stuck
        assert self.ending is not None
        return self.ending

    async def _scenario(self, _: Simulation) -> None:
        subject = self.subject
        client = Client(self)
        script = None if subject.script is None else subject.script(client)
        if script is None:
            self.ending = await self._result(client)
            return
        acting = asyncio.ensure_future(script)
        waiting = asyncio.ensure_future(self._result(client))
        await asyncio.wait({acting, waiting}, return_when=asyncio.FIRST_EXCEPTION)
        if acting.done():
            acting.result()  # what it raises is told first
        self.ending = await waiting
        await acting

    async def _result(self, client: Client) -> Ending:
        subject = self.subject
        definition = subject.handler.definition
        try:
            value = await client.begin(subject.handler, subject.arg, subject.key)
        except TerminalError as failure:
            told = repr((failure.code, str(failure), failure.metadata))
            return Ending(told.encode(), True, failure)
        return Ending(definition.result_serde.encode(value, "result"), False, value)


class TrialLoop(SimLoop):
    """Rounds take no time, and the trial decides what happens when nothing is left to do."""

    round_ns_max = 1  # exclusive
    rounds_max = 300_000  # some seconds

    def __init__(self, trial: Trial) -> None:
        super().__init__(random.Random(0))
        self._trial = trial

    def after_thread(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self.call_soon(callback, *args)

    def nothing_left(self) -> None:
        self._trial.nothing_left()
