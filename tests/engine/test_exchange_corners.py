"""Corners of what goes between invocations: rows that must not dangle, messages not lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from crash_points import copies_after_each_unit
from engine_support import ManualClock, Place, quiet_log, run, until_idle, until_status
from invariants import violations
from stalled_disk import StalledDisk

from perdure import (
    Conflict,
    Context,
    InvalidInput,
    Killed,
    ObjectContext,
    Service,
    Status,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


class Ticket(VirtualObject):
    @handler
    async def take(self, ctx: ObjectContext, name: str) -> list[str]:
        names = [*(await ctx.get("names", list[str], [])), name]
        ctx.set("names", names)
        return names

    @handler
    async def hold(self, ctx: ObjectContext) -> str:
        return await ctx.signal("let go", str)


class Hasty(Workflow):
    """Asks for things, and ends before they come."""

    async def run(self, ctx: WorkflowContext) -> str:
        return "ran"

    @handler
    async def complete(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("news", str).resolve("good")

    @handler
    async def look(self, ctx: WorkflowSharedContext) -> bool:
        return ctx.promise("news", str).done()

    @handler
    async def attach(self, ctx: WorkflowSharedContext, invocation_id: str) -> bool:
        return ctx.attach(invocation_id, str).done()

    @handler
    async def to_itself(self, ctx: WorkflowSharedContext) -> str:
        ctx.cancel(ctx.invocation_id)
        awakeable = ctx.awakeable(int)
        await ctx.resolve_awakeable(awakeable.id, 1)
        return "went"


class Script(Workflow):
    def __init__(self, main: Any) -> None:
        self.main = main

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.main(ctx)


class Chain(Service):
    @handler
    async def call(self, ctx: Context, depth: int) -> str:
        if depth:
            return await ctx.call(Chain.call, depth - 1)
        return await ctx.signal("end", str)


def test_who_queues_behind_a_call_in_memory_does_not_wait_for_a_key_that_nobody_has(
    place: Place, tmp_path: Path
) -> None:
    async def main(copies: list[Path]) -> None:
        async with place.engine(Ticket()) as engine:
            calls = [
                asyncio.create_task(engine.call(Ticket.take, name, key="k"))
                for name in ("first", "second")
            ]
            await asyncio.sleep(0)  # both are admitted, and no handler has run
            sent = await engine.send(Ticket.take, "third", key="k")
            assert await asyncio.gather(*calls) == [["first"], ["first", "second"]]
            assert await sent.result() == ["first", "second", "third"]
        assert len(copies) > 3
        for copy in copies:
            assert violations(copy) == []
            async with Place(copy, place.max_resident).engine(Ticket()) as engine:
                names = await engine.call(Ticket.take, "fourth", key="k")
                assert names == [*["first", "second", "third"][: len(names) - 1], "fourth"]

    with copies_after_each_unit(place.path, tmp_path / "copies") as copies:
        run(main(copies))


def test_what_ends_at_once_leaves_no_row_of_what_it_asked_for(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Hasty()) as engine:
            handle = await engine.send(Hasty.run, key="k")
            assert await handle.result() == "ran"
            await engine.call(Hasty.complete, key="k")
            assert await engine.call(Hasty.look, key="k") is False
            assert await engine.call(Hasty.attach, handle.id, key="k") is False
            assert await engine.call(Hasty.to_itself, key="k") == "went"

    run(main())


def test_an_awakeable_is_resolved_by_who_has_just_made_it(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable(int)
        await ctx.resolve_awakeable(awakeable.id, 5)
        return await awakeable

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            assert await engine.submit(Script.run, key="k") == 5

    run(session())


def test_an_answer_that_nobody_waits_for_any_more_leaves_nothing_to_do(place: Place) -> None:
    awakeables: list[tuple[str, str]] = []

    async def main(ctx: WorkflowContext) -> Any:
        first, second = ctx.awakeable(int), ctx.awakeable(int)
        awakeables.append((first.id, second.id))
        await ctx.wait_first(first, second)
        second.cancel()
        return await ctx.signal("end", str)

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            first, second = awakeables.pop()
            await asyncio.gather(
                engine.resolve_awakeable(first, 1), engine.resolve_awakeable(second, 2)
            )
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.SUSPENDED

    run(session())


def test_a_message_whose_taker_has_given_up_goes_to_the_next(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        first, given_up = ctx.signal("n", int), ctx.signal("n", int)
        await first
        given_up.cancel()
        return [await first, await ctx.signal("n", int), await ctx.signal("n", int)]

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await asyncio.gather(*(engine.signal(handle.id, "n", n) for n in (1, 2, 3)))
            assert await handle.result() == [1, 2, 3]

    run(session())


def test_a_message_is_not_given_to_who_gives_up_at_the_same_time(place: Place) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        leave = ctx.signal("leave", bool)
        first, second = ctx.signal("n", int), ctx.signal("n", int)
        await leave
        second.cancel()
        first.cancel()  # the message is on its way to it
        return await ctx.signal("n", int)

    async def session() -> None:
        async with place.engine(Script(main)) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await asyncio.gather(
                engine.signal(handle.id, "leave", True), engine.signal(handle.id, "n", 1)
            )
            assert await handle.result() == 1

    run(session())


class Selfish(Service):
    @handler
    async def call(self, ctx: Context) -> str:
        try:
            return await ctx.call(Selfish.call, idempotency_key=ctx.request.idempotency_key)
        except InvalidInput as refusal:
            return str(refusal)


def test_who_calls_with_its_own_idempotency_key_does_not_wait_for_itself(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Selfish()) as engine:
            refusal = await engine.call(Selfish.call, idempotency_key="mine")
            assert "would wait for itself" in refusal

    run(main())


def test_what_is_not_registered_here_and_has_not_begun_is_not_paused(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Ticket(), clock=clock) as engine:
            holder = await engine.send(Ticket.hold, key="k")
            queued = await engine.send(Ticket.take, "x", key="k")
            later = await engine.send(Ticket.take, "y", key="other", delay=60)
            await until_status(engine, holder, Status.SUSPENDED)
        async with place.engine(clock=clock) as engine:
            with pytest.raises(Conflict, match="is pending"):
                await engine.pause(queued.id)
            with pytest.raises(Conflict, match="is scheduled"):
                await engine.pause(later.id)
            assert await engine.pause(holder.id)
        async with place.engine(Ticket(), clock=clock) as engine:
            clock.advance(60)
            assert await engine.attach(later.id, list[str]) == ["y"]

    run(main())


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_what_is_not_registered_here_is_ended_all_the_same(place: Place, verb: str) -> None:
    async def main() -> None:
        async with place.engine(Ticket(), Chain()) as engine:
            holder = await engine.send(Ticket.hold, key="k")
            queued = await engine.send(Ticket.take, "x", key="k")
            later = await engine.send(Ticket.take, "y", key="k", delay=3600)
            parent = await engine.send(Chain.call, 1)
            await until_status(engine, holder, Status.SUSPENDED)
        async with place.engine() as engine:
            for each in (holder, later, parent):
                assert await getattr(engine, verb)(each.id)
        async with place.engine(Ticket(), Chain()) as engine:
            assert await engine.attach(queued.id) == ["x"]
            for each in (holder, later, parent):
                with pytest.raises(Exception, match=r"cancelled|killed"):
                    await engine.attach(each.id)

    run(main())


def test_a_deep_tree_is_killed(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Chain()) as engine:
            root = await engine.send(Chain.call, 1100)
            await until_idle(engine)
            assert await engine.kill(root.id)
            with pytest.raises(Killed):
                await root.result()

    run(main())


def test_a_pause_holds_what_was_about_to_be_loaded(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Chain()) as engine:
            handle = await engine.send(Chain.call, 0)
            await until_status(engine, handle, Status.SUSPENDED)
            with StalledDisk(place.path) as disk:
                verbs = [engine.pause, engine.resume, engine.pause]
                tasks = [asyncio.create_task(verb(handle.id)) for verb in verbs]
                signal = asyncio.create_task(engine.signal(handle.id, "end", "e"))
                await asyncio.sleep(0.01)
                disk.release()
            assert await asyncio.gather(*tasks) == [True, True, True]
            await signal
            await until_idle(engine)
            assert (await engine.describe(handle.id)).status is Status.PAUSED
            assert await engine.resume(handle.id)
            assert await handle.result() == "e"

    run(main())


def test_a_cancel_whose_delivery_failed_is_one_cancel_still(place: Place) -> None:
    clock = ManualClock()
    seen: list[str] = []

    async def main(ctx: WorkflowContext) -> Any:
        timer = ctx.after(1)
        try:
            await ctx.signal("never")
        except asyncio.CancelledError:
            seen.append("cancelled")
            if len(seen) < 2:
                raise RuntimeError("not yet") from None
            await timer
            await ctx.sleep(1)
            return "undone"

    async def session() -> None:
        quiet_log()
        async with place.engine(Script(main), clock=clock) as engine:
            handle = await engine.send(Script.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            clock.advance(1)  # the timer is delivered after the cancel
            assert await asyncio.create_task(handle.cancel())
            await until_status(engine, handle, Status.BACKING_OFF)
            await handle.cancel()
            await until_idle(engine)
            clock.advance(2)
            assert await handle.result() == "undone"

    run(session())
