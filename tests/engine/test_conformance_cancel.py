"""Conformance, cancelling and killing: a tree of invocations, wherever it is blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    run,
    until,
    until_idle,
    until_status,
)

from perdure import (
    Cancelled,
    Context,
    Engine,
    Killed,
    ObjectContext,
    RetryPolicy,
    Service,
    Status,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
)
from perdure._runtime import _residents

NEVER = RetryPolicy(initial=3600, factor=1, max_interval=3600, max_attempts=None)


async def never() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise ConnectionError("always")


class Blocker(VirtualObject):
    """The last of a tree: blocked on what it is told."""

    @handler
    async def block(self, ctx: ObjectContext, on: str) -> None:
        if on == "call":
            await ctx.call(Blocker.block, "sleep", key="callee")
        elif on == "sleep":
            await ctx.sleep(3600)
        elif on == "awakeable":
            await ctx.awakeable()
        elif on == "promise":
            await ctx.call(Promiser.run, key="p")
        elif on == "signal":
            await ctx.signal("never")
        elif on == "attach":
            ref = ctx.send(Blocker.block, "sleep", key="attached")
            await ctx.attach(await ref.invocation_id())
        elif on == "queue":
            await ctx.call(Blocker.block, "sleep", key="held")
        elif on == "step":
            await ctx.run("never", never)
        elif on == "step that backs off":
            await ctx.run("broken", broken, retry=NEVER)

    @handler
    async def free(self, ctx: ObjectContext) -> str:
        return "free"


class Middle(VirtualObject):
    @handler
    async def call(self, ctx: ObjectContext, on: str) -> None:
        await ctx.call(Blocker.block, on, key="last")

    @handler
    async def free(self, ctx: ObjectContext) -> str:
        return "free"


class Promiser(Workflow):
    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.promise("never")


class Root(Service):
    @handler
    async def call(self, ctx: Context, on: str) -> None:
        await ctx.call(Middle.call, on, key="middle")

    @handler
    async def cancel(self, ctx: Context, invocation_id: str) -> None:
        ctx.cancel(invocation_id)


PLACES = [
    *("call", "sleep", "awakeable", "promise", "signal", "attach", "queue"),
    *("step", "step that backs off"),
]


def tree_engine(place: Place, **options: Any) -> Engine:
    return place.engine(Root(), Middle(), Blocker(), Promiser(), **options)


@pytest.mark.parametrize("how", ["cancel", "cancel from a handler", "cancel after restart", "kill"])
@pytest.mark.parametrize("on", PLACES)
def test_a_tree_ends_wherever_it_is_blocked_and_its_keys_are_free(
    place: Place, on: str, how: str
) -> None:
    async def end(engine: Engine, root: str) -> None:
        if how == "cancel from a handler":
            await engine.call(Root.cancel, root)
        elif how == "kill":
            assert await engine.kill(root)
        else:
            assert await engine.cancel(root)
        with pytest.raises(Killed if how == "kill" else Cancelled):
            await engine.attach(root)
        for key in ("last", "callee"):
            assert await engine.call(Blocker.free, key=key) == "free"
        assert await engine.call(Middle.free, key="middle") == "free"

    async def main() -> None:
        quiet_log()
        async with tree_engine(place, drain_timeout=0) as engine:
            held = await engine.send(Blocker.block, "sleep", key="held")
            root = await engine.send(Root.call, on)
            await until_status(engine, root, Status.SUSPENDED)
            if not on.startswith("step"):
                await until_idle(engine)
            else:
                await asyncio.sleep(0.01)
            if how != "cancel after restart":
                await end(engine, root.id)
        async with tree_engine(place, drain_timeout=0) as engine:
            if how == "cancel after restart":
                await end(engine, root.id)
            assert (await engine.describe(held.id)).status is Status.SUSPENDED
            assert await engine.kill(held.id)

    run(main())


Body = Callable[[WorkflowContext], Awaitable[Any]]


class Script(Workflow):
    def __init__(self, main: Body) -> None:
        self.main = main

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.main(ctx)


async def in_finally(ctx: WorkflowContext) -> Any:
    try:
        await ctx.signal("go")
    finally:
        await ctx.sleep(0.001)
        ctx.set("cleaned", True)


async def in_task_group(ctx: WorkflowContext) -> Any:
    async def child(name: str) -> None:
        try:
            await ctx.signal(name)
        finally:
            ctx.set(name, True)

    async with asyncio.TaskGroup() as group:
        group.create_task(child("a"))
        group.create_task(child("b"))


async def in_gather(ctx: WorkflowContext) -> Any:
    await asyncio.gather(ctx.signal("a"), ctx.call(Blocker.block, "sleep", key="g"))


async def in_shield(ctx: WorkflowContext) -> Any:
    await asyncio.shield(ctx.run("never", never))


async def in_timeout(ctx: WorkflowContext) -> Any:
    async with asyncio.timeout(3600):
        await ctx.signal("go")


async def in_wait_for(ctx: WorkflowContext) -> Any:
    await asyncio.wait_for(ctx.awakeable(), 3600)


async def in_wait(ctx: WorkflowContext) -> Any:
    async for _ in ctx.wait(ctx.signal("a"), ctx.call(Blocker.block, "awakeable", key="w")):
        pass


async def in_first(ctx: WorkflowContext) -> Any:
    await ctx.wait_first(ctx.signal("a"), ctx.promise("p"), ctx.after(3600))


async def in_event(ctx: WorkflowContext) -> Any:
    event = asyncio.Event()

    async def set_it() -> None:
        await ctx.signal("go")
        event.set()

    task = asyncio.create_task(set_it())
    await event.wait()
    await task


BODIES: list[Body] = [
    *(in_finally, in_task_group, in_gather, in_shield, in_timeout, in_wait_for, in_wait),
    *(in_first, in_event),
]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_cancel_reaches_a_handler_inside_asyncio(place: Place, body: Body, restart: bool) -> None:
    async def main() -> None:
        async with place.engine(Script(body), Blocker(), drain_timeout=0) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED, Status.RUNNING)
            if not restart:
                assert await handle.cancel()
                with pytest.raises(Cancelled):
                    await handle.result()
        async with place.engine(Script(body), Blocker(), drain_timeout=0) as engine:
            if restart:
                assert await engine.cancel(handle.id)
            with pytest.raises(Cancelled):
                await engine.attach(handle.id)
            for key in ("g", "w"):
                assert await engine.call(Blocker.free, key=key) == "free"

    run(main())


def test_a_cancel_during_the_clean_up_of_another_ends_the_clean_up_too(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        try:
            await ctx.signal("go")
        finally:
            await ctx.signal("cleaned")

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            assert await handle.cancel()
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED
            assert await handle.cancel()
            with pytest.raises(Cancelled):
                await handle.result()
            assert not await handle.cancel()

    run(session())


def test_two_cancels_before_the_first_is_delivered_are_one(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        try:
            await ctx.signal("go")
        except asyncio.CancelledError:
            await ctx.sleep(0.001)
            return "undone"

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            assert await engine.pause(handle.id)
        async with place.engine() as engine:  # nothing is delivered here
            assert await engine.cancel(handle.id)
            assert await engine.cancel(handle.id)
        async with place.engine(Script(main)) as engine:
            assert await engine.attach(handle.id) == "undone"

    run(session())


def test_a_cancel_comes_before_a_notification_that_the_handler_fails_on(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        try:
            await ctx.signal("poison")
        except asyncio.CancelledError:
            await ctx.sleep(0.001)
            raise
        raise RuntimeError("can not digest it")

    async def session() -> None:
        quiet_log()
        async with place.engine(Script(main), default_retry=NEVER) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await engine.signal(handle.id, "poison", 1)
            await until_status(engine, handle, Status.BACKING_OFF)
            assert await handle.cancel()
            with pytest.raises(Cancelled):
                await handle.result()

    run(session())


def test_a_cancel_that_comes_while_the_handler_is_replayed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_residents, "SLICE_S", 0.0)
    monkeypatch.setattr(_residents, "CHUNKS_PER_LOOK", 1)
    undone: list[int] = []

    async def main(ctx: WorkflowContext) -> Any:
        for number in range(50):
            try:
                await ctx.signal("next", int)
            except asyncio.CancelledError:
                await ctx.run("undo", undone.append, number, returns=None)
                raise

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            handle = await engine.send(Script.run, key="k")
            for number in range(40):
                await engine.signal(handle.id, "next", number)
            await until_idle(engine)
        async with place.engine(Script(main)) as engine:
            await engine.signal(handle.id, "next", 40)
            await asyncio.sleep(0)  # it is being loaded
            await engine.cancel(handle.id)
            with pytest.raises(Cancelled):
                await engine.attach(handle.id)
        assert len(undone) == 1
        assert undone[0] in (40, 41)

    run(session())


def test_a_cancel_ends_a_step_that_backs_off_and_it_never_runs_again(place: Place) -> None:
    clock = ManualClock()
    ran: list[int] = []

    async def fail() -> None:
        ran.append(1)
        raise ConnectionError("no")

    async def main(ctx: WorkflowContext) -> Any:
        try:
            await ctx.run("fail", fail, retry=NEVER)
        except asyncio.CancelledError:
            await ctx.sleep(7200)
            return "undone"

    async def session() -> None:
        quiet_log()
        async with place.engine(Script(main), clock=clock) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.BACKING_OFF)
            assert await handle.cancel()
            await until_idle(engine)
            clock.advance(3601)
            await until_idle(engine)
            clock.advance(3601)
            assert await handle.result() == "undone"
            assert ran == [1]

    run(session())


def test_a_call_that_times_out_goes_on_and_can_be_had_later(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        call = ctx.call(Slow.work)
        try:
            await asyncio.wait_for(call, 0.005)
        except TimeoutError:
            late = ctx.attach(await call.invocation_id(), str)
            return [await call, await late]

    async def session() -> None:
        slow = Slow()
        async with place.engine(Script(main), slow) as engine:
            handle = await engine.send(Script.run, key="k")
            await until(lambda: slow.waiting)
            await asyncio.sleep(0.02)
            slow.gate.set()
            assert await handle.result() == ["worked", "worked"]

    run(session())


class Slow(Service):
    def __init__(self) -> None:
        self.waiting = False
        self.gate = asyncio.Event()

    async def wait(self) -> str:
        self.waiting = True
        await self.gate.wait()
        return "worked"

    @handler
    async def work(self, ctx: Context) -> str:
        return await ctx.run("wait", self.wait)


def test_a_handler_that_ends_leaves_its_calls_going_on(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        call = ctx.call(Slow.work)
        await ctx.sleep(0.001)
        return await call.invocation_id()

    async def session() -> None:
        slow = Slow()
        async with place.engine(Script(main), slow) as engine:
            child = await engine.submit(Script.run, key="k")
            await until(lambda: slow.waiting)
            result = asyncio.create_task(engine.attach(child, str))
            await until_status(engine, child, Status.RUNNING)
            slow.gate.set()
            assert await result == "worked"

    run(session())


def test_cancelling_a_call_gives_its_failure_to_nobody_else(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        first, second = (ctx.call(Blocker.block, "sleep", key=key) for key in ("1", "2"))
        await ctx.sleep(0.001)
        assert first.cancel()
        assert not first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TerminalError) as caught:
            await ctx.attach(await first.invocation_id())
        assert not second.done()
        second.cancel()
        return type(caught.value).__name__, caught.value.code

    async def session() -> None:
        async with place.engine(Script(main), Blocker()) as engine:
            assert await engine.submit(Script.run, key="k") == ["Cancelled", 409]

    run(session())
