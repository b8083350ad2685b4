"""A whole engine in a simulated world: one seed decides everything that chance decides.

Theory of operation. The scenario is a client, outside of the process that has the engine. It asks
the engine, ends its process or cuts the power, and a new process opens the disk. Time, the order of
what happens at once, how long commits and threads take, ids and faults are drawn from the seed: the
same seed gives the same run, in every process. An auditor watches what the engine promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from perdure._runtime._running import RunningStep
from perdure._store import DATABASES
from perdure.engine import Engine
from perdure.errors import StoreError
from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.testing._sim_audit import Auditor
from perdure.testing._sim_device import Landed
from perdure.testing._sim_disk import Faults, PowerFailed, SectorDisk
from perdure.testing._sim_environment import Unit
from perdure.testing._sim_host import SimClock, SimHost
from perdure.testing._sim_loop import SimLoop, current_owner
from perdure.testing._sim_process import Outside, Process, ProcessDied, SimEngine

T = TypeVar("T")

Scenario: TypeAlias = "Callable[[Simulation], Awaitable[object]]"
Services: TypeAlias = "Iterable[Any] | Callable[[Simulation], Iterable[Any]]"

LATENCY_S_MAX = 0.002
"""Of a client's question, and of the answer."""

RESTART_S_MAX = 0.1
EVENTS_KEPT = 40


@dataclass(frozen=True, slots=True)
class SimulationRun:
    """What one seed led to.

    Attributes:
      seed: It gives the same run again.
      digest: Of all that happened, in order: two runs with one digest are the same.
      events: The last things that happened.
      syncs: How many syncs of the disk began.
      deaths: How many processes were killed, lost power, or failed.
      seconds: Of simulated time.
    """

    seed: int
    digest: str
    events: tuple[str, ...]
    syncs: int
    deaths: int
    seconds: float


class Simulation:
    """One simulated world, as its scenario sees it; made by :func:`simulate`.

    Attributes:
      seed: What it was made of.
      random: For the choices of the scenario.
      engine: The verbs of the engine, asked from outside. While no process lives they wait for
        the next; when the process dies before it answers they raise :class:`ProcessDied`.
      world: What stands outside of all processes, as steps and the scenario know it.
      deaths: How many processes have died.
    """

    _disk_type = SectorDisk
    _latency_s_max = LATENCY_S_MAX
    _restart_s_max = RESTART_S_MAX

    def __init__(
        self,
        seed: int,
        services: Services,
        *,
        world: Callable[[], Any] = lambda: None,
        faults: Faults,
        retry: RetryPolicy = DEFAULT_RETRY,
        max_resident: int | None = None,
        power_loss_at: int | None = None,
        landed: Landed | None = None,
    ) -> None:
        self.seed = seed
        self.world = world()
        chance = random.Random(seed)
        # Each has its own stream: a choice more in one place changes nothing in another.
        self.random, timing, writing, self._ids, self._chance = (
            random.Random(chance.getrandbits(64)) for _ in range(5)
        )
        self._services = services
        self._retry = retry
        self._max_resident = max_resident
        self._power_loss_at = power_loss_at
        self._landed: Landed | None = landed
        self._loop = self._make_loop(timing)
        self._outside = contextvars.copy_context()
        self._clock = self._make_clock(faults)
        self._auditor = Auditor(len(DATABASES))
        self._disk = self._disk_type(len(DATABASES), loop=self._loop, chance=writing, faults=faults)
        self._disk.sync_begins = self._sync_begins
        self._disk.failed = self._disk_failed
        self._disk.committed = self._committed
        self._digest = hashlib.blake2b(digest_size=16)
        self._events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self._processes: list[Process] = []
        self._open: asyncio.Event | None = None
        self._ending = False
        self._failure: BaseException | None = None
        self._main: asyncio.Task[None] | None = None
        self.deaths = 0
        self.engine = cast(Engine, Outside(self._ask))

    def _make_loop(self, chance: random.Random) -> SimLoop:
        return SimLoop(chance)

    def _make_clock(self, faults: Faults) -> SimClock:
        return SimClock(self._loop, self._chance, faults)

    def _make_host(self) -> SimHost:
        return SimHost(self._loop, self._disk, self._ids)

    # -- for scenarios ----------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Let simulated time go by."""
        await asyncio.sleep(seconds)

    @property
    def seconds(self) -> float:
        """Simulated time since some moment, by a clock that no fault touches."""
        return self._loop.time()

    def log(self, text: str) -> None:
        """Add an event to those that a red run shows, and to the digest."""
        event = f"{self._loop.time_ns / 1e9:.6f} {text}"
        self._events.append(event)
        self._digest.update(event.encode() + b"\n")

    async def kill(self) -> None:
        """Kill the process: what it wrote stays in the page cache. Back when the next is open."""
        self._die("killed")
        await self.until_open()

    async def power_loss(self, landed: Landed | None = None) -> None:
        """Cut the power: of what was not synced, *landed* is on the disk; None: it is drawn."""
        self._die("power loss", power=True, landed=landed)
        await self.until_open()

    async def restart(self) -> None:
        """Close the engine in order, and open the next."""
        await self.until_open()
        await self._close()
        if not self._current().alive:
            return
        self._die("restarted")
        await self.until_open()

    async def until_open(self) -> None:
        """Wait until a process has the engine open."""
        while not self._opened().is_set():
            await self._opened().wait()

    def crash_randomly(self, *, every: float = 1.0, power: float = 0.5) -> asyncio.Task[None]:
        """Have processes die at drawn moments until the task that this gives is cancelled.

        Args:
          every: Seconds of simulated time between two deaths, on average.
          power: Share of the deaths that are power losses; the others are kills.
        """

        async def crash() -> None:
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / every))
                if self._chance.random() < power:
                    await self.power_loss()
                else:
                    await self.kill()

        task: asyncio.Task[None] = self._loop.create_task(crash(), context=self._outside.copy())
        return task

    def jump_clock(self, seconds: float) -> None:
        """Set the wall clock forward, or back; the engine notices within a minute."""
        self.log(f"the clock jumps by {seconds} s")
        self._clock.jump(seconds)

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What *ask* gives, asked again as often as a process dies or fails before it answers.

        It may have happened each time: ask for what happens once, by a key or an idempotency key.
        """
        while True:
            try:
                return await ask()
            except (ProcessDied, StoreError):
                await asyncio.sleep(self._chance.random() * self._latency_s_max)

    # -- the life of processes --------------------------------------------------------------

    def _opened(self) -> asyncio.Event:
        assert self._open is not None
        return self._open

    def _current(self) -> Process:
        return self._processes[-1]

    async def _ask(self, make: Callable[[SimEngine], Awaitable[T]]) -> T:
        await asyncio.sleep(self._chance.random() * self._latency_s_max)
        await self.until_open()
        answer = await self._current().ask(make, self._answers)
        await asyncio.sleep(self._chance.random() * self._latency_s_max)
        return answer

    async def _begin(self) -> None:
        """Start a process, and have it open the disk."""
        services = self._services(self) if callable(self._services) else self._services
        host = self._make_host()
        host.step_begins = self._step_begins
        resident = self._max_resident
        engine = SimEngine(
            host,
            self._clock,
            services,
            retry=self._retry,
            max_resident=self._chance.choice((0, 3, 10_000)) if resident is None else resident,
        )
        process = Process(self._loop, engine)
        self._processes.append(process)
        try:
            await process.ask(lambda engine: engine.open(), lambda _: None)
        except ProcessDied:
            return  # whoever ended it starts the next
        except StoreError as error:
            if not self._disk.refuses:
                self._fail(error)
            return
        except Exception as error:
            self._fail(error)
            return
        self.log("a process has opened the disk")
        self._opened().set()

    def _die(self, how: str, *, power: bool = False, landed: Landed | None = None) -> None:
        """The process is dead; look at what it leaves, and start the next after a while."""
        process = self._current()
        if not process.alive:
            return  # the next has not begun
        self.log(how)
        self.deaths += 1
        failure = process.failure()
        if failure is not None and not self._disk.refuses:
            self._fail(failure)
        process.die()
        self._opened().clear()
        in_flight = self._disk.in_flight
        try:
            if power:
                self._disk.power_loss(landed)
            else:
                self._disk.kill()
            self._auditor.found(self._disk, in_flight)
        except Exception as error:
            self._fail(error)
        if not self._ending:
            self._loop.call_later(
                self._chance.random() * self._restart_s_max,
                self._begin_soon,
                context=self._outside.copy(),
            )

    def _begin_soon(self) -> None:
        self._loop.create_task(self._begin(), context=self._outside.copy())

    async def _close(self) -> None:
        """Close the engine in order, unless its process dies on the way."""
        self._opened().clear()
        with contextlib.suppress(ProcessDied, StoreError):
            await self._current().ask(lambda engine: engine.close(), lambda _: None)

    # -- what the auditor hears -------------------------------------------------------------

    def _committed(self, units: Sequence[Unit]) -> None:
        self._auditor.committed(units)
        digest = hashlib.blake2b(repr(units).encode(), digest_size=6).hexdigest()
        self.log(f"{len(units)} units are durable: {digest}")

    def _sync_begins(self, number: int) -> None:
        if number == self._power_loss_at:
            self._die(f"power loss at sync {number}", power=True, landed=self._landed)
            raise PowerFailed

    def _disk_failed(self, reason: str) -> None:
        self.log(f"the disk fails: {reason}")
        process = self._current()

        def end() -> None:
            if process.alive:
                self._die("the process ends, as its disk has failed")

        # Until then it is to refuse what it is asked.
        self._loop.call_later(0.01, end, context=self._outside.copy())

    def _step_begins(self, running: RunningStep) -> None:
        self.log(f"step {running.index} of {running.text_id} begins")
        try:
            self._auditor.step_begins(running)
        except Exception as error:
            self._fail(error)

    def _answers(self, answer: object) -> None:
        self.log("an answer")
        try:
            self._auditor.answered(answer)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The run is red: the scenario ends here."""
        if self._failure is None:
            self._failure = error
            if self._main is not None:
                self._main.cancel()

    # -- running ----------------------------------------------------------------------------

    def run(self, scenario: Scenario) -> SimulationRun:
        """Run *scenario*, once.

        Raises:
          Exception: What the scenario raised, or what was wrong.
        """
        assert current_owner.get() is None
        loop = self._loop
        loop.set_exception_handler(self._unhandled)
        main: asyncio.Task[None] = loop.create_task(
            self._play(scenario), context=self._outside.copy()
        )
        self._main = main
        try:
            try:
                loop.run_until_complete(main)
            except asyncio.CancelledError:
                assert self._failure is not None, "the scenario was cancelled"
            if self._failure is not None:
                raise self._failure
        finally:
            loop.set_exception_handler(lambda _loop, _context: None)
            loop.run_until_complete(self._clean_up())
            loop.close()
        return self.so_far()

    def so_far(self) -> SimulationRun:
        """What has happened by now."""
        return SimulationRun(
            seed=self.seed,
            digest=self._digest.hexdigest(),
            events=tuple(self._events),
            syncs=self._disk.syncs,
            deaths=self.deaths,
            seconds=self._loop.time(),
        )

    async def _play(self, scenario: Scenario) -> None:
        self._open = asyncio.Event()
        await self._begin()
        await scenario(self)
        self._ending = True
        process = self._current()
        how = self._chance.choice(("closed", "killed", "power loss"))
        if process.alive and how == "closed":
            await self._close()
        self._die(how, power=how == "power loss")

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._fail(error if isinstance(error, Exception) else RuntimeError(context["message"]))

    async def _clean_up(self) -> None:
        for process in self._processes:
            process.alive = False
            process.bury()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        clients = [task for task in others if cast(Any, task).context.get(current_owner) is None]
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
