"""The public face of the embedded runtime."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from perdure._binding import ABSENT, bind, register, result_serde
from perdure._handles import Accepted, InvocationHandle
from perdure._ids import InvocationId, InvocationIdGenerator, parse_id
from perdure._limits import check_headers
from perdure._options import Durability, check_options
from perdure._results import Results, decode_output
from perdure._runtime._clock import Clock, WallClock
from perdure._runtime._describe import Description
from perdure._runtime._instance import Kept
from perdure._runtime._layout import Output
from perdure._runtime._scheduler import Scheduler
from perdure._store import Store
from perdure.errors import Conflict, InvalidInput, StoreClosed
from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.service import HandlerDefinition, HandlerKind

A = TypeVar("A")
R = TypeVar("R")


class Engine:
    """The embedded engine: one process, one directory, the services given.

    Use it as ``async with perdure.Engine("./data", [Service()]) as engine``. Leaving the block
    starts nothing new, lets running steps end within *drain_timeout*, flushes and closes.

    Args:
      path: Directory of the store; made where it does not exist. One engine owns it at a time.
      services: Instances of Service, VirtualObject and Workflow classes.
      durability: ``fsync``: what is acknowledged survives power loss. ``os``: it survives a killed
        process; power loss may leave the file unusable. ``memory``: for tests; nothing is kept.
      max_resident: Suspended invocations kept in memory; the least recently used leave first.
      default_retry: For handlers and services that declare none.
      step_threads: Threads for steps that are not async.
      map_size: Address space of the store in bytes; it grows beyond by itself.
      clock: Where the time comes from; None: the machine's.
      drain_timeout: Seconds that running steps get when the engine closes.

    Raises:
      DefinitionError: A service can not be served, or two have one name.
      ValueError: An option makes no sense.
    """

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
    ) -> None:
        check_options(durability, max_resident, step_threads, drain_timeout)
        self._path = os.fspath(path)
        self._services = register(services)
        self._durability: Durability = durability
        self._max_resident = max_resident
        self._default_retry = default_retry
        self._step_threads = step_threads
        self._map_size = map_size
        self._clock: Clock = clock or WallClock()
        self._drain_timeout = drain_timeout
        self._loop: asyncio.AbstractEventLoop | None = None  # that opened it
        self._scheduler: Scheduler | None = None
        self._results = Results(self._open_scheduler)
        self._closed = False

    # -- life -------------------------------------------------------------------------------

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
          DataDirectoryInUse: Another engine has it open.
          StoreClosed: This engine was opened before.
          StoreCorrupt: It is damaged.
          StoreError: It is no data directory of perdure, or can not be used.
        """
        if self._scheduler is not None:
            raise StoreClosed("this engine was opened before; make another Engine")
        self._loop = asyncio.get_running_loop()
        store = Store(self._path, durability=self._durability, map_size=self._map_size)
        try:
            self._scheduler = Scheduler(
                store,
                self._services,
                loop=self._loop,
                clock=self._clock,
                ids=InvocationIdGenerator(self._clock.now_ms, random.SystemRandom().getrandbits),
                max_resident=self._max_resident,
                default_retry=self._default_retry,
                step_threads=self._step_threads,
            )
            self._scheduler.open()
        except BaseException:
            self._scheduler = None
            store.close(flush=False)
            raise

    async def close(self) -> None:
        """Drain, flush and close; what was accepted goes on when the directory is opened again."""
        if self._scheduler is None or self._closed:
            return
        self._closed = True
        try:
            await self._scheduler.drain(self._drain_timeout)
        finally:
            self._scheduler.close()

    def _open_scheduler(self) -> Scheduler:
        if self._scheduler is None:
            raise StoreClosed("the engine is not open; use it inside `async with engine:`")
        self._scheduler.check_open()
        if asyncio.get_running_loop() is not self._loop:
            # The answer would wake the asker outside its journal, or on a loop that never looks.
            raise InvalidInput(
                "the engine was used outside the event loop that opened it: in a handler (do it in "
                "a step: await ctx.run('name', engine.call, …)) or on the loop of another thread "
                "(hand it over: asyncio.run_coroutine_threadsafe)"
            )
        return self._scheduler

    # -- invoking ---------------------------------------------------------------------------

    @overload
    async def call(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any: ...

    async def call(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Invoke *handler* and wait for its result; cancelling the wait does not cancel it.

        Args:
          handler: A method of a service class, or ``"Service.handler"``.
          arg: Its argument, where it takes one.
          key: For handlers of workflows and objects.
          returns: Type of the result; wins over the handler's own annotation.
          headers: Handed to the handler as ``ctx.request.headers``.

        Raises:
          Conflict: The workflow's ``run`` was already started for *key*.
          InvalidInput: *arg* is not what the handler takes.
          NotFound: No such service or handler here.
          StoreBroken, StoreClosed: The disk refused a write; the engine is not open, or closes.
          TerminalError: As the invocation failed.
        """
        scheduler = self._open_scheduler()
        definition, key, payload = bind(self._services, handler, arg, key)
        await scheduler.room()
        kept = Kept.NOTHING
        if definition.kind is HandlerKind.RUN:
            kept = Kept.JOURNAL
            if scheduler.find_run(definition.service, key) is not None:
                await scheduler.answers.committed()
                raise Conflict(
                    f"run of {definition.service} was already started for key {key!r}; use submit "
                    "to attach to it"
                )
        output = await self._begin_and_wait(definition, key, payload, headers, kept)
        return decode_output(output, result_serde(definition, returns))

    @overload
    async def send(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[R]: ...
    @overload
    async def send(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[R]: ...
    @overload
    async def send(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[Any]: ...

    async def send(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationHandle[Any]:
        """Invoke *handler* and return once that is durable.

        A second ``run`` of a workflow on one key begins nothing: the handle is of the first, and
        ``accepted`` says so. Arguments and errors are those of :meth:`call`, without ``Conflict``.
        """
        scheduler = self._open_scheduler()
        definition, key, payload = bind(self._services, handler, arg, key)
        await scheduler.room()
        serde = result_serde(definition, returns)
        kept = Kept.OUTPUT
        if definition.kind is HandlerKind.RUN:
            kept = Kept.JOURNAL
            existing = scheduler.find_run(definition.service, key)
            if existing is not None:
                await scheduler.answers.committed()
                return InvocationHandle(
                    self._results, InvocationId(existing), Accepted.EXISTING, serde
                )
        instance = scheduler.admit(
            definition, key=key, argument=payload, headers=check_headers(headers), kept=kept
        )
        instance.accepted = accepted = asyncio.get_running_loop().create_future()
        await accepted
        return InvocationHandle(self._results, InvocationId(instance.id), Accepted.NEW, serde)

    @overload
    async def submit(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def submit(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R: ...
    @overload
    async def submit(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any: ...

    async def submit(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        returns: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a workflow's ``run`` on *key*, or attach to it if it was started; its result.

        Arguments and errors are those of :meth:`call`, without ``Conflict``. Attaching, *arg* is
        checked and not used.
        """
        scheduler = self._open_scheduler()
        definition, key, payload = bind(self._services, handler, arg, key)
        if definition.kind is not HandlerKind.RUN:
            raise InvalidInput(
                f"submit starts or attaches to a workflow's run; {definition.service}."
                f"{definition.name} is called with engine.call"
            )
        await scheduler.room()
        existing = scheduler.find_run(definition.service, key)
        if existing is not None:
            output = await self._results.wait(InvocationId(existing))
        else:
            output = await self._begin_and_wait(definition, key, payload, headers, Kept.JOURNAL)
        return decode_output(output, result_serde(definition, returns))

    async def _begin_and_wait(
        self,
        definition: HandlerDefinition,
        key: str,
        payload: bytes | None,
        headers: Mapping[str, str] | None,
        kept: Kept,
    ) -> Output:
        instance = self._open_scheduler().admit(
            definition, key=key, argument=payload, headers=check_headers(headers), kept=kept
        )
        answer = instance.answer = asyncio.get_running_loop().create_future()
        return cast(Output, await answer)

    # -- results and introspection ------------------------------------------------------------

    async def attach(self, invocation_id: str, returns: Any = None) -> Any:
        """Wait for the result of an invocation; *returns*: its type, else the handler's own.

        Raises:
          InvalidInput: Its handler is not registered here and *returns* is not given.
          NotFound: There is none with this id, or its result is not kept.
          TerminalError: As the invocation failed.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.wait(raw), serde)

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one now.

        Raises:
          NotReady: It has not completed.
          NotFound, TerminalError: As for :meth:`attach`.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.now(raw), serde)

    async def describe(self, invocation_id: str) -> Description:
        """Status, what it waits for, last failure and journal of an invocation.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.describe(parse_id(invocation_id))

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.resume(parse_id(invocation_id))
