"""Cancelling and killing: whatever state an invocation is in, and all that it has called."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, scheduler_of, until, until_status
from stalled_disk import StalledDisk

from perdure import (
    Cancelled,
    Context,
    InvalidInput,
    InvocationFilter,
    Killed,
    NotFound,
    ObjectContext,
    Service,
    Status,
    StoreCorrupt,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
)
from perdure._ids import parse_id

SEEN: list[str] = []


class Tree(VirtualObject):
    """Each calls the next; the last waits."""

    @handler
    async def call(self, ctx: ObjectContext, depth: int) -> str:
        if not depth:
            await ctx.sleep(3600)
        return await ctx.call(Tree.call, depth - 1, key=f"{ctx.key}.")

    @handler
    async def free(self, ctx: ObjectContext) -> str:
        return "free"


class Saga(Workflow):
    broken = False

    async def run(self, ctx: WorkflowContext) -> str:
        if self.broken:
            raise RuntimeError("broken")
        try:
            await ctx.sleep(3600)
        except asyncio.CancelledError:
            await ctx.run("undo", self.undo)
            await ctx.sleep(0.001)
            raise
        return "done"

    def undo(self) -> None:
        SEEN.append("undone")


class Stubborn(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        for _ in range(2):
            try:
                await ctx.sleep(3600)
            except asyncio.CancelledError:
                continue
        return "survived two"


class Parent(Service):
    @handler
    async def cancel_call(self, ctx: Context) -> Any:
        call = ctx.call(Tree.call, 1, key="c")
        await ctx.sleep(0.001)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return await ctx.call(Tree.free, key="c")

    @handler
    async def cancel_by_id(self, ctx: Context, invocation_id: str) -> str:
        ctx.cancel(invocation_id)
        return "asked"

    @handler
    async def fork(self, ctx: Context) -> list[str]:
        left = ctx.call(Tree.call, 0, key="left")
        right = ctx.call(Tree.call, 0, key="right")
        return [await left, await right]

    @handler
    async def raises_it(self, ctx: Context) -> str:
        raise asyncio.CancelledError("nobody asked")


def engine_of(place: Place, **options: Any) -> Any:
    return place.engine(Tree(), Saga(), Stubborn(), Parent(), **options)


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_a_blocked_tree_ends_from_outside_and_its_keys_are_free(place: Place, verb: str) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            root = await engine.send(Tree.call, 3, key="t")
            await until_status(engine, root, Status.SUSPENDED)
            waiting = [await engine.send(Tree.free, key="t" + "." * n) for n in range(4)]
            assert await getattr(engine, verb)(root.id)
            for each in waiting:
                assert await each.result() == "free"
            with pytest.raises(Cancelled if verb == "cancel" else Killed) as caught:
                await root.result()
            assert caught.value.code == 409
            assert not await getattr(engine, verb)(root.id)

    run(main())


def test_a_handler_cancels_its_call_and_another_invocation(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            assert await engine.call(Parent.cancel_call) == "free"
            root = await engine.send(Tree.call, 0, key="x")
            assert await engine.call(Parent.cancel_by_id, root.id) == "asked"
            with pytest.raises(Cancelled):
                await root.result()

    run(main())


def test_a_cancelled_handler_compensates_durably(place: Place) -> None:
    async def main() -> None:
        SEEN.clear()
        async with engine_of(place) as engine:
            saga = await engine.send(Saga.run, key="s")
            await until_status(engine, saga, Status.SUSPENDED)
            assert await saga.cancel()
            with pytest.raises(Cancelled):
                await saga.result()
            assert SEEN == ["undone"]
            description = await engine.describe(saga.id)
            assert description.status is Status.COMPLETED
            assert "cancellation" in [entry.kind for entry in description.journal]

    run(main())


def test_cancelling_is_repeatable_and_can_be_survived(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            handle = await engine.send(Stubborn.run, key="s")
            for _ in range(2):
                await until_status(engine, handle, Status.SUSPENDED)
                assert await handle.cancel()
            assert await handle.result() == "survived two"

    run(main())


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_what_has_not_begun_ends_without_running(place: Place, verb: str) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            scheduled = await engine.send(Tree.free, key="t", delay=3600)
            holder = await engine.send(Tree.call, 0, key="t")
            queued = await engine.send(Tree.free, key="t")
            behind = await engine.send(Tree.free, key="t")
            for each in (scheduled, queued):
                assert await getattr(engine, verb)(each.id)
                with pytest.raises((Cancelled, Killed)):
                    await each.result()
            assert await getattr(engine, verb)(holder.id)
            assert await behind.result() == "free"

    run(main())


def test_what_backs_off_or_is_paused_is_cancelled(place: Place) -> None:
    async def main() -> None:
        quiet_log()
        saga = Saga()
        async with place.engine(saga) as engine:
            saga.broken = True
            paused = await engine.send(Saga.run, key="paused")
            await until_status(engine, paused, Status.PAUSED)
            assert await paused.cancel()
            with pytest.raises(Cancelled):
                await paused.result()
            saga.broken = False
            by_hand = await engine.send(Saga.run, key="by hand")
            await until_status(engine, by_hand, Status.SUSPENDED)
            assert await engine.pause(by_hand.id)
            assert (await engine.describe(by_hand.id)).status is Status.PAUSED
            assert await by_hand.cancel()
            with pytest.raises(Cancelled):
                await by_hand.result()

    run(main())


def test_pause_and_resume_by_hand(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            handle = await engine.send(Stubborn.run, key="s")
            await until_status(engine, handle, Status.SUSPENDED)
            assert await engine.pause(handle.id)
            assert await engine.resume(handle.id)
            await until_status(engine, handle, Status.SUSPENDED)
            assert await engine.resume(handle.id) is False

    run(main())


def test_a_cancelled_error_that_nobody_asked_for_is_a_failure(place: Place) -> None:
    async def main() -> None:
        quiet_log()
        async with engine_of(place) as engine:
            handle = await engine.send(Parent.raises_it)
            await until_status(engine, handle, Status.PAUSED)
            assert "nobody cancelled it" in str((await engine.describe(handle.id)).last_failure)

    run(main())


@pytest.mark.parametrize("verb", ["cancel", "kill", "pause", "resume"])
def test_bad_ids(place: Place, verb: str) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            for bad in ("", "x", "inv_", 5, None):
                with pytest.raises(InvalidInput):
                    await getattr(engine, verb)(bad)
            with pytest.raises(NotFound):
                await getattr(engine, verb)("inv_" + "0" * 26)

    run(main())


def test_what_belongs_to_no_service_here_can_be_killed(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            saga = await engine.send(Saga.run, key="s")
            holder = await engine.send(Tree.call, 0, key="k")
            await until_status(engine, saga, Status.SUSPENDED)
            await until_status(engine, holder, Status.SUSPENDED)
            waiting = await engine.send(Tree.free, key="k")
        async with place.engine(Stubborn()) as engine:
            for each in (saga, holder):
                assert (await engine.describe(each.id)).status is Status.BLOCKED
                assert await engine.kill(each.id)
        async with engine_of(place) as engine:
            with pytest.raises(Killed):
                await engine.attach(saga.id)
            assert await engine.attach(waiting.id) == "free"

    run(main())


@contextlib.contextmanager
def damaged_journal(engine: Any, invocation_id: str) -> Iterator[None]:
    """The journal of one invocation can not be read."""
    store = scheduler_of(engine).store
    read = store.journal

    def journal(raw: bytes, *args: Any, **options: Any) -> Any:
        if raw == parse_id(invocation_id):
            raise StoreCorrupt("a damaged row")
        return read(raw, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "journal", journal)
        yield


async def fork_of(engine: Any) -> tuple[Any, str]:
    """An invocation that waits for two others, and the id of the one it has called last."""
    root = await engine.send(Parent.fork)
    await until_status(engine, root, Status.SUSPENDED)
    page = await engine.invocations(InvocationFilter(service=Tree, key="right"))
    return root, page.items[0].id


def test_a_damaged_journal_keeps_its_own_invocation_alone_from_being_killed(place: Place) -> None:
    async def main() -> None:
        async with engine_of(place) as engine:
            root, damaged = await fork_of(engine)
            with damaged_journal(engine, damaged):
                with pytest.raises(StoreCorrupt, match="a damaged row"):
                    await engine.kill(root.id)
                with pytest.raises(Killed):
                    await root.result()
                assert await engine.call(Tree.free, key="left") == "free"
                with pytest.raises(StoreCorrupt, match="a damaged row"):
                    await engine.kill(damaged)
            assert await engine.kill(damaged)
            assert await engine.call(Tree.free, key="right") == "free"

    run(main())


def test_a_damaged_journal_does_not_stop_the_engine_when_the_kill_had_to_wait(
    resident_place: Place,
) -> None:
    async def main() -> None:
        quiet_log()
        async with engine_of(resident_place) as engine:
            handle = await engine.send(Stubborn.run, key="s")
            await until_status(engine, handle, Status.SUSPENDED)
            with damaged_journal(engine, handle.id):
                with StalledDisk(resident_place.path):
                    # It goes on, and has a unit that can not be read yet.
                    cancelled = asyncio.create_task(handle.cancel())
                    for _ in range(20):
                        await asyncio.sleep(0)
                    killed = asyncio.create_task(engine.kill(handle.id))
                    for _ in range(20):
                        await asyncio.sleep(0)
                    assert scheduler_of(engine).residents.ending
                assert await cancelled
                with pytest.raises(StoreCorrupt, match="a damaged row"):
                    await killed
            assert await engine.call(Tree.free, key="elsewhere") == "free"
            assert await engine.kill(handle.id)

    run(main())


def test_a_cancel_survives_a_restart(place: Place) -> None:
    async def main() -> None:
        SEEN.clear()
        async with engine_of(place) as engine:
            saga = await engine.send(Saga.run, key="s")
            await until_status(engine, saga, Status.SUSPENDED)
        async with place.engine(Tree()) as engine:  # the workflow is blocked here
            assert await engine.cancel(saga.id)
            assert (await engine.describe(saga.id)).status is Status.BLOCKED
        async with engine_of(place) as engine:
            with pytest.raises(Cancelled):
                await engine.attach(saga.id)
            await until(lambda: SEEN == ["undone"])

    run(main())
