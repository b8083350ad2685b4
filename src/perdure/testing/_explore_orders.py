"""Running a workflow in every order in which what it waits for could come.

Theory of operation. The end of a step, what a script does and the passing of time are held back
until nothing else is left to do; then one of them happens, and the run goes on. Which one is a
choice, and the choices of a run are its order. The first run takes the first each time. Each run
that is new branches off from one before at one choice: so orders are tried by the number of their
deviations from the first, and the first that fails is a simplest one. Where there are more than may
be run, the second half of the runs takes branches at random, and what fails is made simpler again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from perdure._absent import ABSENT
from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.testing._in_a_loop import outside_of_loops
from perdure.testing._ordered_trial import Event, NoSuchOrder, OrderedTrial
from perdure.testing._subjects import Services, no_world, refuse_async, subject_of
from perdure.testing._trial import Ending, Script, Subject, TrialFailed

SHRINKING_RUNS_MAX = 200


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
      TypeError: *workflow* is nothing that can be run, or *check* is async.
    """
    refuse_async(check)
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
