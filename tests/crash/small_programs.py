"""Programs that are killed at one place, or hold a directory until they are killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import mixed_workload
from crash_support import die, note, particulars

import perdure
from perdure import WorkflowContext, WorkflowSharedContext, handler
from perdure._runtime import _purges, _residents

# -- steps --------------------------------------------------------------------------------------


class Order(perdure.Workflow):
    """Two steps, each of which answers with the life it ran in; killed where it is told to be."""

    def __init__(self, life: int, die_in: str) -> None:
        self._life = life
        self._die_in = die_in

    async def run(self, ctx: WorkflowContext, in_thread: bool) -> list[int]:
        if in_thread:
            charged = await ctx.run("charge", self.charge)
        else:
            charged = await ctx.run("charge", self.charge_async)
        self._reach("handler")
        return [charged, await ctx.run("ship", self.ship)]

    async def charge_async(self) -> int:
        return self.charge()

    def charge(self) -> int:
        return self._effect("charge")

    def ship(self) -> int:
        return self._effect("ship")

    def _effect(self, step: str) -> int:
        note("ran", step=step, token=perdure.step_token(), life=self._life)
        self._reach(step)
        return self._life

    def _reach(self, place: str) -> None:
        if self._die_in == place:
            die()


async def steps(path: str, life: int, die_in: str, in_thread: bool, max_resident: int) -> None:
    engine = perdure.Engine(path, [Order(life, die_in)], max_resident=max_resident)
    async with engine:
        note("result", value=await engine.submit(Order.run, in_thread, key="key"))


# -- sagas --------------------------------------------------------------------------------------


class Trip(perdure.Workflow):
    """Two bookings and no car: all is undone; killed in the action or compensation it is told."""

    def __init__(self, life: int, die_in: str) -> None:
        self._life = life
        self._die_in = die_in

    async def run(self, ctx: WorkflowContext) -> None:
        async with perdure.Saga(ctx) as saga:
            for what in ("flight", "hotel", "car"):
                await saga.step(f"book {what}", self.book, what, undo=self.cancel)

    async def book(self, what: str) -> None:
        self._effect(f"book {what}")
        if what == "car":
            raise perdure.TerminalError("no car left")

    async def cancel(self, what: str) -> None:
        self._effect(f"cancel {what}")

    def _effect(self, step: str) -> None:
        note("ran", step=step, life=self._life)
        if self._die_in == step:
            die()


async def saga(path: str, life: int, die_in: str, max_resident: int) -> None:
    async with perdure.Engine(path, [Trip(life, die_in)], max_resident=max_resident) as engine:
        try:
            await engine.submit(Trip.run, key="key")
        except perdure.TerminalError as error:
            note("failed", error=str(error))


# -- timers -------------------------------------------------------------------------------------


class StoppedClock:
    """A clock that stands still: what is due is due at once, the rest never."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        if when_ms <= self._now_ms:
            return loop.call_soon(callback)
        return asyncio.Handle(callback, (), loop)


class Sleeper(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, seconds: list[int]) -> list[int]:
        """Set a timer for each of *seconds*; them, in the order in which they fire."""
        timers: dict[perdure.DurableFuture[None], int] = {
            ctx.after(timedelta(seconds=delay)): delay for delay in seconds
        }
        fired: list[int] = []
        async for timer in ctx.wait(*timers):
            fired.append(timers[timer])
            # Written where the timer is delivered, not in a step; a replay writes it again.
            note("fired", seconds=timers[timer])
        return fired

    @handler
    async def ask(self, ctx: WorkflowSharedContext) -> str:
        note("asked")
        return ctx.key


async def timers(
    path: str, now_ms: int, max_resident: int, sleepers: list[list[int]], then: str
) -> None:
    """Begin *sleepers*, or go on with them; *then*: be killed, or wait for the results."""
    # A replay that takes longer than a slice goes on after the others, and its timer is delivered
    # later than it fired. Without slices deliveries show the order in which timers fired.
    patch.object(_residents, "SLICE_S", 60.0).start()
    clock = StoppedClock(now_ms)
    engine = perdure.Engine(path, [Sleeper()], clock=clock, max_resident=max_resident)
    async with engine:
        if then == "ask":
            await engine.call(Sleeper.ask, key="0")
        runs = list(enumerate(sleepers))
        sends = [engine.send(Sleeper.run, seconds, key=str(key)) for key, seconds in runs]
        handles = await asyncio.gather(*sends)
        if then == "die":
            die()
        for handle in handles:
            note("result", value=await handle.result())


# -- purges -------------------------------------------------------------------------------------


class Kept(perdure.Workflow):
    """Leaves a journal of some chunks, state and a promise."""

    async def run(self, ctx: WorkflowContext) -> str:
        ctx.set("state", 1)
        for number in range(4):
            await ctx.run(f"step {number}", lambda: None)
        return await ctx.promise("go", str)

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go", str).resolve("went")

    @handler
    async def waits(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.promise("never", str)


class Unkept(Kept, retention=0):
    pass


async def begin_purges(path: str, now_ms: int, max_resident: int) -> None:
    """Leave what :func:`purges` removes: a workflow of each kind, who waits, an early promise."""
    clock = StoppedClock(now_ms)
    services = [Kept(), Unkept()]
    async with perdure.Engine(path, services, clock=clock, max_resident=max_resident) as engine:
        kept = await engine.send(Kept.run, key="key")
        unkept = await engine.send(Unkept.run, key="key")
        waits = [await engine.send(cls.waits, key="key") for cls in (Kept, Unkept)]
        waits.append(await engine.send(Kept.waits, key="early"))
        await engine.call(Kept.go, key="key")
        await engine.call(Kept.go, key="early")
        await kept.result()
        note("begun", kept=kept.id, unkept=unkept.id, waits=[each.id for each in waits])


async def purges(
    path: str,
    now_ms: int,
    max_resident: int,
    by_hand: bool,
    begun: dict[str, Any],
    die_at: list[Any] | None = None,
) -> None:
    """Have all that :func:`begin_purges` left go, or be killed on the way."""
    patch.object(_purges, "CHUNKS_PER_UNIT", 2).start()
    if die_at is not None:
        mixed_workload.die_at(*die_at)
    clock = StoppedClock(now_ms)
    services = [Kept(), Unkept()]
    async with perdure.Engine(path, services, clock=clock, max_resident=max_resident) as engine:
        with contextlib.suppress(perdure.AlreadyCompleted, perdure.NotFound):  # before the kill
            unkept = await engine.describe(begun["unkept"])
            if unkept.status is not perdure.Status.COMPLETED:
                await engine.call(Unkept.go, key="key")
        if by_hand:
            with contextlib.suppress(perdure.NotFound):  # before the kill
                await engine.purge(begun["kept"])
        waits = begun["waits"][: 2 if by_hand else 3]  # the last is of the key that never ran
        for invocation_id in (*waits, begun["kept"], begun["unkept"]):
            try:
                while True:  # its long journal goes first
                    await engine.attach(invocation_id, str)
                    await asyncio.sleep(0.001)
            except perdure.NotFound as gone:
                note("gone", id=invocation_id, why=str(gone))


# -- the directory ------------------------------------------------------------------------------


async def owner(path: str) -> None:
    """Open the directory and keep it, or say why not."""
    try:
        async with perdure.Engine(path, []):
            note("open")
            await asyncio.Event().wait()
    except perdure.DataDirectoryInUse as refusal:
        note("refused", why=str(refusal))


PROGRAMS: dict[str, Callable[..., Any]] = {
    "steps": steps,
    "saga": saga,
    "timers": timers,
    "begin_purges": begin_purges,
    "purges": purges,
    "owner": owner,
}

if __name__ == "__main__":
    logging.getLogger("perdure").setLevel(logging.ERROR)
    options = particulars()
    asyncio.run(PROGRAMS[options.pop("run")](**options))
