"""What follows from a failed attempt: try again later, pause, or end the invocation."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from perdure._core._entries import Flag
from perdure._runtime._instance import Delivery, Instance
from perdure._runtime._layout import CANCELLED_FIRST, Backoff, u64
from perdure._runtime._running import RunningStep
from perdure._runtime._waiting import blocks
from perdure._store import Db
from perdure.errors import (
    HandlerStalled,
    InternalError,
    Killed,
    NondeterminismError,
    RetryableError,
    StoreCorrupt,
    TerminalError,
)
from perdure.retry import RetryPolicy
from perdure.serde import describe_failure, encode_failure

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

logger = logging.getLogger("perdure")

_NEVER_RETRIED = (NondeterminismError, HandlerStalled, InternalError, StoreCorrupt)
"""Failures that another attempt would meet again: the invocation pauses at once."""

_LONGEST_DELAY_MS = 100 * 365 * 86_400_000
"""A later time could not be shown."""

# What follows the last attempt, for the log.
_KILLED = "it is killed"
_PAUSED = "it is paused: mend the cause, then resume it"
_FAILED = "the step has failed for good, and its handler goes on"


class Failures:
    """Applies retry policies, for the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def attempt_failed(
        self, instance: Instance, delivery: Delivery | None, error: BaseException
    ) -> None:
        """An activation or a replay of *instance* raised: it leaves no trace but the back-off.

        A ``StoreError`` may be of another engine. Of this one's store, sealing the back-off raises.
        """
        scheduler = self._scheduler
        scheduler.stage.leave()  # what logs the failure may ask for the host's loop
        scheduler.store.discard()
        if isinstance(error, NondeterminismError):
            error.invocation_id = instance.text_id
        policy = scheduler.registry.policy_of(instance.record)
        backoff = self._next(instance.backoff, policy, error)
        retried = not isinstance(error, _NEVER_RETRIED) and not self._exhausted(policy, backoff)
        killed = (
            not retried and policy.on_exhausted == "kill" and not isinstance(error, _NEVER_RETRIED)
        )
        over = None
        if not retried:
            over = _KILLED if killed else self._paused(instance.id)
        self._log(instance.text_id, "attempt", backoff, error, over)
        scheduler.setbacks.attempt_failed(instance, delivery, backoff, pause=not retried)
        instance.last_unit = scheduler.store.seal()
        scheduler.accepted(instance)
        scheduler.residents.drop(instance)
        if killed:
            scheduler.gate.when_committed(self._kill, instance.id, backoff.failure)

    def step_failed(self, running: RunningStep, error: BaseException) -> None:
        """An attempt of a step raised: journal it, try again later, or pause its invocation."""
        scheduler = self._scheduler
        if isinstance(error, TerminalError):
            scheduler.pump.step_done(running, encode_failure(error), Flag.FAILED)
            return
        step = running.step
        ledger = scheduler.ledger
        policy = step.options.retry or scheduler.registry.policy_of(
            scheduler.answers.record(running.invocation_id)
        )
        before = ledger.backoffs.get(running.invocation_id, running.index)
        backoff = self._next(before, policy, error)
        exhausted = self._exhausted(policy, backoff) and not running.interrupted
        if step.options.retry is None and self._is_to_be_cancelled(running.invocation_id):
            exhausted = False  # a pause would keep its cancellation from it
        what = f"step {step.name!r}"
        over = None
        if exhausted:
            paused = self._paused(running.invocation_id)
            over = paused if step.options.retry is None else _FAILED
        self._log(running.text_id, what, backoff, error, over)
        if not exhausted:
            scheduler.setbacks.step_failed(
                running.invocation_id,
                running.index,
                backoff,
                others_run=scheduler.running.any_of(running.invocation_id),
            )
            scheduler.store.seal()
        elif step.options.retry is not None:
            text = f"{what} failed after {backoff.attempts} attempts: {backoff.failure}"
            scheduler.pump.step_done(running, encode_failure(TerminalError(text)), Flag.FAILED)
        else:
            # The next life of the step begins with a fresh count, once somebody resumes it.
            ledger.backoffs.end(running.invocation_id, running.index)
            instance = scheduler.residents.by_id.get(running.invocation_id)
            if instance is not None:
                scheduler.setbacks.put_back(instance, None)
            scheduler.setbacks.pause(running.invocation_id, backoff)
            unit = scheduler.store.seal()
            if instance is not None:
                instance.last_unit = unit
                scheduler.residents.drop(instance)

    def _next(self, before: Backoff | None, policy: RetryPolicy, error: BaseException) -> Backoff:
        now_ms = self._scheduler.clock.now_ms()
        attempts = before.attempts + 1 if before else 1
        delay_ms = policy.delay_ms(attempts)
        # The attribute is missing where a subclass of a user's did not call its base.
        retry_after = getattr(error, "retry_after", None)
        if isinstance(error, RetryableError) and isinstance(retry_after, timedelta):
            delay_ms = -(retry_after // -timedelta(milliseconds=1))  # rounded up
        delay_ms = max(0, min(delay_ms, _LONGEST_DELAY_MS))
        return Backoff(
            attempts=attempts,
            since_ms=before.since_ms if before else now_ms,
            due_ms=now_ms + delay_ms,
            failure=describe_failure(error),
        )

    def _is_to_be_cancelled(self, invocation_id: bytes) -> bool:
        """Whether it was asked to end, and has not been told."""
        first = u64(CANCELLED_FIRST)
        return self._scheduler.store.get(Db.PENDING, invocation_id, first) is not None

    def _exhausted(self, policy: RetryPolicy, backoff: Backoff) -> bool:
        elapsed_ms = self._scheduler.clock.now_ms() - backoff.since_ms
        return policy.exhausted(backoff.attempts, elapsed_ms)

    def _paused(self, invocation_id: bytes) -> str:
        """What a pause means, for the log."""
        record = self._scheduler.answers.record(invocation_id)
        blocked = None if record is None else blocks(self._scheduler, invocation_id, record)
        return _PAUSED if blocked is None else f"{_PAUSED}; until then it blocks {blocked}"

    def _kill(self, invocation_id: bytes, failure: str) -> None:
        """Attempts are used up, and the policy says to end it."""
        killed = Killed(f"killed after its last attempt failed: {failure}")
        self._scheduler.residents.end_if_readable(invocation_id, encode_failure(killed))

    def _log(
        self,
        text_id: str,
        what: str,
        backoff: Backoff,
        error: BaseException,
        over: str | None,
    ) -> None:
        """Say what failed, and *over*: what follows if that was the last attempt."""
        if over is None:
            delay_s = (backoff.due_ms - self._scheduler.clock.now_ms()) / 1000
            over = f"next in {max(delay_s, 0):.2f} s"
        logger.warning(
            "%s: %s, attempt %d failed: %s; %s",
            text_id,
            what,
            backoff.attempts,
            backoff.failure,
            over,
            exc_info=error,
        )
