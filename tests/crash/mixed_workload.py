"""A program that is killed: an engine on a real directory, and clients that write all down.

A step writes down that it runs (``ran``) before anything else: its token, what the handler had been
told when it issued the step (``saw``), and which steps were settled by then. A step starts after
the commit of its command, and its command comes after the answers that the handler had been given.
So the note also says that those answers are durable: none of the settled steps may ever run again.

A client writes an acknowledgement down when it has it, and not before.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import zlib
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from crash_support import die, note, particulars

import perdure
from perdure import (
    AlreadyCompleted,
    Context,
    RetryPolicy,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._store import Store

SOON = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=None)
TWICE = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=2)

_met: set[str] = set()  # what has failed once in this process
_random = random.Random()


def meets_first(what: str) -> bool:
    """Whether this process comes here for the first time."""
    first = what not in _met
    _met.add(what)
    return first


def one_of(key: str, count: int) -> int:
    """A number below *count* that is a property of the key."""
    return zlib.crc32(key.encode()) % count


Told = tuple[list[str], list[str]]
"""What the handler saw, and the steps that are settled."""


def ran(key: str, step: str, told: Told) -> None:
    saw, settled = told
    note("ran", key=key, step=step, token=perdure.step_token(), saw=saw, settled=settled)


async def work(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    await asyncio.sleep(0)
    return f"did {step}"


def work_in_thread(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    return f"did {step}"


async def fail_once(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    if meets_first(perdure.step_token()):
        raise ConnectionError("once in each process")
    return f"did {step}"


def fail_once_in_thread(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    if meets_first(perdure.step_token()):
        raise ConnectionError("once in each process")
    return f"did {step}"


async def fail(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    raise ConnectionError("always")


async def refuse(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    raise TerminalError("refused", 422)


async def never_end(key: str, step: str, told: Told) -> str:
    ran(key, step, told)
    await asyncio.Event().wait()
    return "ended"


class Trail:
    """Issues the steps of one run, and collects what it is told."""

    def __init__(self, ctx: Context, key: str) -> None:
        self._ctx = ctx
        self._key = key
        self.saw: list[str] = []
        self.settled: list[str] = []

    def step(
        self, name: str, fn: Callable[[str, str, Told], Any], retry: RetryPolicy | None = None
    ) -> perdure.DurableFuture[str]:
        told = list(self.saw), list(self.settled)
        return self._ctx.run(name, fn, self._key, name, told, retry=retry, returns=str)

    def see(self, what: str, *settled: str) -> None:
        self.saw.append(what)
        self.settled += settled

    async def do(self, name: str, fn: Callable[[str, str, Told], Any]) -> None:
        self.see(await self.step(name, fn), name)


class Mixed(perdure.Workflow):
    """Uses everything once, and returns what it was told."""

    async def run(self, ctx: WorkflowContext, delay: float) -> list[str]:
        trail = Trail(ctx, ctx.key)
        ctx.set("stages", 1)
        await trail.do("first", work)
        await trail.do("in thread", work_in_thread)
        await self._retried(ctx, trail)
        await ctx.sleep(0.002)
        if one_of(ctx.key, 3) == 0 and meets_first(ctx.key):
            raise ConnectionError("the handler's own failure, once in each process")
        await self._together(ctx, trail)
        await self._cancelled(ctx, trail)
        await self._raced(ctx, trail, delay)
        await trail.do("last", work_in_thread)
        stages = await ctx.get("stages", int, 0)
        ctx.set("stages", stages + 1)
        trail.see(f"{stages} stages")
        return trail.saw

    async def _retried(self, ctx: WorkflowContext, trail: Trail) -> None:
        await trail.do("retried", fail_once)
        await trail.do("retried in thread", fail_once_in_thread)
        try:
            await trail.step("hopeless", fail, TWICE)
        except TerminalError:
            trail.see("gave up", "hopeless")
        ctx.set("stages", (await ctx.get("stages", int, 0)) + 1)

    async def _together(self, ctx: WorkflowContext, trail: Trail) -> None:
        values = await asyncio.gather(
            trail.step("a", work), trail.step("b", work_in_thread), trail.step("c", fail_once)
        )
        trail.see(" ".join(values), "a", "b", "c")
        steps = [trail.step(name, fn) for name, fn in (("x", work), ("y", work_in_thread))]
        order = [await step async for step in ctx.wait(*steps)]
        trail.see(" then ".join(order), "x", "y")
        ctx.set("stages", (await ctx.get("stages", int, 0)) + 1)

    async def _cancelled(self, ctx: WorkflowContext, trail: Trail) -> None:
        """Steps that lose: to a timeout, to a failed sibling, to a faster one."""

        async def wait(step: perdure.DurableFuture[str]) -> None:
            await step

        try:
            await asyncio.wait_for(trail.step("slow", never_end), 0.003)
        except TimeoutError:
            trail.see("timed out", "slow")
        await trail.do("after slow", work)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait(trail.step("stuck", never_end)))
                group.create_task(wait(trail.step("refused", refuse)))
        except* TerminalError:
            trail.see("refused", "stuck", "refused")
        await trail.do("after stuck", work_in_thread)
        quick, loser = trail.step("quick", work), trail.step("loser", never_end)
        if await ctx.wait_first(loser, quick) is quick:
            loser.cancel()
            trail.see("quick was first", "quick", "loser")
        await trail.do("after loser", work)

    async def _raced(self, ctx: WorkflowContext, trail: Trail, delay: float) -> None:
        approval = ctx.promise("approval", str)
        deadline = ctx.after(delay)
        first = await ctx.wait_first(deadline, approval)
        trail.see("approval first" if first is approval else "deadline first")
        await trail.do("after race", work)
        await asyncio.sleep(0.001)
        trail.see(await approval)

    @handler
    async def approve(self, ctx: WorkflowSharedContext, value: str) -> str:
        await ctx.promise("approval", str).resolve(value)
        return value

    @handler
    async def stages(self, ctx: WorkflowSharedContext) -> int:
        return await ctx.get("stages", int, 0)


class Short(perdure.Workflow):
    """Uses little, so that it can be killed at each point."""

    async def run(self, ctx: WorkflowContext) -> list[str]:
        trail = Trail(ctx, ctx.key)
        await trail.do("retried", fail_once)
        try:
            await asyncio.wait_for(trail.step("slow", never_end), 0.001)
        except TimeoutError:
            trail.see("timed out", "slow")
        await trail.do("in thread", work_in_thread)
        trail.see(await ctx.promise("approval", str))
        await trail.do("last", work)
        return trail.saw

    @handler
    async def approve(self, ctx: WorkflowSharedContext, value: str) -> str:
        await ctx.promise("approval", str).resolve(value)
        return value


class Plain(perdure.Service):
    @handler
    async def steps(self, ctx: Context, name: str) -> list[str]:
        trail = Trail(ctx, name)
        await trail.do("first", work_in_thread)
        await trail.do("last", fail_once)
        return trail.saw


# -- clients ----------------------------------------------------------------------------------


async def approve(engine: perdure.Engine, handler: Any, key: str, value: str) -> None:
    note("resolving", key=key, value=value)
    try:
        note("resolved", key=key, value=await engine.call(handler, value, key=key))
    except AlreadyCompleted:
        note("refused", key=key)


def accept(key: str, handle: perdure.InvocationHandle[Any]) -> None:
    note("accepted", key=key, id=handle.id, new=handle.accepted is perdure.Accepted.NEW)


async def mixed(engine: perdure.Engine, key: str, life: int) -> None:
    handle = await engine.send(Mixed.run, 0.02 * one_of(key, 2), key=key)
    accept(key, handle)
    await asyncio.sleep(_random.random() * 0.04)  # so that either may win the race
    await approve(engine, Mixed.approve, key, f"yes, in life {life}")
    note("result", kind="mixed", id=handle.id, key=key, value=await handle.result())
    note("stages", key=key, value=await engine.call(Mixed.stages, key=key))


async def short(engine: perdure.Engine, key: str, life: int) -> None:
    handle = await engine.send(Short.run, key=key)
    accept(key, handle)
    await approve(engine, Short.approve, key, f"yes, in life {life}")
    note("result", kind="short", id=handle.id, key=key, value=await handle.result())


async def plain(engine: perdure.Engine, key: str) -> None:
    sent, called = f"sent {key}", f"called {key}"
    handle = await engine.send(Plain.steps, sent)
    accept(sent, handle)
    note("called", kind="plain", key=called, value=await engine.call(Plain.steps, called))
    note("result", kind="plain", id=handle.id, key=sent, value=await handle.result())


async def again(engine: perdure.Engine, key: str, invocation_id: str) -> None:
    value = await engine.attach(invocation_id)
    note("result", kind="plain", id=invocation_id, key=key, value=value)


def die_at(event: str, count: int) -> None:
    """Be killed at an event of the store, before anybody hears of it.

    Args:
      event: ``sealed``: a unit is durable, and who sealed it goes no further. ``committed``: units
        are durable, and nothing that waited for them is released.
      count: The how manieth, from 1.
    """
    seal, on_event = Store.seal, Store.on_event
    numbers = itertools.count(1)

    def sealed(store: Store) -> int:
        before = store.sealed
        unit = seal(store)
        if unit > before and next(numbers) == count:
            store.wait_committed(unit)
            die()
        return unit

    def committed(store: Store) -> None:
        if next(numbers) == count:
            die()
        on_event(store)

    if event == "sealed":
        patch.object(Store, "seal", sealed).start()
    else:
        patch.object(Store, "on_event", committed).start()


async def main(path: str, life: int, max_resident: int, **load: Any) -> None:
    """Carry on with what earlier lives began.

    Args:
      mixed, short: Keys of workflows to begin or to go on with.
      plain: Names of service calls to make.
      again: (name, id) of invocations whose results are to be had again.
      die_at: See there.
      finish: Whether to end when all is done, and not to wait for the kill.
    """
    if "die_at" in load:
        die_at(*load["die_at"])
    note("opening")
    engine = perdure.Engine(
        path,
        [Mixed(), Short(), Plain()],
        durability="fsync",
        max_resident=max_resident,
        default_retry=SOON,
    )
    async with engine:
        async with asyncio.TaskGroup() as clients:
            for key in load.get("mixed", ()):
                clients.create_task(mixed(engine, key, life))
            for key in load.get("short", ()):
                clients.create_task(short(engine, key, life))
            for key in load.get("plain", ()):
                clients.create_task(plain(engine, key))
            for key, invocation_id in load.get("again", ()):
                clients.create_task(again(engine, key, invocation_id))
        note("idle")
        if not load["finish"]:
            await asyncio.Event().wait()


if __name__ == "__main__":
    logging.getLogger("perdure").setLevel(logging.ERROR)
    asyncio.run(main(**particulars()))
