"""Running a loop of one's own, whether or not the caller is in another."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def outside_of_loops(work: Callable[[], T]) -> T:
    """Call *work*; where a loop runs in this thread, in another thread, which is waited for."""
    if asyncio._get_running_loop() is None:
        return work()
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "perdure-testing") as thread:
        return thread.submit(context.run, work).result()
