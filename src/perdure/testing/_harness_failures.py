"""Failures under a harness: what nobody meant to fail is not tried again, and reaches the test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from perdure._core._outgoing import target_name
from perdure._ids import format_id
from perdure._runtime._failures import Failures
from perdure._runtime._instance import Delivery, Instance
from perdure._runtime._layout import Record
from perdure._runtime._registry import Registry
from perdure._runtime._running import RunningStep
from perdure._store import Db
from perdure.errors import RetryableError, TerminalError
from perdure.retry import RetryPolicy, no_retry
from perdure.service import Versions
from perdure.testing._faults import HarnessError, Problems

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

_NO_RETRY = no_retry()


class HarnessRegistry(Registry):
    """The services of a harness, to which doubles may be added while it is open."""

    def __init__(self, services: Mapping[str, Versions], default_retry: RetryPolicy) -> None:
        super().__init__(services, default_retry)
        self._fails_fast = False

    def refresh(self) -> None:
        """Take what *services* has now."""
        self._by_version = {
            (name, definition.version): (definition, instance)
            for name, versions in self._services.items()
            for definition, instance in versions
        }

    @contextlib.contextmanager
    def failing_fast(self, fast: bool) -> Iterator[None]:
        """Have nothing tried again, until this is left."""
        self._fails_fast = fast
        try:
            yield
        finally:
            self._fails_fast = False

    def policy_of(self, record: Record | None) -> RetryPolicy:
        return _NO_RETRY if self._fails_fast else super().policy_of(record)


class HarnessFailures(Failures):
    """Applies retry policies to what was meant to fail; pauses all else, and tells the test.

    Meant are errors that doubles were told to raise, and ``RetryableError``.

    Args:
      fail_fast: False: the policies hold for everything, and only pauses are told.
      deliberate: Errors of doubles; each leaves the list when it is met.
      broke: Called with the id of an invocation that has broken.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        registry: HarnessRegistry,
        problems: Problems,
        *,
        fail_fast: bool,
        deliberate: list[BaseException],
        broke: Callable[[bytes], None],
    ) -> None:
        super().__init__(scheduler)
        self._harnessed = scheduler
        self._registry = registry
        self._problems = problems
        self._fail_fast = fail_fast
        self._deliberate = deliberate
        self._broke = broke

    def attempt_failed(
        self, instance: Instance, delivery: Delivery | None, error: BaseException
    ) -> None:
        with self._registry.failing_fast(self._is_unmeant(error)):
            super().attempt_failed(instance, delivery, error)
        self._tell(instance.id, instance.record, error, "")

    def step_failed(self, running: RunningStep, error: BaseException) -> None:
        record = self._harnessed.answers.record(running.invocation_id)
        unmeant = not running.interrupted and self._is_unmeant(error)
        with self._registry.failing_fast(unmeant):
            super().step_failed(running, error)
        if record is not None and not isinstance(error, TerminalError):
            self._tell(running.invocation_id, record, error, f"step {running.step.name!r} of ")

    def _is_unmeant(self, error: BaseException) -> bool:
        for meant in self._deliberate:
            if meant is error:
                self._deliberate.remove(meant)
                return False
        return self._fail_fast and not isinstance(error, RetryableError)

    def _tell(self, invocation_id: bytes, record: Record, error: BaseException, step: str) -> None:
        paused = self._harnessed.store.get(Db.PAUSED, invocation_id, b"") is not None
        if paused or isinstance(error, HarnessError):
            target = target_name(record.service, record.handler, record.key)
            self._problems.add(invocation_id, error, f"{step}{target}, {format_id(invocation_id)}")
            self._broke(invocation_id)
