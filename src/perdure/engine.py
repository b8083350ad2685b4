"""The public face of the embedded runtime."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from perdure._backing_up import BackingUp
from perdure._binding import register
from perdure._completing import Completing
from perdure._inspecting import Inspecting
from perdure._invoking import Invoking
from perdure._operating import Operating
from perdure._options import CheckAtOpen, Durability, GuardMode, check_options
from perdure._runtime._check import check_unfinished
from perdure._runtime._clock import Clock, WallClock
from perdure._runtime._host import Host
from perdure._runtime._registry import Registry
from perdure._runtime._scheduler import Scheduler
from perdure._runtime._watchdog import Watchdog
from perdure._store import Store
from perdure.errors import CheckFailed, StoreClosed
from perdure.retry import DEFAULT_RETRY, RetryPolicy

if TYPE_CHECKING:
    from perdure._runtime._guard import Guard

logger = logging.getLogger("perdure")


class Engine(Invoking, Completing, Operating, Inspecting, BackingUp):
    """The embedded engine: one process, one directory, the services given.

    Use it as ``async with perdure.Engine("./data", [Service()]) as engine``. Leaving the block
    starts nothing new, lets running steps end within *drain_timeout*, flushes and closes.

    Args:
      path: Directory of the store; made where it does not exist. One engine owns it at a time.
      services: Instances of Service, VirtualObject and Workflow classes; several of one name, if
        their versions differ.
      durability: ``fsync``: what is acknowledged survives power loss. ``os``: it survives a killed
        process; power loss may leave the file unusable. ``memory``: for tests; nothing is kept.
      max_resident: Suspended invocations kept in memory; the least recently used leave first.
      default_retry: For handlers and services that declare none.
      step_threads: Threads for steps that are not async.
      map_size: Address space of the store in bytes; it grows beyond by itself.
      clock: Where the time comes from; None: the machine's.
      drain_timeout: Seconds that running steps get when the engine closes.
      check_at_open: Replay all unfinished journals against the services, as :meth:`check` does,
        before anything else. ``refuse``: where one does not fit, do not open. ``warn``: log it.
      guard: What becomes of calls in handlers that no replay could repeat, such as ``time.time()``
        or ``open()``. ``warn``: each line is logged once. ``raise``: it raises, too. ``off``: they
        are not looked for.
      stall_warning: Seconds for which a handler, a step or the program may hold the event loop;
        then the log names who does, with the line. None: it is not watched.

    Raises:
      DefinitionError: A service can not be served, or two have one name and one version.
      ValueError: An option makes no sense.
    """

    _host = Host()
    """What it takes from the machine; the test kit has another."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        services: Iterable[Any],
        *,
        durability: Durability = "fsync",
        max_resident: int = 10_000,
        default_retry: RetryPolicy = DEFAULT_RETRY,
        step_threads: int = 32,
        map_size: int = 1 << 40,
        clock: Clock | None = None,
        drain_timeout: float = 10.0,
        check_at_open: CheckAtOpen | None = None,
        guard: GuardMode = "off",
        stall_warning: float | None = 1.0,
    ) -> None:
        check_options(
            durability,
            max_resident,
            step_threads,
            drain_timeout,
            check_at_open,
            guard,
            stall_warning,
        )
        self._path = os.fspath(path)
        super().__init__(register(services))
        self._durability: Durability = durability
        self._max_resident = max_resident
        self._default_retry = default_retry
        self._step_threads = step_threads
        self._map_size = map_size
        self._clock: Clock = clock or WallClock()
        self._drain_timeout = drain_timeout
        self._check_at_open = check_at_open
        self._guard = None if guard == "off" else _guard_for(guard)
        self._stall_warning = stall_warning
        self._watchdog: Watchdog | None = None
        self._closed = False

    # -- life -------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and has neither been closed nor failed since."""
        return self._scheduler is not None and not self._closed and self._scheduler.failure is None

    async def __aenter__(self) -> Engine:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the directory and go on with what it holds.

        Raises:
          CheckFailed: Under ``check_at_open="refuse"``: the code does not fit all journals.
          DataDirectoryInUse: Another engine has it open.
          StoreClosed: This engine was opened before.
          StoreCorrupt: It is damaged.
          StoreError: It is no data directory of perdure, or can not be used.
        """
        if self._loop is not None:
            raise StoreClosed("this engine was opened before; make another Engine")
        self._loop = asyncio.get_running_loop()
        try:
            self._scheduler = await self._take_up(self._loop)
        except BaseException:
            self._loop = None
            raise

    async def _take_up(self, loop: asyncio.AbstractEventLoop) -> Scheduler:
        """The scheduler of the directory, going on with what it holds."""
        store = self._host.open_store(
            self._path, durability=self._durability, map_size=self._map_size
        )
        try:
            scheduler = self._make_scheduler(store, loop)
            if self._check_at_open is not None:
                report = await check_unfinished(scheduler)
                if not report.ok:
                    if self._check_at_open == "refuse":
                        raise CheckFailed(report)
                    logger.warning("the code does not fit all journals: %s", report)
            scheduler.open()
        except CheckFailed:
            store.close()  # in order: nothing was written
            raise
        except BaseException:
            store.close(flush=False)
            raise
        if self._stall_warning is not None:
            self._watchdog = Watchdog(scheduler, loop, self._stall_warning)
            self._watchdog.open()
        return scheduler

    def _make_scheduler(self, store: Store, loop: asyncio.AbstractEventLoop) -> Scheduler:
        return Scheduler(
            store,
            self._make_registry(),
            loop=loop,
            clock=self._clock,
            host=self._host,
            guard=self._guard,
            max_resident=self._max_resident,
            step_threads=self._step_threads,
        )

    def _make_registry(self) -> Registry:
        return Registry(self._services, self._default_retry)

    async def close(self) -> None:
        """Drain, flush and close; what was accepted goes on when the directory is opened again."""
        if self._scheduler is None or self._closed:
            return
        self._closed = True
        try:
            await self._stop_backups()
            await self._scheduler.drain(self._drain_timeout)
        finally:
            if self._watchdog is not None:
                self._watchdog.close()
            self._scheduler.close()


def _guard_for(mode: Literal["warn", "raise"]) -> Guard:
    # Imported by those who have one: it goes through all functions of `os` and `socket`.
    from perdure._runtime._guard import Guard

    return Guard(mode)
