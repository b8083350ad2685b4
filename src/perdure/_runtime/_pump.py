"""The pump: takes one invocation at a time, delivers one notification, seals its unit.

This module is compiled (see ``_pump.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Kind, new_entry
from perdure._core._machine import State
from perdure._runtime._consequences import Consequences
from perdure._runtime._gate import Gate
from perdure._runtime._instance import LIVE, LOADING, Delivery, Instance
from perdure._runtime._ledger import Ledger
from perdure._runtime._running import RunningStep, RunningSteps

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler
    from perdure.futures import Step

_SLICE_S = 0.005
"""The host's loop gets its turn at least this often."""

_NEW, _CLOSED, _COMPLETED = State.NEW, State.CLOSED, State.COMPLETED
_UNASKED = (Kind.START, Kind.CANCELLED)
"""Notifications that answer no operation."""


class Pump:
    """Owner of the queue of invocations that have something to do.

    Attributes:
      queue: Each of them once, in the order in which they got something to do.
      handle: The host's callback that runs the pump, while one is due.
      interrupt: What a handler raised to end the program, all else being as it should.
      rouse: To be called when there is something to do again; None while nobody sleeps.
      current: What has its turn just now, for who watches from another thread.
    """

    __slots__ = (
        "_by_id",
        "_clock_ms",
        "_gate",
        "_ledger",
        "_loop",
        "_residents",
        "_running",
        "_scheduler",
        "_start",
        "_store",
        "_ticks",
        "_turn",
        "current",
        "handle",
        "interrupt",
        "queue",
        "rouse",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        loop: asyncio.AbstractEventLoop,
        gate: Gate,
        ledger: Ledger,
        running: RunningSteps,
    ) -> None:
        self._scheduler = scheduler
        self._loop = loop
        self._gate = gate
        self._ledger = ledger
        self._running = running
        self._store = scheduler.store
        self._by_id = scheduler.residents.by_id
        self._clock_ms = scheduler.clock.now_ms
        self._ticks = scheduler.ticks
        self.queue: deque[Instance] = deque()
        self.handle: asyncio.Handle | None = None
        self.interrupt: BaseException | None = None
        self.rouse: Callable[[], None] | None = None
        self.current: Instance | None = None
        # Bound once: a bound method made at each use is garbage at each use.
        self._turn = self.run
        self._start = self.start_step

    def enqueue(self, instance: Instance) -> None:
        """Have *instance* taken in its turn."""
        if not instance.queued:
            instance.queued = True
            self.queue.append(instance)
            self.wake()

    def wake(self) -> None:
        if self.handle is None and self._gate.failure is None:
            self.handle = self._loop.call_soon(self._turn)

    def is_idle(self) -> bool:
        return self.handle is None and not self.queue

    def run(self) -> None:
        """One turn: until nothing is queued, too much is uncommitted, or the time is up."""
        scheduler = self._scheduler
        self.handle = None
        if self.rouse is not None and self.queue:
            self.rouse()
        self._store.begin_batch()
        try:
            self._take_turns()
            scheduler.residents.trim()
        except BaseException as error:
            interrupt, self.interrupt = self.interrupt, None
            if error is interrupt:
                raise
            scheduler.fail_for(error)
        finally:
            self.current = None
            scheduler.stage.leave()
            self._store.end_batch()
        if scheduler.draining:
            scheduler.check_quiet()

    def _take_turns(self) -> None:
        deadline = self._ticks() + _SLICE_S
        queue = self.queue
        residents = self._scheduler.residents
        turns = 0
        while self._gate.failure is None and (queue or residents.recover_one()):
            if turns & 15 == 0 and self._store.congested():
                return  # the next commit wakes the pump
            turns += 1
            instance: Instance = queue.popleft()
            instance.queued = False
            if instance.machine.state is not _CLOSED:  # dropped while it was queued
                self._advance(instance)
            if self._ticks() > deadline:
                self.wake()
                return

    def _advance(self, instance: Instance) -> None:
        scheduler = self._scheduler
        self.current = instance
        if instance.phase == LOADING and not scheduler.residents.replay_slice(instance):
            return
        if not instance.backlog:
            scheduler.residents.rest(instance)
            return
        delivery: Delivery = instance.backlog.pop(0)
        machine = instance.machine
        notification = delivery.entry
        kind = notification[0]
        if kind == Kind.CANCELLED and machine.state is _NEW:
            scheduler.residents.end_unstarted(instance)
            return
        if kind not in _UNASKED and notification[1] not in machine.outstanding:
            # Cancelled before the answer came: nothing waits for it, nothing is to be told.
            self._ledger.forget_delivery(instance, delivery)
            if self._ledger.is_ready_in_vain(instance):
                self._ledger.set_ready(instance, False)
            instance.last_unit = self._store.seal()
        else:
            try:
                activation = machine.activate(notification, self._clock_ms())
            except (KeyboardInterrupt, SystemExit) as interrupt:
                self.interrupt = interrupt
                if instance.fresh:
                    scheduler.accept_unbegun(instance)  # it begins at the next opening
                scheduler.residents.drop(instance)
                self.wake()  # the others in the queue are no less ready
                raise
            except BaseException as error:
                scheduler.failures.attempt_failed(instance, delivery, error)
                return
            self.follow(instance, self._ledger.activation(instance, activation, delivery))
        if machine.state is _COMPLETED:
            return
        if instance.backlog:
            self.enqueue(instance)
        elif instance.unrested:
            scheduler.residents.rest(instance)

    def follow(self, instance: Instance, consequences: Consequences) -> None:
        """Seal the unit of an activation and see to what follows from it."""
        scheduler = self._scheduler
        unit = instance.last_unit = self._store.seal()
        if instance.fresh:
            scheduler.accepted(instance)
        if consequences.ended_steps is not None:
            for operation in consequences.ended_steps:
                running = self._running.take(instance.id, operation.index)
                if running is not None:
                    running.cancelled = True  # what it still says is dropped from now on
                    self._gate.when_committed(cancel_running, running)
        if consequences.steps is not None:
            for operation in consequences.steps:
                self._gate.hold(unit, self._start, instance, operation)
        if consequences.notified is not None:
            for invocation_id in consequences.notified:
                scheduler.residents.wake(invocation_id)
        if consequences.output is not None:
            scheduler.finished(instance, consequences.output)
        else:
            self._by_id.move_to_end(instance.id)

    # -- steps ------------------------------------------------------------------------------

    def start_step(self, instance: Instance, operation: Step[Any]) -> None:
        """Begin a step, once its command has committed."""
        scheduler = self._scheduler
        if instance.machine.state is _CLOSED or scheduler.draining:
            return  # left to the next attempt, or to the next start
        index = operation.index
        if index not in instance.machine.outstanding:
            return  # cancelled before it began, or answered
        if self._running.has(instance.id, index):
            return
        for delivery in instance.backlog:
            if delivery.entry[1] == index:
                return  # answered: whoever wanted it started too had been overtaken
        running = RunningStep(instance.id, index, operation)
        self._running.add(running)
        if self.rouse is not None:
            self.rouse()
        scheduler.runner.start(running)

    def step_succeeded(self, running: RunningStep, payload: bytes) -> None:
        """An attempt of a step ended well."""
        self._running.take(running.invocation_id, running.index)
        running.task = None  # whose context has *running*: a circle for the garbage collector
        if self._gate.failure is None:
            try:
                self.step_done(running, payload, 0)
            except BaseException as error:
                self._scheduler.fail_for(error)
        if self._scheduler.draining:
            self._scheduler.check_quiet()

    def step_done(self, running: RunningStep, payload: bytes | None, flags: int) -> None:
        """Deliver the outcome of a step."""
        fields = (Kind.STEP_DONE, running.index, running.step.name, payload, 0, 0, flags)
        entry = new_entry(fields)
        self.deliver(running.invocation_id, Delivery(entry))

    def deliver(self, invocation_id: bytes, delivery: Delivery) -> None:
        """Tell an invocation at once if it is live, else let the store keep the notification."""
        scheduler = self._scheduler
        instance: Any = self._by_id.get(invocation_id)
        if instance is not None and instance.phase == LIVE:
            instance.backlog.append(delivery)
            self.enqueue(instance)
            return
        if delivery.timer is not None:
            scheduler.timers.delete(delivery.timer)
        self._ledger.notify(invocation_id, delivery.entry)
        self._store.seal()
        scheduler.residents.wake(invocation_id)


def cancel_running(running: RunningStep, _: None) -> None:
    running.cancel()
