"""Crashing a workflow at every point at which a crash can make a difference.

Theory of operation. What a crash leaves depends on two things alone: which write units are on the
disk, and what steps have done outside. So there are two kinds of points: after each unit, and after
each attempt of a step, before its outcome is durable. One run without a crash counts them; then
each point has a run of its own, which dies there. Up to the point it is the run without a crash,
for nothing in a trial is left to chance.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from perdure._absent import ABSENT
from perdure._core._entries import FIRST_COMMAND, Entry, describe
from perdure._journal import decode_entries
from perdure._runtime._layout import Record
from perdure._runtime._running import RunningStep
from perdure._store import Db
from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.testing._in_a_loop import outside_of_loops
from perdure.testing._sim_audit import PromiseBroken
from perdure.testing._sim_disk import PowerFailed
from perdure.testing._sim_environment import Unit
from perdure.testing._subjects import Services, no_world, refuse_async, subject_of
from perdure.testing._trial import Script, Subject, Trial, TrialFailed


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A moment at which a run was crashed.

    Attributes:
      number: Counted from 1, in the run without a crash.
      what: What had just happened.
      site: ``file:line in function`` of the command concerned; empty where none is.
    """

    number: int
    what: str
    site: str

    def __str__(self) -> str:
        return f"point {self.number}: {self.what}" + (f", {self.site}" if self.site else "")


@dataclass(frozen=True)
class CrashReport:
    """What :func:`crash_everywhere` has done; ``str()`` of it is a table.

    Attributes:
      points: Of the run without a crash.
      runs: How many runs there were.
      result: Of each of them.
      seconds: Of real time.
    """

    points: tuple[CrashPoint, ...]
    runs: int
    result: Any
    seconds: float

    def __str__(self) -> str:
        head = f"{self.runs} runs in {self.seconds:.2f} s, each ended with {self.result!r}"
        return "\n".join([head, *map(str, self.points)])

    def __await__(self) -> Generator[Any, None, CrashReport]:
        """Itself, so that a test may await it as all else."""
        yield from ()
        return self


class CrashFound(AssertionError):
    """A crash at one point makes a difference; the text says which, and how to run it again.

    Attributes:
      points: Where it was crashed; more than one where it was crashed again.
    """

    def __init__(self, points: Sequence[CrashPoint], what: str, steps: Sequence[str]) -> None:
        places = "\n  ".join(map(str, points))
        numbers = [point.number for point in points]
        only = numbers[0] if len(numbers) == 1 else tuple(numbers)
        ran = "\n  ".join(steps)
        super().__init__(
            f"{what}\ncrashed at\n  {places}\nattempts of steps in this run\n  {ran}\n"
            f"run it alone: crash_everywhere(…, only={only!r})"
        )
        self.points = tuple(points)


def crash_everywhere(
    workflow: Any,
    arg: Any = ABSENT,
    *,
    key: str = "crash",
    script: Script | None = None,
    services: Services = (),
    world: Callable[[], Any] = no_world,
    check: Callable[[Any, Any], object] | None = None,
    depth: int = 1,
    runs_max: int = 10_000,
    only: int | Sequence[int] | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    always_replay: bool = False,
    perturb: bool = False,
) -> CrashReport:
    """Run a workflow once, and once more for each point at which a crash can make a difference.

    The points are: after each commit, before anybody has heard of it; and after each attempt of a
    step, before its outcome is durable. Each run dies at one of them, a new process opens what was
    durable, and it goes on to the end. All of it is simulated: no file, no real time, no chance.

    It must give the same result as without a crash, run no step again whose result was durable, and
    leave no contradiction in its rows.

    Args:
      workflow: A class, an instance, a handler such as ``Counter.add``, or a function that makes an
        instance, called for each run: for what keeps something in memory. It may take the world.
      arg: Of its ``run``.
      key: Of the workflow or object.
      script: ``async def script(client)``: what people do meanwhile. The client has the verbs of an
        engine, ``client.world`` and ``client.sleep``; each verb is done once, whatever dies.
      services: Further ones; or a function of the world.
      world: Makes what stands outside, once for each run: fakes that no crash touches.
      check: Called after each run with the result and the world; raises where something is wrong.
      depth: 2: crash each run a second time, at each point that follows.
      runs_max: Beyond, it ends with an error.
      only: Crash at this point alone, or at these in one run.
      retry: For what declares none.
      always_replay: Let go of each invocation when it waits, and replay it when it goes on.
      perturb: Collect garbage and move memory about in between.

    Raises:
      CrashFound: A crash made a difference.
      InvalidInput: *arg* or *key* is not what the handler takes.
      TrialFailed: It comes to no end even without a crash.
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
    return outside_of_loops(lambda: _Explorer(subject, check, depth, runs_max).explore(only))


class _Explorer:
    """All runs of one subject."""

    def __init__(
        self,
        subject: Subject,
        check: Callable[[Any, Any], object] | None,
        depth: int,
        runs_max: int,
    ) -> None:
        self._subject = subject
        self._check = check
        self._depth = depth
        self._runs_max = runs_max
        self._runs = 0

    def explore(self, only: int | Sequence[int] | None) -> CrashReport:
        begin = perf_counter()
        first = CrashingTrial(self._subject, ())
        self._expected = first.play()
        self._judge(first)
        self._runs = 1
        if only is not None:
            plan = (only,) if isinstance(only, int) else tuple(only)
            if min(plan, default=1) < 1:
                raise ValueError(f"points are counted from 1, not from {min(plan)}")
            self._run(plan)
        else:
            self._crash_after((), len(first.points))
        return CrashReport(
            tuple(first.points), self._runs, self._expected.value, perf_counter() - begin
        )

    def _crash_after(self, before: tuple[int, ...], points: int) -> None:
        """Crash at each of the points that follow the last of *before*."""
        for number in range(before[-1] + 1 if before else 1, points + 1):
            plan = (*before, number)
            seen = self._run(plan)
            if len(plan) < self._depth:
                self._crash_after(plan, seen)

    def _run(self, plan: tuple[int, ...]) -> int:
        """One run; how many points it had."""
        if self._runs >= self._runs_max:
            raise ValueError(
                f"there are more than {self._runs_max:,} runs: raise runs_max, or lower depth"
            )
        self._runs += 1
        trial = CrashingTrial(self._subject, plan)
        try:
            ending = trial.play()
            if trial.began and ending != self._expected:
                raise TrialFailed(f"without a crash: {self._expected}\nwith it: {ending}")
            self._judge(trial)
        except Exception as error:
            crashed = [point for point in trial.points if point.number in plan]
            if isinstance(error, TrialFailed | PromiseBroken):
                what = str(error)
            else:
                what = f"{type(error).__name__}: {error}"
            raise CrashFound(crashed, what, trial.attempts) from error
        missed = [number for number in plan if number > len(trial.points)]
        if missed:
            raise ValueError(f"there is no point {missed[0]}: there are {len(trial.points)}")
        return len(trial.points)

    def _judge(self, trial: CrashingTrial) -> None:
        assert trial.ending is not None
        if self._check is not None:
            self._check(trial.ending.value, trial.world)


class CrashingTrial(Trial):
    """A run that dies at the points of *plan*.

    Attributes:
      points: All that were passed.
      attempts: Each attempt of a step that has ended, for people.
      began: Whether the invocation was durable when it first died. Else it began anew, with
        another id and other random numbers, and may well end otherwise.
    """

    def __init__(self, subject: Subject, plan: tuple[int, ...]) -> None:
        super().__init__(subject)
        self.points: list[CrashPoint] = []
        self.attempts: list[str] = []
        self.began = False
        self._plan = plan

    def _passes(self, what: str, site: str) -> bool:
        """Whether the process lives on after this point."""
        if self._ending or not self._current().alive:
            return True
        point = CrashPoint(len(self.points) + 1, what, site)
        self.points.append(point)
        if point.number not in self._plan:
            return True
        if not self.deaths:
            self.began = self._has_begun()
        self._die(f"crash at {point}")
        return False

    def _has_begun(self) -> bool:
        handler = self.subject.handler
        records = map(Record.unpack, self._disk.tables[Db.INVOCATIONS].values.values())
        return any(
            record.service == handler.service.name and record.handler == handler.name
            for record in records
        )

    def step_ended(self, running: RunningStep, tell: Callable[[], None]) -> None:
        site = self.site_of(running)
        self.attempts.append(f"{running.step.name!r} of {running.text_id}, {site}")
        if self._passes(f"step {running.step.name!r} has run, its outcome is not durable", site):
            tell()

    def _committed(self, units: Sequence[Unit]) -> None:
        super()._committed(units)
        for unit in units:
            what, site = self._told(unit)
            if not self._passes(f"commit of {what}", site):
                raise PowerFailed

    def _told(self, unit: Unit) -> tuple[str, str]:
        """What a unit has, and the site of its first command."""
        for db, _, value in unit:
            if db == Db.JOURNAL and value is not None:
                entries = decode_entries(value, Entry)
                texts = [describe(entry) for entry in entries]
                sites = [entry.site for entry in entries if entry.kind >= FIRST_COMMAND]
                told = " → ".join([texts[0], ", ".join(texts[1:])] if texts[1:] else texts)
                return told, next((self.sites[each] for each in sites if each), "")
        names = dict.fromkeys(Db(db).name.lower() for db, _, _ in unit)
        return f"rows of {', '.join(names)}", ""
