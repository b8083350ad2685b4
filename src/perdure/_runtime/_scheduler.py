"""The scheduler: puts the runtime of one data directory together, opens and closes it.

Theory of operation. The pump (:mod:`._pump`) takes one invocation at a time that has something to
do, delivers one notification to it, and seals the unit of that activation. The writer thread
commits units in order, and whatever leaves the engine (a step's start, an answer) waits at the gate
(:mod:`._gate`) for the commit of all that was sealed when it was computed. The pump stops while too
much is uncommitted, and for good when a commit has failed.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from perdure._core._loop import Stage
from perdure._core._machine import START
from perdure._core._outgoing import Outgoing
from perdure._ids import InvocationIdGenerator
from perdure._runtime._answers import Answers
from perdure._runtime._cleaner import Cleaner
from perdure._runtime._clock import Clock
from perdure._runtime._due import DueTimers
from perdure._runtime._failures import Failures
from perdure._runtime._gate import Gate, fail_futures
from perdure._runtime._host import Host
from perdure._runtime._instance import ADMITTED, Delivery, Instance, target_of
from perdure._runtime._interventions import Interventions
from perdure._runtime._layout import (
    Output,
    Record,
    idempotency_target,
    run_target,
    target_digest,
    unpack_target,
)
from perdure._runtime._ledger import Ledger
from perdure._runtime._pump import Pump
from perdure._runtime._purges import Purges
from perdure._runtime._registry import Registry
from perdure._runtime._residents import Residents
from perdure._runtime._retention import retention_of
from perdure._runtime._running import RunningStep, RunningSteps
from perdure._runtime._setbacks import Setbacks
from perdure._runtime._sites import SiteTable
from perdure._runtime._timers import Timers
from perdure._store import Db, Store
from perdure.errors import InternalError, PerdureError, StoreClosed, StoreError
from perdure.service import HandlerDefinition

logger = logging.getLogger("perdure")

RELEASED_PER_TURN = 128
"""Steps started, or answers given, before the host's loop gets its turn."""


class Scheduler:
    """The embedded runtime of one data directory, on one host loop.

    Attributes:
      draining: It closes: nothing new starts.
      stage: Where handlers run; the pump and whoever reports a failure leave it.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        host: Host,
        max_resident: int,
        step_threads: int,
    ) -> None:
        self.store = store
        self.clock = clock
        self.ticks = host.ticks
        self.draining = False
        self.registry = registry
        self.gate = Gate(store)
        self.answers = Answers(store, self.gate, loop)
        self.sites = SiteTable(store)
        self._due = DueTimers(self, loop)
        self.timers = Timers(store, clock, loop, self._due.fire_due)
        self.cleaner = Cleaner(self, loop)
        self.ledger = Ledger(store, self.timers, self.sites)
        self.ledger.purges = Purges(store, self.ledger, self.registry, clock, self.cleaner.watch)
        self.stage = Stage()
        self.residents = Residents(self, self.sites, max_resident)
        self.ledger.residents = self.residents.by_id
        self.setbacks = Setbacks(store, self.ledger)
        self.interventions = Interventions(self)
        self.ledger.exchange.connect(self.registry, self.residents)
        self.running = RunningSteps()
        self.pump = Pump(self, loop, self.gate, self.ledger, self.running)
        self.failures = Failures(self)
        self.runner = host.step_runner(
            loop, step_threads, self.pump.step_succeeded, self._step_failed
        )
        self._loop = loop
        self.ids = InvocationIdGenerator(clock.now_ms, host.random_bits)
        self._releasing = False  # a further release is due on the host's loop
        self._starting: dict[bytes, Instance] = {}  # by target, rows not written yet
        self._room = asyncio.Event()
        self._room.set()
        self._quiet, self.failed = asyncio.Event(), asyncio.Event()

    @property
    def failure(self) -> PerdureError | None:
        """Why nothing is accepted any more; ``failed`` is set then."""
        return self.gate.failure

    # -- life -------------------------------------------------------------------------------

    def open(self) -> None:
        """Take up what the directory holds: what is ready, then the timers that are due."""
        for warning in self.store.warnings:
            logger.warning("%s", warning)
        self._due.recover()
        self.cleaner.rest()
        self.pump.wake()
        # Last: a reader left behind by what failed above would keep its descriptor's number from
        # whoever gets it next.
        self.store.watch(self._loop, self._on_commit)

    async def drain(self, timeout_s: float) -> None:
        """Start nothing new, let what runs end within *timeout_s*, and stop."""
        self.draining = True
        self._room.set()  # who waits for it learns that the engine closes
        self.timers.disarm()
        self.cleaner.stop()
        deadline = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                while self.failure is None and not self.is_quiet():
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            logger.warning(
                "%d steps still run after %.1f s; they start anew when the directory is opened "
                "again",
                len(self.running.all()),
                timeout_s,
            )
        finally:  # also when the drain itself is cancelled: nothing may report to a closed store
            tasks = [step.task for step in self.running.all()]
            for step in self.running.all():
                step.cancel()
        pending = [task for task in tasks if task is not None and not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=1.0)
        if self.failure is None:
            # Rather than in close(), which stops the host's loop for it.
            await self.answers.committed()

    def close(self) -> None:
        """Flush the store, release what its commit allows, fail who still waits."""
        self.timers.disarm()
        self.runner.close()
        self.store.unwatch(self._loop)
        try:
            if self.failure is None:
                self.store.wait_committed(self.store.sealed, None)
                self.gate.release(sys.maxsize)
        except StoreError as broken:
            self.gate.fail(broken)
            raise
        finally:
            if self.pump.handle is not None:  # what was released may have woken it
                self.pump.handle.cancel()
            flush = self.failure is None
            self._fail_waiting(
                self.failure
                or StoreClosed(
                    "the engine was closed; what was accepted goes on when the directory is "
                    "opened again"
                )
            )
            try:
                self.residents.close()
            finally:  # a handler's `finally` may raise what ends programs
                self.store.close(flush=flush)

    def is_quiet(self) -> bool:
        """Whether nothing is queued and nothing runs."""
        return self.pump.is_idle() and not self.running.any()

    def check_quiet(self) -> None:
        """Tell a drain that waits for it, if all is quiet."""
        if self.draining and self.is_quiet():
            self._quiet.set()

    def fail_for(self, error: BaseException) -> None:
        """*error* is no handler's fault: it ends the engine, and no caller hangs."""
        if isinstance(error, StoreError):
            self._fail(error)
        elif not isinstance(error, Exception):
            # A unit is half written, or memory is ahead of what was: neither may be gone on with.
            self.store.discard()
            self._fail(
                PerdureError(
                    "the program was interrupted in the middle of a write; nothing that was "
                    "acknowledged is lost: open the directory again to go on"
                )
            )
            raise error
        else:
            logger.error("a defect in perdure, please report it", exc_info=error)
            self.store.discard()
            self._fail(InternalError(f"{type(error).__name__}: {error}"))

    def _fail(self, failure: PerdureError) -> None:
        """From here on nothing runs, nothing is answered, nothing is accepted."""
        if self.failure is not None:
            return
        logger.critical("the engine stops: %s", failure)
        self.timers.disarm()
        self.cleaner.stop()
        self.pump.queue.clear()
        for step in self.running.all():
            step.cancel()
        self.running.clear()
        self._fail_waiting(failure)
        for event in (self._room, self._quiet, self.failed):
            event.set()

    def _fail_waiting(self, failure: PerdureError) -> None:
        self.gate.fail(failure)
        fail_futures(self.residents.waiting_futures(), failure)
        self.answers.fail(failure)

    # -- admission ----------------------------------------------------------------------------

    def check_open(self) -> None:
        if self.failure is not None and not isinstance(self.failure, StoreClosed):
            raise type(self.failure)(*self.failure.args)
        if self.draining:
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
        accepted: asyncio.Future[None] | None = None,
        answer: asyncio.Future[Output] | None = None,
        idempotency_key: str | None = None,
        delay_ms: int | None = None,
    ) -> Instance:
        """Begin an invocation.

        Args:
          accepted: Who sends it, and is told when it is durable.
          answer: Who waits for its output.
          delay_ms: Not before so much later.
        """
        retention = retention_of(
            definition, one_way=answer is None, idempotent=idempotency_key is not None
        )
        now_ms = self.clock.now_ms()
        record = Record(
            service=definition.service,
            key=key,
            handler=definition.name,
            version=definition.version,
            created_ms=now_ms,
            argument=argument,
            headers=headers,
            output_ms=retention.output_ms,
            journal_ms=retention.journal_ms,
            idempotency_key=idempotency_key,
            due_ms=0 if delay_ms is None else now_ms + delay_ms,
        )
        return self.begin(record, accepted, answer)

    def begin(
        self,
        record: Record,
        accepted: asyncio.Future[None] | None,
        answer: asyncio.Future[Output] | None = None,
    ) -> Instance:
        """Begin the invocation that *record* describes."""
        instance = self.residents.make(self.ids.next(), record, ADMITTED)
        instance.backlog.append(Delivery(START))
        instance.fresh = True
        instance.accepted = accepted
        instance.answer = answer
        target = target_of(instance)
        if target is not None:
            self._starting[target] = instance
        if record.due_ms:
            self.accept_unbegun(instance)
        elif not instance.is_exclusive or self.ledger.inboxes.join(instance.group, instance.id):
            self.pump.enqueue(instance)
        elif accepted is not None:
            self.accept_unbegun(instance)  # it waits for its key, but not in memory alone
        return instance

    def accepted(self, instance: Instance) -> None:
        """Its rows are sealed."""
        instance.fresh = False
        if self._starting:
            target = target_of(instance)
            if target is not None:
                self._starting.pop(target, None)
        self.answers.accepted(instance)

    def accept_unbegun(self, instance: Instance) -> None:
        """Write the rows of *instance* before its first activation does."""
        self.ledger.accept(instance, True)
        instance.last_unit = self.store.seal()
        self.accepted(instance)

    def find(self, target: bytes) -> bytes | None:
        """The one invocation of *target*, if there is one."""
        instance = self._starting.get(target)
        if instance is not None:
            # Whoever is told of it may rely on it: its rows go before the answer.
            self.accept_unbegun(instance)
            return instance.id
        value = self.store.get(Db.TARGETS, target_digest(target), b"")
        return None if value is None else unpack_target(value, target)

    def find_run(self, service: str, key: str) -> bytes | None:
        """The invocation of a workflow's ``run`` on *key*, if there is one."""
        return self.find(run_target(service, key))

    def existing(self, outgoing: Outgoing) -> bytes | None:
        """The invocation that stands already where *outgoing* would begin one."""
        service, handler, key, _, _, idempotency_key = outgoing
        if idempotency_key is None:
            return self.find_run(service, key)
        return self.find(idempotency_target(service, key, handler, idempotency_key))

    def output(self, invocation_id: bytes) -> Output | None:
        """How an invocation ended; None while it has not.

        Raises:
          NotFound: There is no such invocation, or its result is not kept any more.
        """
        return self.answers.output(invocation_id, resident=invocation_id in self.residents.by_id)

    # -- what happens to invocations ------------------------------------------------------------

    def finished(self, instance: Instance, output: Output) -> None:
        """*instance* has ended, and its last unit is sealed."""
        self.answers.finished(instance, output)
        self.residents.drop(instance, finished=True)

    def _step_failed(self, running: RunningStep, error: BaseException) -> None:
        self.running.take(running.invocation_id, running.index)
        running.task = None  # as in step_succeeded
        if self.failure is None:
            try:
                self.failures.step_failed(running, error)
            except BaseException as defect:
                self.fail_for(defect)
        self.check_quiet()

    # -- commits ----------------------------------------------------------------------------

    def _on_commit(self) -> None:
        try:
            self.store.on_event()
            self._release()
            if self.pump.queue or self.residents.recovering:
                self.pump.wake()
            if not self._room.is_set() and not self.store.congested():
                self._room.set()
        except BaseException as error:
            self.fail_for(error)

    def _release(self) -> None:
        try:
            more = self.gate.release(RELEASED_PER_TURN)
            self.residents.trim()
        except BaseException as error:
            self.fail_for(error)
        else:
            if more and not self._releasing:
                self._releasing = True
                self._loop.call_soon(self._release_more)

    def _release_more(self) -> None:
        self._releasing = False
        if self.failure is None:
            self._release()
