"""Programs that run in a child with too few descriptors, or with too little memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from pathlib import Path
from typing import Any

from failing_children import check_kept, engine_on, work

from perdure import Engine, PerdureError, RetryPolicy, Workflow, WorkflowContext
from perdure._store import Db, Store
from perdure.errors import StoreError

MIB = 1 << 20


def _exhaust(leave: int) -> list[int]:
    """Open files until *leave* more can be opened."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(leave):
        os.close(taken.pop())
    return taken


def open_with_ever_more_descriptors(path: str) -> None:
    """What opening says with 0, 1, … free descriptors, until it succeeds."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    asyncio.run(_open_with_ever_more_descriptors(Path(path)))


async def _open_with_ever_more_descriptors(path: Path) -> None:
    effects: list[str] = []
    acknowledged: list[str] = []
    async with engine_on(path, effects) as engine:
        await work(engine, acknowledged, 3)
    said = []
    for leave in range(40):
        taken = _exhaust(leave)
        engine = engine_on(path, effects)
        failure: BaseException | None = None
        try:
            await engine.open()
        except BaseException as error:
            failure = error
        finally:
            for descriptor in taken:
                os.close(descriptor)
        await engine.close()
        await check_kept(path, acknowledged, effects)
        if failure is None:
            break
        assert isinstance(failure, StoreError), repr(failure)
        said.append(str(failure))
    print(json.dumps(said))


def _address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Opens(Workflow):
    """Its step opens a file."""

    async def run(self, ctx: WorkflowContext) -> int:
        return await ctx.run("open", self.open)

    def open(self) -> int:
        with open("/dev/null", "rb") as file:
            return len(file.read())


def run_out_of_descriptors(path: str) -> None:
    """Commits go on with none free; a step that needs one fails, and is tried again."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    asyncio.run(_run_out_of_descriptors(Path(path)))


async def _run_out_of_descriptors(path: Path) -> None:
    effects: list[str] = []
    acknowledged: list[str] = []
    async with engine_on(path, effects) as engine:
        await work(engine, acknowledged, 3)
        taken = _exhaust(0)
        await work(engine, acknowledged, 20)
        for descriptor in taken:
            os.close(descriptor)
        await work(engine, acknowledged, 3)
    await check_kept(path, acknowledged, effects)
    retry = RetryPolicy(initial=0.01, factor=1, max_interval=0.01, max_attempts=1000)
    opens = Engine(path.with_name("opens"), [Opens()], default_retry=retry, stall_warning=None)
    async with opens as engine:
        taken = _exhaust(0)
        handle = await engine.send(Opens.run, key="k")
        while (  # noqa: ASYNC110 - nothing tells of a failed attempt
            description := await engine.describe(handle.id)
        ).last_failure is None:
            await asyncio.sleep(0.001)
        print(description.last_failure)
        for descriptor in taken:
            os.close(descriptor)
        assert await handle.result() == 0


def open_a_large_map(path: str) -> None:
    """More address space than the process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    try:
        Store(path)
    except StoreError as error:
        print(error)
    with contextlib.closing(Store(path, map_size=1 << 30)) as store:
        store.put(Db.STATE, b"g", b"s", b"v")
        store.wait_committed(store.seal())


def outgrow_the_map(path: str) -> None:
    """The map can not grow any more: the address space is used up."""
    asyncio.run(_outgrow_the_map(Path(path)))


async def _outgrow_the_map(path: Path) -> None:
    effects: list[str] = []
    acknowledged: list[str] = []
    async with engine_on(path, effects, map_size=1 << 20) as engine:
        await work(engine, acknowledged, 3)
        limit = _address_space() + 2 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            await work(engine, acknowledged, 3000)
        except PerdureError as error:
            print(f"{type(error).__name__}: {error}")
        except MemoryError as error:
            print(f"MemoryError: {error}")
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with contextlib.suppress(PerdureError):
            await engine.close()
    await check_kept(path, acknowledged, effects)
    print(len(acknowledged))


class Greedy(Workflow):
    """Wants more memory than there is, in its handler or in a step."""

    async def run(self, ctx: WorkflowContext, where: str) -> int:
        if where == "handler":
            return len(bytearray(512 * MIB))
        if where == "step":
            return await ctx.run("much", lambda: len(bytearray(512 * MIB)))
        return await ctx.run("much", self.much)

    async def much(self) -> int:
        return len(bytearray(512 * MIB))


def run_out_of_memory(path: str) -> None:
    """Under a limit, what wants too much fails; all else goes on."""
    asyncio.run(_run_out_of_memory(Path(path)))


async def _run_out_of_memory(path: Path) -> None:
    quick = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=2)
    said: dict[str, Any] = {}
    ids: dict[str, str] = {}
    places = ("handler", "step", "async step")
    engine = Engine(
        path, [Greedy()], default_retry=quick, map_size=1 << 30, step_threads=1, stall_warning=None
    )
    async with engine:
        await engine.submit(Greedy.run, "step", key="kept")
        limit = _address_space() + 100 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        for where in places:
            handle = await engine.send(Greedy.run, where, key=where)
            ids[where] = handle.id
            while True:
                description = await engine.describe(handle.id)
                if description.status in ("paused", "completed"):
                    break
                await asyncio.sleep(0.001)
            said[where] = [str(description.status), description.last_failure]
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert engine.is_open
        for where in ("kept", *places):
            if where != "kept":
                await engine.resume(ids[where])
            assert await engine.submit(Greedy.run, where, key=where) == 512 * MIB
    print(json.dumps(said))
