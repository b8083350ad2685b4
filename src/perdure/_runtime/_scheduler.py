"""The scheduler: moves notifications to invocations, and what they ask for to the world.

Theory of operation. ``_queue`` holds invocations with something to do. The pump, a callback on the
host's loop, takes one at a time: it replays a slice of a loading one, or delivers one notification
to a live one and seals the unit of that activation. The writer thread commits units in order, and
whatever leaves the engine (a step's start, an answer) waits in ``_held`` for the commit of all that
was sealed when it was computed. The pump stops while too much is uncommitted, and for good when a
commit has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from perdure._core._entries import Entry, Flag, Kind
from perdure._core._machine import START, State
from perdure._core._operation import Operation
from perdure._ids import InvocationIdGenerator, format_id
from perdure._runtime._clock import Clock
from perdure._runtime._failures import Failures
from perdure._runtime._instance import Delivery, Instance, Kept, Phase
from perdure._runtime._layout import (
    Backoff,
    Output,
    Record,
    TimerKey,
    target_digest,
    unpack_target,
)
from perdure._runtime._ledger import Consequences, Ledger
from perdure._runtime._sites import SiteTable
from perdure._runtime._steps import RunningStep, StepRunner
from perdure._runtime._threads import StepThreads
from perdure._runtime._timers import Timers
from perdure._store import Db, Store
from perdure.errors import InternalError, NotFound, PerdureError, StoreClosed, StoreError
from perdure.futures import Step
from perdure.retry import RetryPolicy
from perdure.service import HandlerDefinition, HandlerKind, ServiceDefinition

logger = logging.getLogger("perdure")

# Bound once: looking a member up in its class costs more than the comparison.
_LOADING, _LIVE = Phase.LOADING, Phase.LIVE

SLICE_S = 0.005
"""The host's loop gets its turn at least this often."""

TIMERS_PER_TURN = 1000


class Scheduler:
    """The embedded runtime of one data directory, on one host loop."""

    def __init__(
        self,
        store: Store,
        services: Mapping[str, tuple[ServiceDefinition, Any]],
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        ids: InvocationIdGenerator,
        max_resident: int,
        default_retry: RetryPolicy,
        step_threads: int,
    ) -> None:
        self.store = store
        self.clock = clock
        self.failure: PerdureError | None = None  # why nothing is accepted any more
        self.running: dict[bytes, dict[int, RunningStep]] = {}
        self._services = services
        self._loop = loop
        self._ids = ids
        self._max_resident = max_resident
        self._context = contextvars.copy_context()
        self._sites = SiteTable(store)
        self._timers = Timers(store, clock, loop, self._on_timers)
        self.ledger = Ledger(store, self._timers, self._sites)
        self._threads = StepThreads(step_threads)
        self._runner = StepRunner(loop, self._threads, self._step_succeeded, self._step_failed)
        self._failures = Failures(self, default_retry)
        self._residents: OrderedDict[bytes, Instance] = OrderedDict()  # least recently used first
        self.ledger.residents = self._residents
        self._queue: deque[Instance] = deque()
        self._recovering: deque[bytes] = deque()  # ids of `ready` at start, not loaded yet
        self._held: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()
        self._result_waiters: dict[bytes, list[asyncio.Future[Output]]] = {}
        self._starting: dict[tuple[str, str], Instance] = {}  # runs whose rows are not written yet
        self._dropped: dict[bytes, int] = {}  # evicted by failure: its last unit, not yet committed
        self._pump_handle: asyncio.Handle | None = None
        self._draining = False
        self._blocked: set[bytes] | None = set()  # seen at start; None once the user was told
        self._room: asyncio.Event = asyncio.Event()
        self._room.set()
        self._quiet: asyncio.Event = asyncio.Event()

    # -- life -------------------------------------------------------------------------------

    def open(self) -> None:
        """Take up what the directory holds: what is ready, then the timers that are due."""
        self._loop.add_reader(self.store.fileno(), self._on_commit)
        for invocation_id, _ in self.store.scan(Db.READY, b""):
            if self._may_run(invocation_id):
                self._recovering.append(invocation_id)
        # All of them: a call accepted after this comes after them, however many there are.
        self._on_timers(limit=sys.maxsize)
        self._wake_pump()

    async def drain(self, timeout_s: float) -> None:
        """Start nothing new, let what runs end within *timeout_s*, and stop."""
        self._draining = True
        self._room.set()  # who waits for it learns that the engine closes
        self._timers.disarm()
        deadline = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                while self.failure is None and not self._is_quiet():
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            left = sum(len(steps) for steps in self.running.values())
            logger.warning(
                "%d steps still run after %.1f s; they start anew when the directory is opened "
                "again",
                left,
                timeout_s,
            )
        finally:  # also when the drain itself is cancelled: nothing may report to a closed store
            tasks = [step.task for steps in self.running.values() for step in steps.values()]
            for steps in self.running.values():
                for step in steps.values():
                    step.cancel()
        pending = [task for task in tasks if task is not None and not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=1.0)
        if self.failure is None:
            await self.committed()  # rather than in close(), which stops the host's loop for it

    def close(self) -> None:
        """Flush the store, release what its commit allows, fail who still waits."""
        self._timers.disarm()
        self._threads.close()
        self._loop.remove_reader(self.store.fileno())
        try:
            if self.failure is None:
                self.store.wait_committed(self.store.sealed, None)
                self._release(self.store.committed)
        except StoreError as broken:
            self.failure = broken
            raise
        finally:
            if self._pump_handle is not None:  # what was released may have woken it
                self._pump_handle.cancel()
            closed = self.failure or StoreClosed(
                "the engine was closed; what was accepted goes on when the directory is opened "
                "again"
            )
            self._fail_waiting(closed)
            for instance in list(self._residents.values()):
                self._close_machine(instance)
            self._residents.clear()
            self.store.close(flush=self.failure is None)

    def _is_quiet(self) -> bool:
        return not self._queue and not self.running and self._pump_handle is None

    @contextlib.contextmanager
    def _failing_the_engine(self) -> Iterator[None]:
        """Whatever escapes here is no handler's fault: it ends the engine, and no caller hangs."""
        try:
            yield
        except StoreError as broken:
            self._fail(broken)
        except Exception as defect:
            logger.exception("a defect in perdure, please report it")
            self.store.discard()
            self._fail(InternalError(f"{type(defect).__name__}: {defect}"))

    def _fail(self, failure: PerdureError) -> None:
        """A commit failed: from here on nothing runs, nothing is answered, nothing is accepted."""
        if self.failure is not None:
            return
        self.failure = failure
        logger.critical("the engine stops: %s", failure)
        self._timers.disarm()
        self._queue.clear()
        for steps in self.running.values():
            for step in steps.values():
                step.cancel()
        self.running.clear()
        self._fail_waiting(failure)
        self._room.set()
        self._quiet.set()

    def _fail_waiting(self, failure: PerdureError) -> None:
        for _, _, args in self._held:
            _fail_futures(args, failure)
        self._held.clear()
        for instance in self._residents.values():
            _fail_futures((instance.accepted, instance.answer), failure)
        for futures in self._result_waiters.values():
            _fail_futures(futures, failure)
        self._result_waiters.clear()

    # -- admission and answers --------------------------------------------------------------

    def check_open(self) -> None:
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)
        if self._draining:
            raise StoreClosed("the engine is closed; make another Engine to go on")

    async def room(self) -> None:
        """Wait until the disk has caught up enough to accept more."""
        self.check_open()
        while self.store.congested():
            self._room.clear()
            await self._room.wait()
            self.check_open()

    def admit(
        self,
        definition: HandlerDefinition,
        *,
        key: str,
        argument: bytes | None,
        headers: dict[str, str],
        kept: Kept,
    ) -> Instance:
        """Begin an invocation.

        Give it an ``accepted`` future to learn when it is durable, or an ``answer`` future for its
        output, before control returns to the host's loop.
        """
        service, target = self._services[definition.service]
        record = Record(
            service=definition.service,
            key=key,
            handler=definition.name,
            version=service.version,
            created_ms=self.clock.now_ms(),
            argument=argument,
            kept=kept,
            headers=headers,
        )
        instance = Instance(self._ids.next(), record, definition, target, phase=Phase.ADMITTED)
        instance.make_machine(self.store, self._sites, self._context, self._report_loop_problem)
        instance.backlog.append(Delivery(START))
        self._residents[instance.id] = instance
        if definition.kind is HandlerKind.RUN:
            self._starting[record.service, key] = instance
        self._enqueue(instance)
        return instance

    def find_run(self, service: str, key: str) -> bytes | None:
        """The invocation of a workflow's ``run`` on *key*, if there is one."""
        instance = self._starting.get((service, key))
        if instance is not None:
            if instance.phase is Phase.ADMITTED:
                # Whoever is told of it may rely on it: its rows go before the answer.
                self.ledger.accept(instance, ready=True)
                self._sealed(instance)
                self.accept_when_committed(instance)
                return instance.id
            del self._starting[service, key]
        value = self.store.get(Db.TARGETS, target_digest(service, key), b"")
        return None if value is None else unpack_target(value, service, key)

    def output(self, invocation_id: bytes) -> Output | None:
        """How an invocation ended; None while it has not.

        Raises:
          NotFound: There is no such invocation, or its result is not kept any more.
        """
        value = self.store.get(Db.OUTPUTS, invocation_id, b"")
        if value is not None:
            return Output.unpack(value)
        if invocation_id in self._residents or self.record(invocation_id) is not None:
            return None
        raise NotFound(f"there is no invocation {format_id(invocation_id)}")

    def record(self, invocation_id: bytes) -> Record | None:
        value = self.store.get(Db.INVOCATIONS, invocation_id, b"")
        return None if value is None else Record.unpack(value)

    def when_committed(self, callback: Callable[..., None], *args: Any) -> None:
        """Call *callback* once all that is sealed now has committed; at once if it has.

        If it never commits, futures among *args* fail instead.
        """
        unit = self.store.sealed
        if self.failure is not None:
            _fail_futures(args, self.failure)
        elif unit <= self.store.committed and not self._held:
            callback(*args)
        else:
            self._held.append((unit, callback, args))

    async def committed(self) -> None:
        """Wait until all that is sealed now has committed: what an answer waits for."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.when_committed(_set, future, None)
        await future

    def result_future(self, invocation_id: bytes) -> asyncio.Future[Output]:
        """A future of the output of an unfinished invocation."""
        future: asyncio.Future[Output] = self._loop.create_future()
        self._result_waiters.setdefault(invocation_id, []).append(future)
        return future

    def forget_result_future(self, invocation_id: bytes, future: asyncio.Future[Output]) -> None:
        futures = self._result_waiters.get(invocation_id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._result_waiters[invocation_id]

    def resume(self, invocation_id: bytes) -> bool:
        """End a pause; False if it is not paused."""
        resumed = self.ledger.resume(invocation_id)
        if resumed:
            self.seal()
            self.wake(invocation_id)
        return resumed

    # -- the pump ---------------------------------------------------------------------------

    def _enqueue(self, instance: Instance) -> None:
        if not instance.queued:
            instance.queued = True
            self._queue.append(instance)
            self._wake_pump()

    def _wake_pump(self) -> None:
        if self._pump_handle is None and self.failure is None:
            self._pump_handle = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_handle = None
        deadline = time.perf_counter() + SLICE_S
        queue = self._queue
        turns = 0
        with self._failing_the_engine():
            while self.failure is None and (queue or self._recover_one()):
                if not turns & 15 and self.store.congested():
                    break  # the next commit wakes the pump
                turns += 1
                instance = queue.popleft()
                instance.queued = False
                if instance.machine.state is not State.CLOSED:  # dropped while it was queued
                    self._advance(instance)
                if time.perf_counter() > deadline:
                    self._wake_pump()
                    break
            self._trim()
        if self._draining and self._is_quiet():
            self._quiet.set()

    def _recover_one(self) -> bool:
        while self._recovering and not self._draining:
            invocation_id = self._recovering.popleft()
            if self.store.get(Db.READY, invocation_id, b"") is not None:
                self.wake(invocation_id)
                if self._queue:
                    return True
        return False

    def _advance(self, instance: Instance) -> None:
        if instance.phase is _LOADING and not self._replay_slice(instance):
            return
        if instance.ending is not None:
            self._end_now(instance, instance.ending)
            return
        if not instance.backlog:
            self._rest(instance)
            return
        delivery = instance.backlog.popleft()
        machine = instance.machine
        notification = delivery.entry
        if notification.kind != Kind.START and notification.ref not in machine.outstanding:
            # Cancelled before the answer came: nothing waits for it, nothing is to be told.
            self.ledger.forget_delivery(instance, delivery)
            self._sealed(instance)
        else:
            try:
                activation = machine.activate(notification, self.clock.now_ms())
            except (KeyboardInterrupt, SystemExit):
                self.drop(instance)
                self._wake_pump()  # the others in the queue go on, if only until the close
                raise
            except BaseException as error:
                self._failures.attempt_failed(instance, delivery, error)
                return
            consequences = self.ledger.activation(instance, activation, delivery)
            self._follow(instance, consequences)
        if machine.state is State.COMPLETED:
            return
        if instance.backlog:
            self._enqueue(instance)
        elif instance.unrested:
            self._rest(instance)

    def _follow(self, instance: Instance, consequences: Consequences) -> None:
        """Seal the unit of an activation and see to what follows from it."""
        instance.last_unit = self.store.seal()
        self.accept_when_committed(instance)
        for operation in consequences.ended_steps:
            running = self._forget_step(instance.id, operation.index)
            if running is not None:
                running.cancelled = True  # what it still says is dropped from now on
                self.when_committed(running.cancel)
        for operation in consequences.steps:
            self.when_committed(self._start_step, instance, operation)
        for invocation_id in consequences.notified:
            self.wake(invocation_id)
        if consequences.output is not None:
            self.finished(instance, consequences.output)
        else:
            self._residents.move_to_end(instance.id)

    def accept_when_committed(self, instance: Instance) -> None:
        """Its rows are written: tell who sent *instance*, once that is durable."""
        if instance.definition.kind is HandlerKind.RUN:
            self._starting.pop((instance.record.service, instance.record.key), None)
        if instance.accepted is not None:
            self.when_committed(_set, instance.accepted, None)
            instance.accepted = None

    def finished(self, instance: Instance, output: Output) -> None:
        """*instance* has ended; who waits for it is told once that is durable."""
        futures = self._result_waiters.pop(instance.id, [])
        if instance.answer is not None:
            futures.append(instance.answer)
            instance.answer = None
        for future in futures:
            self.when_committed(_set, future, output)
        self.drop(instance)

    def seal(self) -> int:
        """Close the open unit."""
        return self.store.seal()

    def _sealed(self, instance: Instance) -> None:
        instance.last_unit = self.store.seal()

    # -- loading and evicting ---------------------------------------------------------------

    def wake(self, invocation_id: bytes) -> None:
        """Have an invocation that has something to do go on, loading it if need be."""
        instance = self._residents.get(invocation_id)
        if instance is not None:
            if instance.backlog or instance.phase is Phase.LOADING:
                self._enqueue(instance)
            return
        if self.ledger.is_held(invocation_id):
            return
        self.load(invocation_id, None)

    def load(self, invocation_id: bytes, backoff: Backoff | None) -> None:
        """Bring an evicted invocation back; *backoff*: the failed attempts before this one."""
        unit = self._dropped.pop(invocation_id, 0)
        if unit > self.store.committed:
            # Its journal is read from the store, which must have all of it.
            self._dropped[invocation_id] = unit
            self._held.append((unit, self.load, (invocation_id, backoff)))
            return
        if invocation_id in self._residents:
            return
        record = self.record(invocation_id)
        if record is None:
            return  # completed meanwhile
        registered = self._services.get(record.service)
        if registered is None or not _fits(registered[0], record):
            return  # blocked: left alone
        service, target = registered
        instance = Instance(invocation_id, record, service.handlers[record.handler], target)
        instance.in_ready = self.store.get(Db.READY, invocation_id, b"") is not None
        instance.backoff = backoff
        instance.make_machine(self.store, self._sites, self._context, self._report_loop_problem)
        self._residents[invocation_id] = instance
        self._enqueue(instance)

    def _replay_slice(self, instance: Instance) -> bool:
        """Replay some of the journal; True when all of it is replayed."""
        machine = instance.machine
        deadline = time.perf_counter() + SLICE_S
        try:
            while True:
                page = self.store.journal(instance.id, instance.replay_from, Entry)
                for first_index, entries in page:
                    machine.replay(entries)
                    instance.replay_from = first_index + len(entries)
                    if instance.record.kept < Kept.JOURNAL:
                        instance.chunks.append(first_index)
                    if time.perf_counter() > deadline:
                        self._enqueue(instance)
                        return False
                if not page:
                    break
        except (KeyboardInterrupt, SystemExit):
            self.drop(instance)
            self._wake_pump()
            raise
        except BaseException as error:
            self._failures.attempt_failed(instance, None, error)
            return False
        instance.phase = Phase.LIVE
        instance.unrested = True
        instance.resting_steps = self.ledger.resting_steps(instance.id)
        instance.backlog.extend(self.ledger.pending(instance.id))
        if machine.state is State.NEW:
            instance.backlog.appendleft(Delivery(START))
        return True

    def _rest(self, instance: Instance) -> None:
        """Nothing is left to deliver: start the steps that a crash or an eviction left undone."""
        if instance.backoff is not None:
            # Its attempt replayed to the end without a notification to deliver: it has recovered.
            self.ledger.recovered(instance)
            self._sealed(instance)
        instance.unrested = False
        running = self.running.get(instance.id, {})
        now_ms = self.clock.now_ms()
        for operation in list(instance.machine.outstanding.values()):
            if operation.kind != Kind.RUN or operation.index in running:
                continue
            if instance.resting_steps.get(operation.index, 0) <= now_ms:
                self.when_committed(self._start_step, instance, operation)
                instance.last_unit = self.store.sealed  # it stays until the step has started

    def drop(self, instance: Instance) -> None:
        """Take an invocation out of memory; who waits for it goes on waiting."""
        self._residents.pop(instance.id, None)
        if instance.answer is not None:
            self._result_waiters.setdefault(instance.id, []).append(instance.answer)
            instance.answer = None
        if instance.last_unit > self.store.committed:
            self._dropped[instance.id] = instance.last_unit
        self._close_machine(instance)

    def _close_machine(self, instance: Instance) -> None:
        for complaint in instance.machine.close():
            logger.warning("%s could not be closed cleanly: %s", instance.text_id, complaint)

    def _trim(self) -> None:
        """Evict the least recently used until no more than ``max_resident`` are in memory."""
        excess = len(self._residents) - self._max_resident
        if excess <= 0 or self.failure is not None:
            return
        committed = self.store.committed
        if self._held:
            # A step that waits for its start belongs to an instance that is in memory.
            committed = min(committed, self._held[0][0] - 1)
        for instance in list(itertools.islice(self._residents.values(), 4 * excess + 16)):
            if (
                instance.phase is Phase.LIVE
                and not instance.queued
                and instance.last_unit <= committed
            ):
                self.drop(instance)
                excess -= 1
                if not excess:
                    return

    def is_registered(self, record: Record) -> bool:
        return not self.why_blocked(record)

    def why_blocked(self, record: Record) -> str:
        """Why an invocation can not run here; an empty text if it can."""
        name = record.service
        if name not in self._services:
            return f"service {name!r} is not registered here"
        service = self._services[name][0]
        if record.handler not in service.handlers:
            return f"service {name!r} has no handler {record.handler!r} here"
        if record.version != service.version:
            return (
                f"version {record.version} of service {name!r} is not registered here, but "
                f"{service.version}"
            )
        return ""

    def _may_run(self, invocation_id: bytes) -> bool:
        record = self.record(invocation_id)
        if record is None:
            return True  # nothing to be said of it; loading it shows so
        if self.is_registered(record):
            return True
        if self._blocked is not None:
            self._blocked.add(invocation_id)
        return False

    def _report_loop_problem(self, instance: Instance, problem: dict[str, Any]) -> None:
        error = problem.get("exception")
        logger.error("%s: %s", instance.text_id, problem.get("message"), exc_info=error)

    # -- steps ------------------------------------------------------------------------------

    def _start_step(self, instance: Instance, operation: Operation) -> None:
        assert isinstance(operation, Step)
        if self._residents.get(instance.id) is not instance or self._draining:
            return  # left to the next attempt, or to the next start
        if operation.index not in instance.machine.outstanding:
            return  # cancelled before it began, or answered
        if operation.index in self.running.get(instance.id, ()):
            return
        if any(delivery.entry.ref == operation.index for delivery in instance.backlog):
            return  # answered: whoever wanted it started too had been overtaken
        running = RunningStep(instance.id, instance.text_id, operation.index, operation)
        self.running.setdefault(instance.id, {})[operation.index] = running
        self._runner.start(running)

    def _forget_step(self, invocation_id: bytes, index: int) -> RunningStep | None:
        steps = self.running.get(invocation_id)
        running = steps.pop(index, None) if steps else None
        if steps is not None and not steps:
            del self.running[invocation_id]
            self._quiet.set()
        return running

    def _step_succeeded(self, running: RunningStep, payload: bytes) -> None:
        self._forget_step(running.invocation_id, running.index)
        if self.failure is None:
            with self._failing_the_engine():
                self.step_done(running, payload, 0)

    def _step_failed(self, running: RunningStep, error: BaseException) -> None:
        self._forget_step(running.invocation_id, running.index)
        if self.failure is None:
            with self._failing_the_engine():
                self._failures.step_failed(running, error)

    def step_done(self, running: RunningStep, payload: bytes | None, flags: Flag | int) -> None:
        """Deliver the outcome of a step."""
        self._deliver(
            running.invocation_id,
            Delivery(Entry(Kind.STEP_DONE, running.index, running.step.name, payload, 0, 0, flags)),
        )

    # -- notifications ----------------------------------------------------------------------

    def _deliver(self, invocation_id: bytes, delivery: Delivery) -> None:
        """Tell an invocation at once if it is live, else let the store keep the notification."""
        instance = self._residents.get(invocation_id)
        if instance is not None and instance.phase is _LIVE:
            instance.backlog.append(delivery)
            self._enqueue(instance)
            return
        if delivery.timer is not None:
            self._timers.delete(delivery.timer)
        self.ledger.notify(invocation_id, delivery.entry)
        self.seal()
        self.wake(invocation_id)

    def _on_timers(self, limit: int = TIMERS_PER_TURN) -> None:
        """Let the timers that are due fire, in deadline order."""
        if self.failure is not None or self._draining:
            return
        with self._failing_the_engine():
            due = self._timers.due(self.clock.now_ms(), limit)
            for timer, value in due:
                self._fire(timer, value)
            if len(due) == limit:
                self._loop.call_soon(self._on_timers)
            else:
                self._timers.arm()
                self._warn_of_blocked()

    def _warn_of_blocked(self) -> None:
        """Say once, when all that was due at start has been seen, how many are left alone."""
        if self._blocked:
            logger.warning(
                "%d invocations have something to do, but belong to services, handlers or versions "
                "that are not registered here; they are left alone and go on when an engine has "
                "them",
                len(self._blocked),
            )
        self._blocked = None

    def _fire(self, timer: TimerKey, value: bytes) -> None:
        if not self._may_run(timer.invocation_id):
            return  # its row waits for an engine that may
        if not value:
            entry = Entry(Kind.TIMER_FIRED, timer.index)
            self._deliver(timer.invocation_id, Delivery(entry, timer=timer))
        elif timer.index == 0:
            self.load(timer.invocation_id, Backoff.unpack(value))
        else:
            self._retry_step(timer.invocation_id, timer.index)

    def _retry_step(self, invocation_id: bytes, index: int) -> None:
        """The back-off of a step is over."""
        instance = self._residents.get(invocation_id)
        if instance is None:
            self.wake(invocation_id)  # loaded, it starts the steps that are due
        elif instance.phase is Phase.LIVE and index in instance.machine.outstanding:
            self._start_step(instance, instance.machine.outstanding[index])

    def resident(self, invocation_id: bytes) -> Instance | None:
        return self._residents.get(invocation_id)

    def site_text(self, site: int) -> str:
        return self._sites.text(site)

    def policy_of_service(self, name: str) -> RetryPolicy | None:
        return self._services[name][0].retry

    def policy_of(self, invocation_id: bytes) -> RetryPolicy | None:
        """The retry policy declared for an invocation, or None."""
        record = self.record(invocation_id)
        if record is None:
            return None
        service = self._services[record.service][0]
        return service.handlers[record.handler].retry or service.retry

    def end(self, invocation_id: bytes, failure: bytes) -> None:
        """End an unfinished invocation from outside, with *failure* for who waits."""
        self.load(invocation_id, None)
        instance = self._residents.get(invocation_id)
        if instance is not None:
            instance.ending = failure

    def _end_now(self, instance: Instance, failure: bytes) -> None:
        """*instance* is at the end of its journal: what it waits for is known, and is ended."""
        consequences = self.ledger.end_operations(instance)
        output = Output(failure, True, self.clock.now_ms())
        self.ledger.end_hold(instance.id)
        self.ledger.finish(instance, output)
        consequences.output = output
        self._follow(instance, consequences)

    # -- commits ----------------------------------------------------------------------------

    def _on_commit(self) -> None:
        with self._failing_the_engine():
            self.store.on_event()
            self._release(self.store.committed)
            if self._queue or self._recovering:
                self._wake_pump()
            if not self._room.is_set() and not self.store.congested():
                self._room.set()
            self._trim()

    def _release(self, committed: int) -> None:
        held = self._held
        while held and held[0][0] <= committed:
            _, callback, args = held.popleft()
            callback(*args)


def _fits(service: ServiceDefinition, record: Record) -> bool:
    return record.handler in service.handlers and record.version == service.version


def _fail_futures(items: Iterable[Any], failure: PerdureError) -> None:
    for item in items:
        if isinstance(item, asyncio.Future) and not item.done():
            item.set_exception(failure)


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
