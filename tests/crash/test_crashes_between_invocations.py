"""What goes between invocations, crashed after each unit: nothing is lost, doubled or left over.

Each program runs once while a copy of the directory is made after each unit; then the clients of
each copy do what clients do after a crash: ask again, with the same keys. The outcome must be the
same as if nothing had happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from crash_points import copies_after_each_unit
from engine_support import Place, quiet_log, run, until_idle
from invariants import violations

from perdure import (
    Cancelled,
    Conflict,
    Context,
    Engine,
    Killed,
    ObjectContext,
    ObjectSharedContext,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
)


class Ledgers(VirtualObject):
    """Keeps a log; each entry is written once however often its client asks."""

    @handler
    async def write(self, ctx: ObjectContext, text: str) -> int:
        log = [*(await ctx.get("log", list[str], [])), text]
        ctx.set("log", log)
        await ctx.run("check", str, text)
        return len(log)

    @handler
    async def write_at_once(self, ctx: ObjectContext, text: str) -> int:
        log = [*(await ctx.get("log", list[str], [])), text]
        ctx.set("log", log)
        return len(log)

    @handler
    async def block(self, ctx: ObjectContext) -> None:
        try:
            await ctx.signal("never")
        except asyncio.CancelledError:
            ctx.set("log", [*(await ctx.get("log", list[str], [])), "undone"])
            await ctx.run("check", str, "undone")
            raise

    @handler
    async def log(self, ctx: ObjectSharedContext) -> list[str]:
        return await ctx.get("log", list[str], [])


class Post(Service):
    @handler
    async def resolve(self, ctx: Context, awakeable_id: str) -> str:
        await ctx.resolve_awakeable(awakeable_id, "by post")
        return "delivered"


class Story(Workflow):
    async def run(self, ctx: WorkflowContext, about: str) -> Any:
        return await getattr(self, about)(ctx)

    async def tree(self, ctx: WorkflowContext) -> Any:
        first = ctx.call(Ledgers.write, "first", key="x")
        second = ctx.call(Ledgers.write_at_once, "second", key="x")
        other = ctx.call(Ledgers.write, "other", key="y")
        return [await first, await second, await other]

    async def blocked(self, ctx: WorkflowContext) -> Any:
        await ctx.call(Ledgers.block, key="x")

    async def later(self, ctx: WorkflowContext) -> Any:
        refs = [ctx.send(Ledgers.write, text, key="x", delay=0.002) for text in ("a", "b")]
        ctx.send(Ledgers.write_at_once, "now", key="x")
        return [await ctx.attach(await ref.invocation_id(), int) for ref in refs]

    async def awakeable(self, ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable(str)
        delivered = ctx.call(Post.resolve, awakeable.id)
        return [await awakeable, await delivered]

    async def signals(self, ctx: WorkflowContext) -> Any:
        first = await ctx.signal("word", str)
        await ctx.run("check", str, first)
        return [first, await ctx.signal("word", str)]


Logs = dict[str, list[str]]
Program = Callable[[Engine], Awaitable[Any]]


async def tell(engine: Engine, about: str) -> Any:
    return await engine.submit(Story.run, about, key=about)


async def tree(engine: Engine) -> Any:
    return await tell(engine, "tree")


async def later(engine: Engine) -> Any:
    return await tell(engine, "later")


async def awakeable(engine: Engine) -> Any:
    return await tell(engine, "awakeable")


async def signals(engine: Engine) -> Any:
    story = await engine.send(Story.run, "signals", key="signals")
    for _ in range(2):
        try:
            await engine.signal(story.id, "word", "hm")
        except Conflict:
            break  # it has had enough of them, from an earlier life
    return await story.result()


async def queue(engine: Engine) -> Any:
    """All at once, so that some wait in memory only while others are written."""

    async def write(index: int) -> int:
        text = f"t{index}"
        if index % 2:
            return await engine.call(Ledgers.write, text, key="x", idempotency_key=text)
        sent = await engine.send(Ledgers.write_at_once, text, key="x", idempotency_key=text)
        return await sent.result()

    return sorted(await asyncio.gather(*(write(index) for index in range(6))))


async def cancelled(engine: Engine) -> Any:
    story = await engine.send(Story.run, "blocked", key="blocked")
    await until_idle(engine)
    behind = await engine.send(Ledgers.write, "behind", key="x", idempotency_key="behind")
    await story.cancel()
    with pytest.raises(Cancelled):
        await story.result()
    return await behind.result()


async def killed(engine: Engine) -> Any:
    story = await engine.send(Story.run, "blocked", key="blocked")
    await until_idle(engine)
    await engine.kill(story.id)
    with pytest.raises(Killed):
        await story.result()
    return await engine.call(Ledgers.write, "behind", key="y", idempotency_key="behind")


PROGRAMS: dict[Program, tuple[Any, Logs]] = {
    tree: ([1, 2, 1], {"x": ["first", "second"], "y": ["other"]}),
    later: ([2, 3], {"x": ["now", "a", "b"]}),
    awakeable: (["by post", "delivered"], {}),
    signals: (["hm", "hm"], {}),
    queue: ([1, 2, 3, 4, 5, 6], {"x": [f"t{index}" for index in range(6)]}),
    cancelled: (2, {"x": ["undone", "behind"]}),
    killed: (1, {"y": ["behind"]}),
}


@pytest.mark.parametrize("max_resident", [10_000, 0])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_crash_after_any_unit_changes_no_outcome(
    tmp_path: Path, program: Program, max_resident: int
) -> None:
    quiet_log()
    expected, logs = PROGRAMS[program]

    async def live(path: Path) -> None:
        async with Place(path, max_resident).engine(Ledgers(), Post(), Story()) as engine:
            assert await program(engine) == expected
            for key, log in logs.items():
                found = await engine.call(Ledgers.log, key=key)
                if program is queue:  # what was not acknowledged may be sent anew, and be later
                    assert sorted(found) == log
                else:
                    assert found == log
        assert violations(path) == []

    with copies_after_each_unit(tmp_path / "data", tmp_path / "copies") as copies:
        run(live(tmp_path / "data"))
    assert len(copies) >= 4
    for copy in copies:
        assert violations(copy) == [], copy
        run(live(copy))
