"""The harness: an engine in memory, in the test's own loop, whose time the test decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from perdure._admission import Called
from perdure._binding import register, result_serde
from perdure._handles import InvocationHandle
from perdure._ids import InvocationId, format_id
from perdure._results import decode_output
from perdure._runtime._describe import Description
from perdure._runtime._registry import Registry
from perdure._runtime._running import RunningStep
from perdure._runtime._scheduler import Scheduler
from perdure._runtime._shown import JournalEntry
from perdure._runtime._times import EPOCH, utc
from perdure._store import Store
from perdure.engine import Engine
from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.service import HandlerDefinition, ServiceKind, Versions, reference_of
from perdure.testing._call_doubles import CallDouble, CallDoubles
from perdure.testing._driver import Driver
from perdure.testing._faults import DoubleError, HarnessError, Problems, Stuck
from perdure.testing._harness_failures import HarnessFailures, HarnessRegistry
from perdure.testing._harness_host import HarnessHost
from perdure.testing._harness_results import HarnessResults
from perdure.testing._harness_runner import HarnessRunner
from perdure.testing._held_clock import HeldClock
from perdure.testing._killed import kill
from perdure.testing._report import report_of
from perdure.testing._step_doubles import Asked, StepDouble, StepDoubles
from perdure.testing._stuck import why_stuck

A = TypeVar("A")
R = TypeVar("R")

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When a test begins that does not say."""

_MS = timedelta(milliseconds=1)
_CLOSED = "the harness was closed"


class Harness(Engine):
    """An engine for one test: ``async with Harness([Order(mailer)]) as h``.

    It has all verbs of an :class:`perdure.Engine` and keeps everything in memory. Its time stands
    still while the test does something, and jumps to the next timer while the test awaits a result
    and nothing else is going on; so a workflow of thirty days takes milliseconds. What breaks fails
    the test: the error that a handler or step raised comes out where its result is awaited, where
    the time is moved, and at the latest at the end of the block.

    Args:
      services: As for an engine; what a test has doubles for may be missing.
      retry: None: errors that nobody meant are not retried, whatever the services declare; a step
        that has ``retry=`` of its own is. A policy: all is retried, where nothing else is declared
        by this.
      guard: What a call does in a handler that is not deterministic; see :class:`perdure.Engine`.
      always_replay: Let go of each invocation when it waits, and replay it when it goes on.
      perturb: Collect garbage and move memory about between activations.
      start: What time it is at first; None: the beginning of 2026, UTC.
      auto_skip: Whether time jumps while a result is awaited. It may be assigned to at any time.

    Raises:
      DefinitionError: A service can not be served.
    """

    _noun = "harness"

    def __init__(
        self,
        services: Iterable[Any],
        *,
        retry: RetryPolicy | None = None,
        guard: Literal["off", "warn", "raise"] = "raise",
        always_replay: bool = False,
        perturb: bool = False,
        start: datetime | None = None,
        auto_skip: bool = True,
    ) -> None:
        self._held = HeldClock(_ms_of(START if start is None else start))
        super().__init__(
            "a harness",
            services,
            max_resident=0 if always_replay else 10_000,
            default_retry=retry or DEFAULT_RETRY,
            clock=self._held,
            guard=guard,
            stall_warning=None,
        )
        self._problems = Problems()
        self._fail_fast = retry is None
        self._deliberate: list[BaseException] = []
        self._steps = StepDoubles()
        self._calls = CallDoubles(self._deliberate.append, lambda: self.now)
        self._driver = Driver(self._held, self._problems, self._live, self._why_stuck)
        self._driver.auto_skip = auto_skip
        self._host = HarnessHost(self._driver.tell, self._make_runner, perturb=perturb)
        self._awaited = HarnessResults(self._open_scheduler, self._driver)
        self._results = self._awaited
        self._report = ""

    # -- life -------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """Itself, for what wants an engine."""
        return self

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        complaints: list[str] = []
        try:
            if error is None:
                error = await self._last_problem()
            complaints = [*self._steps.complaints(), *self._calls.complaints()]
            if error is not None or complaints:
                self._report = await report_of(self)
        finally:
            await self.close()
        if kind is not None:
            assert error is not None
            for each in (*map(_told, self._problems.take_all()), *complaints):
                error.add_note(f"also: {each}")
        elif error is not None:
            raise error
        elif complaints:
            raise DoubleError("; ".join(complaints) + ". A double that may stay idle: .optional()")

    async def _last_problem(self) -> BaseException | None:
        """What has broken and no part of the test was told of; all that is under way may end."""
        try:
            await self._driver.idle()
        except HarnessError as late:
            return late
        errors = self._problems.take_all()
        if len(errors) > 1:
            return BaseExceptionGroup("several invocations have broken", errors)
        return errors[0] if errors else None

    async def close(self) -> None:
        """Forget everything."""
        if self._scheduler is None or self._closed:
            return
        self._closed = True
        await self._driver.stop()
        await self._leave(self._scheduler, _CLOSED)

    async def _leave(self, scheduler: Scheduler, reason: str) -> None:
        """End it as a killed process ends, and wait for what cancelled steps do."""
        tasks = self._driver.runner.tasks()
        kill(scheduler, reason)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _drop(self) -> None:
        """Close it where nothing can be awaited: its loop may have gone."""
        if self._scheduler is not None and not self._closed:
            self._closed = True
            with contextlib.suppress(RuntimeError):  # that loop's
                kill(self._scheduler, _CLOSED)

    async def crash(self, services: Iterable[Any] | None = None) -> None:
        """Kill the engine and open it anew on what was durable.

        Handles go on, and so does who awaits a result. Doubles, their records and the time stay.

        Args:
          services: What it serves from now on; None: the same instances.
        """
        scheduler = self._open_scheduler()
        async with self._driver.moving:
            await self._leave(scheduler, "the engine has crashed, as the test wanted")
            if services is not None:
                self._services = register(services)
                self._calls.serve(self._own_services())
            self._scheduler = await self._take_up(asyncio.get_running_loop())

    async def deploy(self, services: Iterable[Any]) -> None:
        """Stop in order, and go on with other code: once idle, as :meth:`crash` with *services*."""
        await self.settle()
        await self.crash(services)

    def _make_registry(self) -> Registry:
        return HarnessRegistry(self._services, self._default_retry)

    def _make_scheduler(self, store: Store, loop: asyncio.AbstractEventLoop) -> Scheduler:
        scheduler = super()._make_scheduler(store, loop)
        registry = scheduler.registry
        assert isinstance(registry, HarnessRegistry)
        scheduler.failures = HarnessFailures(
            scheduler,
            registry,
            self._problems,
            fail_fast=self._fail_fast,
            deliberate=self._deliberate,
            broke=self._driver.broke,
        )
        return scheduler

    def _make_runner(self, *parts: Any) -> HarnessRunner:
        self._driver.runner = HarnessRunner(
            *parts,
            begin=self._begin_step,
            deliberate=self._deliberate.append,
            changed=self._driver.tell,
            clock=self._held,
        )
        return self._driver.runner

    @property
    def auto_skip(self) -> bool:
        """Whether time jumps to the next timer while a result is awaited."""
        return self._driver.auto_skip

    @auto_skip.setter
    def auto_skip(self, skips: bool) -> None:
        self._driver.auto_skip = skips

    # -- time -------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of the harness, UTC."""
        return utc(self._held.now_ms())

    @property
    def next_timer(self) -> datetime | None:
        """When the next timer, retry or delayed start is due; None: nothing is."""
        self._open_scheduler()
        due_ms = self._driver.next_timer_ms()
        return None if due_ms is None else utc(due_ms)

    async def advance(
        self,
        delta: timedelta | float = 0,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
    ) -> None:
        """Let time pass, *delta* (timedelta or seconds) and what the keywords say, added up.

        All that is due meanwhile happens, each at its own time, in the order of the deadlines; this
        returns when all that follows from it is done.

        Raises:
          Exception: An invocation has broken: what its handler or step raised.
          HarnessError: A step has been running for ten seconds of real time.
          ValueError: It is negative.
        """
        self._open_scheduler()
        delta = delta if isinstance(delta, timedelta) else timedelta(seconds=delta)
        delta += timedelta(
            days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds
        )
        if delta < timedelta(0):
            raise ValueError(f"time does not go back: {delta}")
        await self._driver.advance_to(self._held.now_ms() - (-delta // _MS))

    async def skip(self) -> datetime:
        """Let time pass up to the next timer; the time it is then. Errors are those of advance.

        Raises:
          Stuck: No timer is due.
        """
        self._open_scheduler()
        await self._driver.settle()
        due_ms = self._driver.next_timer_ms()
        if due_ms is None:
            raise Stuck("there is nothing to skip to: no timer is due")
        await self._driver.advance_to(due_ms)
        return self.now

    async def settle(self) -> None:
        """Return when nothing is left to do at this time. Errors are those of advance."""
        self._open_scheduler()
        await self._driver.settle()

    # -- doubles ----------------------------------------------------------------------------

    def step(
        self, name: str, *, service: type | str | None = None, handler: Any = None
    ) -> StepDouble:
        """The double of the steps of this *name*, which may be a pattern such as ``"charge *"``.

        Asked for again, it is the same one. Of several that fit a step, the closest counts.

        Args:
          service, handler: Only in these handlers; as class and method, or by name.
        """
        if handler is not None and not isinstance(handler, str):
            reference = reference_of(handler)
            if reference is None:
                raise TypeError(f"{handler!r} is no handler")
            service, handler = reference.service.cls, reference.name
        return self._steps.double(name, service, handler)

    @overload
    def call_to(
        self, handler: Callable[[Any, Any, A], Awaitable[R]], *, kind: Any = ...
    ) -> CallDouble[R]: ...
    @overload
    def call_to(
        self, handler: Callable[[Any, Any], Awaitable[R]], *, kind: Any = ...
    ) -> CallDouble[R]: ...
    @overload
    def call_to(self, handler: str, *, kind: ServiceKind | str = ...) -> CallDouble[Any]: ...

    def call_to(
        self, handler: Any, *, kind: ServiceKind | str = ServiceKind.SERVICE
    ) -> CallDouble[Any]:
        """The double of a handler, for all that call it or send to it.

        Its service need not be among those of the harness. Asked for again, it is the same one.

        Args:
          handler: ``Payments.charge``, or ``"Payments.charge"``.
          kind: Of a service that is known by name only: ``service``, ``object`` or ``workflow``.
        """
        double, is_new = self._calls.double(self._own_services(), handler, kind)
        if is_new and self._scheduler is not None:
            registry = self._scheduler.registry
            assert isinstance(registry, HarnessRegistry)
            registry.refresh()
        return double

    def _own_services(self) -> dict[str, Versions]:
        assert isinstance(self._services, dict)
        return self._services

    def _begin_step(self, running: RunningStep) -> Asked:
        scheduler = self._live()
        record = scheduler.answers.record(running.invocation_id)
        assert record is not None, "a step starts when its invocation is durable"
        backoff = scheduler.ledger.backoffs.get(running.invocation_id, running.index)
        attempt = 1 if backoff is None else backoff.attempts + 1
        return self._steps.begin(running, record, attempt, self.now)

    # -- looking ----------------------------------------------------------------------------

    async def journal(self, invocation: InvocationHandle[Any] | str) -> list[JournalEntry]:
        """The journal of an invocation, given by its handle or its id; empty if it is not kept."""
        return (await self._described(invocation)).journal

    async def timeline(self, invocation: InvocationHandle[Any] | str) -> str:
        """The same as text, a line an entry."""
        return (await self._described(invocation)).timeline()

    async def _described(self, invocation: InvocationHandle[Any] | str) -> Description:
        invocation_id = invocation if isinstance(invocation, str) else invocation.id
        return await self.describe(invocation_id, journal_limit=100_000)

    async def _result_of(self, called: Called, definition: HandlerDefinition, returns: Any) -> Any:
        output = await self._awaited.follow(called.id, called.output)
        if called.output is None:
            serde = self._results.serde_of_existing(called.id, definition, returns)
        else:
            serde = result_serde(definition, returns)
        return decode_output(output, serde)

    def _live(self) -> Scheduler:
        assert self._scheduler is not None
        return self._scheduler

    async def _why_stuck(self, invocation_id: bytes) -> HarnessError:
        text_id = format_id(InvocationId(invocation_id))
        return await why_stuck(self, self._services, self.next_timer, text_id)


def _ms_of(start: datetime) -> int:
    """Milliseconds since 1970."""
    if start.tzinfo is None:
        raise ValueError(f"start= needs a time zone: {start!r}")
    return (start - EPOCH) // _MS


def _told(error: BaseException) -> str:
    """An error in a line, with where it came from."""
    return " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
