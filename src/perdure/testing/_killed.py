"""Ending an engine as a killed process ends."""

from __future__ import annotations

from perdure._runtime._scheduler import Scheduler
from perdure.errors import StoreClosed


def kill(scheduler: Scheduler, reason: str) -> None:
    """End it at once: what is not committed is lost, and who waits gets ``StoreClosed``."""
    scheduler.draining = True
    scheduler.cleaner.stop()
    for step in scheduler.running.all():
        step.cancel()
    scheduler.running.clear()
    scheduler.pump.queue.clear()
    scheduler.gate.fail(StoreClosed(reason))
    scheduler.close()
