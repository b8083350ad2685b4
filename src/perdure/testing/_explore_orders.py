"""Running a workflow in every order in which what it waits for could come.

Theory of operation. The end of a step, what a script does and the passing of time are held back
until nothing else is left to do; then one of them happens, and the run goes on. Which one is a
choice, and the choices of a run are its order. The first run takes the first each time. Each run
that is new branches off from one before at one choice: so orders are tried by the number of their
deviations from the first, and the first that fails is a simplest one. Where there are more than may
be run, the second half of the runs takes branches at random, and what fails is made simpler again.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter
from typing import Any

from perdure._absent import ABSENT
from perdure._runtime._layout import TimerKey
from perdure._runtime._running import RunningStep
from perdure._store import Db
from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.testing._in_a_loop import outside_of_loops
from perdure.testing._sim_disk import Faults
from perdure.testing._sim_host import SimClock
from perdure.testing._subjects import Services, no_world, subject_of
from perdure.testing._trial import Ending, Script, Subject, Trial, TrialClock, TrialFailed

EVENTS_MAX = 10_000
"""Of one run; beyond, it goes round in circles."""

SHRINKING_RUNS_MAX = 200


@dataclass(frozen=True, slots=True)
class Event:
    """Something that could happen, and did.

    Attributes:
      what: Such as ``step 'charge' ends``.
      site: ``file:line in function`` of the command concerned; empty where none is.
      others: What could have happened in its place.
    """

    what: str
    site: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = self.what + (f", {self.site}" if self.site else "")
        return text + (f"   (before {', '.join(self.others)})" if self.others else "")


@dataclass(frozen=True)
class OrdersReport:
    """What :func:`explore_orders` has done; ``str()`` of it is for people.

    Attributes:
      runs: How many orders were run.
      complete: Whether these are all that there are.
      results: The distinct results, each with one order that led to it.
      seconds: Of real time.
    """

    runs: int
    complete: bool
    results: tuple[tuple[Any, tuple[Event, ...]], ...]
    seconds: float

    def __str__(self) -> str:
        those = "all there are" if self.complete else "a sample"
        lines = [f"{self.runs} orders, {those}, in {self.seconds:.2f} s"]
        for value, order in self.results:
            lines.append(f"{value!r}, for one by this order:")
            lines += [f"  {event}" for event in order]
        return "\n".join(lines)

    def __await__(self) -> Generator[Any, None, OrdersReport]:
        """Itself, so that a test may await it as all else."""
        yield from ()
        return self


class OrderFound(AssertionError):
    """One order of events breaks the workflow, or the test's check; the text shows it.

    Attributes:
      choices: For ``only=``, to run it alone.
      order: The events.
    """

    def __init__(self, what: str, choices: tuple[int, ...], order: Sequence[Event]) -> None:
        events = "\n  ".join(map(str, order))
        super().__init__(
            f"{what}\nin this order\n  {events}\n"
            f"run it alone: explore_orders(…, only={list(choices)})"
        )
        self.choices = choices
        self.order = tuple(order)


class NoSuchOrder(ValueError):
    """An order was asked for that the workflow does not have."""


def explore_orders(
    workflow: Any,
    arg: Any = ABSENT,
    *,
    key: str = "orders",
    script: Script | None = None,
    services: Services = (),
    world: Callable[[], Any] = no_world,
    check: Callable[[Any, Any], object] | None = None,
    max_runs: int = 1000,
    seed: int = 0,
    only: Sequence[int] | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    always_replay: bool = True,
    perturb: bool = False,
) -> OrdersReport:
    """Run a workflow in every order in which steps could end, timers fire and a script act.

    Time passes in jumps from timer to timer, and at any moment may pass before a step that runs has
    ended. All of it is simulated, as for :func:`crash_everywhere`, which explains the arguments
    that are not named here.

    Args:
      check: Called after each run with the result, or the ``TerminalError``, and the world.
      max_runs: If there are more orders, a sample is run.
      seed: Of the sample.
      only: The choices of one order, as a failure tells them.
      always_replay: Each await is replayed, so that an order whose replay differs is found.

    Raises:
      OrderFound: In one order the check fails, or the workflow comes to no end.
      NoSuchOrder: *only* does not fit the workflow.
      TypeError: *workflow* is nothing that can be run.
    """
    subject = subject_of(
        workflow,
        arg,
        key=key,
        services=services,
        world=world,
        script=script,
        retry=retry,
        always_replay=always_replay,
        perturb=perturb,
    )
    orders = _Orders(subject, check, max_runs, random.Random(seed))
    return outside_of_loops(lambda: orders.explore(only))


@dataclass
class _Run:
    """One run, and what was wrong with it."""

    trial: OrderedTrial
    problem: BaseException | None


class _Orders:
    """All runs of one subject."""

    def __init__(
        self,
        subject: Subject,
        check: Callable[[Any, Any], object] | None,
        max_runs: int,
        chance: random.Random,
    ) -> None:
        if max_runs < 1:
            raise ValueError(f"max_runs must be at least 1, not {max_runs}")
        self._subject = subject
        self._check = check
        self._max_runs = max_runs
        self._chance = chance

    def explore(self, only: Sequence[int] | None) -> OrdersReport:
        begin = perf_counter()
        branches: list[tuple[int, ...]] = [() if only is None else tuple(only)]
        results: dict[Ending, tuple[Any, tuple[Event, ...]]] = {}
        runs = 0
        while branches and runs < self._max_runs:
            at = 0 if 2 * runs < self._max_runs else self._chance.randrange(len(branches))
            choices = branches.pop(at)
            run = self._run(choices)
            runs += 1
            if isinstance(run.problem, NoSuchOrder):
                raise run.problem
            if run.problem is not None:
                raise self._told(self._simplest(choices, run))
            ending = run.trial.ending
            assert ending is not None
            results.setdefault(ending, (ending.value, tuple(run.trial.events)))
            if only is None:
                branches += run.trial.branches(len(choices))
        return OrdersReport(
            runs, not branches and only is None, tuple(results.values()), perf_counter() - begin
        )

    def _run(self, choices: tuple[int, ...]) -> _Run:
        trial = OrderedTrial(self._subject, choices)
        try:
            ending = trial.play()
            if self._check is not None:
                self._check(ending.value, trial.world)
        except Exception as error:
            return _Run(trial, error)
        return _Run(trial, None)

    def _simplest(self, choices: tuple[int, ...], run: _Run) -> _Run:
        """The run with as few deviations from the first order as still fail."""
        left = SHRINKING_RUNS_MAX
        position = 0
        while position < len(choices) and left:
            for simpler in range(choices[position]):
                left -= 1
                shorter = _trimmed((*choices[:position], simpler, *choices[position + 1 :]))
                tried = self._run(shorter)
                if tried.problem is not None and not isinstance(tried.problem, NoSuchOrder):
                    choices, run = shorter, tried
                    break
            position += 1
        return run

    def _told(self, run: _Run) -> OrderFound:
        problem = run.problem
        what = str(problem) if isinstance(problem, TrialFailed) else f"{problem!r}"
        found = OrderFound(what, _trimmed(tuple(run.trial.choices)), run.trial.events)
        found.__cause__ = problem
        return found


def _trimmed(choices: tuple[int, ...]) -> tuple[int, ...]:
    """Without the choices at its end that are the first anyway."""
    while choices and choices[-1] == 0:
        choices = choices[:-1]
    return choices


@dataclass
class _Held:
    """Something that happens when it is chosen."""

    what: str
    site: str
    happen: Callable[[], object]


class HeldTime(TrialClock):
    """A clock that stands still until it is chosen that time passes."""

    def __init__(self, loop: Any, chance: random.Random, faults: Faults) -> None:
        super().__init__(loop, chance, faults)
        self.waiting: list[tuple[int, int, asyncio.Handle]] = []
        self._order = itertools.count()
        self._held_ms = super().now_ms()

    def now_ms(self) -> int:
        return self._held_ms

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, (), loop, context=contextvars.copy_context())
        heapq.heappush(self.waiting, (when_ms, next(self._order), handle))
        self._release(loop)
        return handle

    def pass_to(self, loop: asyncio.AbstractEventLoop, to_ms: int) -> None:
        """Have it be *to_ms*, and what is due by then happen."""
        self._held_ms = max(self._held_ms, to_ms)
        self._release(loop)

    def _release(self, loop: Any) -> None:
        while self.waiting and self.waiting[0][0] <= self._held_ms:
            loop._ready.append(heapq.heappop(self.waiting)[2])


class OrderedTrial(Trial):
    """A run in which *choices* say what happens next; after them, the first of what could.

    Attributes:
      choices: All that were made.
      events: What they were.
    """

    def __init__(self, subject: Subject, choices: tuple[int, ...]) -> None:
        super().__init__(subject)
        self.choices: list[int] = []
        self.events: list[Event] = []
        self._counts: list[int] = []  # between how many
        self._wanted = choices
        self._held: list[_Held] = []
        self._wakes: list[tuple[int, asyncio.Future[None]]] = []  # when the script goes on

    def branches(self, begin: int) -> list[tuple[int, ...]]:
        """The orders that differ from this one first at a choice from *begin* on."""
        return [
            (*self.choices[:position], other)
            for position in range(begin, len(self.choices))
            for other in range(1, self._counts[position])
        ]

    def _make_clock(self, faults: Faults) -> SimClock:
        self._time = HeldTime(self._loop, self._chance, faults)
        return self._time

    def step_ended(self, running: RunningStep, tell: Callable[[], None]) -> None:
        if self._ending:
            return
        context = contextvars.copy_context()

        def end() -> None:
            if not running.cancelled:  # meanwhile: then nobody is told
                tell()

        self._held.append(
            _Held(
                f"step {running.step.name!r} ends",
                self.site_of(running),
                lambda: self._loop.call_soon(self.hear, end, context=context),
            )
        )

    async def about_to_ask(self, verb: str) -> None:
        turn = self._loop.create_future()
        self._held.append(_Held(f"the script does its {verb}", "", lambda: turn.set_result(None)))
        await turn

    async def sleep(self, seconds: float) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        wake_ms = self._time.now_ms() + math.ceil(seconds * 1000)
        self._wakes.append((wake_ms, turn))
        await turn

    def nothing_left(self) -> None:
        options = [*self._held, *self._passing_of_time()]
        if not options or self._ending or self._failure is not None:
            super().nothing_left()
            return
        if len(self.choices) >= EVENTS_MAX:
            self._fail(TrialFailed(f"it comes to no end: {EVENTS_MAX:,} events have happened"))
            return
        position = len(self.choices)
        wanted = self._wanted[position] if position < len(self._wanted) else 0
        if wanted >= len(options):
            self._fail(
                NoSuchOrder(f"choice {position} is {wanted}, but only {len(options)} are possible")
            )
            return
        chosen = options[wanted]
        self.choices.append(wanted)
        self._counts.append(len(options))
        others = tuple(each.what for each in options if each is not chosen)
        self.events.append(Event(chosen.what, chosen.site, others))
        self.log(chosen.what)
        if chosen in self._held:
            self._held.remove(chosen)
        chosen.happen()

    def _passing_of_time(self) -> list[_Held]:
        """Time passes to the next timer, or to when the script goes on, whichever is earlier."""
        now_ms = self._time.now_ms()
        wake_ms = min((wake_ms for wake_ms, _ in self._wakes), default=None)
        timer = self._next_timer(now_ms)
        options = []
        if timer is not None and (wake_ms is None or timer.due_ms <= wake_ms):
            number = self._sites_of.get((timer.invocation_id, timer.operation), 0)
            due_ms = timer.due_ms
            options.append(
                _Held(
                    f"a timer is due after {_span(due_ms - now_ms)}",
                    self.sites[number],
                    lambda: self._time.pass_to(self._loop, due_ms),
                )
            )
        if wake_ms is not None and (timer is None or wake_ms <= timer.due_ms):
            # At one moment with a timer it may go on before that, too.
            until_ms = wake_ms - 1 if timer is not None and timer.due_ms == wake_ms else wake_ms
            options.append(
                _Held(
                    f"the script goes on after {_span(max(0, wake_ms - now_ms))}",
                    "",
                    lambda: self._wake(wake_ms, until_ms),
                )
            )
        return options

    def _next_timer(self, now_ms: int) -> TimerKey | None:
        process = self._current()
        scheduler = process.engine._scheduler
        if not process.alive or scheduler is None:
            return None
        after = (now_ms + 1).to_bytes(8, "big")
        for suffix, _ in scheduler.store.scan(Db.TIMERS, b"", after=after, limit=1):
            return TimerKey.unpack(suffix)
        return None

    def _wake(self, wake_ms: int, until_ms: int) -> None:
        self._time.pass_to(self._loop, until_ms)
        for each in [each for each in self._wakes if each[0] <= wake_ms]:
            self._wakes.remove(each)
            each[1].set_result(None)


def _span(duration_ms: int) -> timedelta:
    return timedelta(milliseconds=duration_ms)
