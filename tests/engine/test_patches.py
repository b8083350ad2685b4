"""``ctx.patched``: what began under the old code keeps to it, what begins anew takes the new."""

from __future__ import annotations

from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_idle, until_status

from perdure import (
    InvalidInput,
    NondeterminismError,
    Service,
    Status,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.context import Context, ObjectContext

STEPS: list[str] = []


def work(name: str) -> str:
    STEPS.append(name)
    return name


class Order(Workflow):
    """Its run is what the release at hand says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def say(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name).resolve(name)


async def old(ctx: WorkflowContext) -> list[Any]:
    seen = [await ctx.run("charge", work, "charge")]
    seen.append(await ctx.promise("first"))
    seen.append(await ctx.run("pack", work, "pack"))
    seen.append(await ctx.promise("second"))
    return seen


async def new(ctx: WorkflowContext) -> list[Any]:
    seen: list[Any] = []
    if ctx.patched("check stock"):
        seen.append(await ctx.run("check", work, "check"))
    seen.append(await ctx.run("charge", work, "charge"))
    seen.append(await ctx.promise("first"))
    if ctx.patched("wrap"):
        seen.append(await ctx.run("wrap", work, "wrap"))
    seen.append(await ctx.run("pack", work, "pack"))
    seen.append(await ctx.promise("second"))
    seen += [ctx.patched("check stock"), ctx.patched("wrap")]
    return seen


def test_what_is_behind_keeps_to_the_old_branch_what_is_ahead_takes_the_new(place: Place) -> None:
    STEPS.clear()

    async def main() -> None:
        async with place.engine(Order(old)) as engine:
            handle = await engine.send(Order.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(Order(new)) as engine:
            await engine.call(Order.say, "first", key="k")
            await until_status(engine, handle.id, Status.SUSPENDED)
            journal = (await engine.describe(handle.id)).journal
            assert [entry.text for entry in journal if entry.kind == "patched"] == [
                "patched 'wrap'"
            ]
            assert ["test_patches.py" in e.site for e in journal if e.kind == "patched"] == [True]
        async with place.engine(Order(new)) as engine:
            await engine.call(Order.say, "second", key="k")
            assert await engine.attach(handle.id) == [
                *("charge", "first", "wrap", "pack", "second"),
                *(False, True),
            ]
        assert STEPS == ["charge", "wrap", "pack"]

    run(main())


def test_what_is_past_both_places_takes_neither(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(old)) as engine:
            handle = await engine.send(Order.run, key="k")
            await engine.call(Order.say, "first", key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(Order(new)) as engine:
            await engine.call(Order.say, "second", key="k")
            assert await engine.attach(handle.id) == [
                *("charge", "first", "pack", "second"),
                *(False, False),
            ]

    run(main())


def test_a_new_invocation_takes_the_new_branch_and_keeps_to_it(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Order(new)) as engine:
            handle = await engine.send(Order.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(Order(new)) as engine:
            for name in ("first", "second"):
                await engine.call(Order.say, name, key="k")
                await until_idle(engine)
            assert await engine.attach(handle.id) == [
                *("check", "charge", "first", "wrap", "pack", "second"),
                *(True, True),
            ]

    run(main())


def test_an_attempt_that_failed_after_it_asked_asks_anew(place: Place) -> None:
    quiet_log()
    attempts: list[bool] = []

    async def flaky(ctx: WorkflowContext) -> bool:
        attempts.append(ctx.patched("change"))
        if len(attempts) == 1:
            raise ValueError("once")
        return ctx.patched("change")

    async def main() -> None:
        async with place.engine(Order(flaky)) as engine:
            assert await engine.submit(Order.run, key="k") is True
        assert attempts == [True, True]

    run(main())


def test_code_that_no_longer_asks_does_not_fit_a_journal_that_says_yes(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        async with place.engine(Order(new)) as engine:
            handle = await engine.send(Order.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(Order(old)) as engine:
            await engine.call(Order.say, "first", key="k")
            await until_status(engine, handle.id, Status.PAUSED)
            failure = (await engine.describe(handle.id)).last_failure
            assert failure is not None
            assert failure.startswith(NondeterminismError.__name__)
            assert "journal: patched 'check stock'" in failure
        async with place.engine(Order(new)) as engine:
            assert await engine.resume(handle.id)
            await engine.call(Order.say, "second", key="k")
            assert (await engine.attach(handle.id))[-2:] == [True, True]

    run(main())


def test_every_kind_of_handler_has_it(resident_place: Place) -> None:
    class Desk(Service):
        @handler
        async def ask(self, ctx: Context) -> bool:
            return ctx.patched("change")

    class Box(VirtualObject):
        @handler
        async def ask(self, ctx: ObjectContext) -> bool:
            return ctx.patched("change")

    async def main() -> None:
        async with resident_place.engine(Desk(), Box()) as engine:
            assert await engine.call(Desk.ask)
            assert await engine.call(Box.ask, key="k")

    run(main())


BAD: list[tuple[Any, str]] = [
    ("", "patch id is empty"),
    ("x" * 97, "is 97 bytes in UTF-8; the limit is 96"),
    ("é" * 49, "is 98 bytes in UTF-8; the limit is 96"),
    (7, "patch id: expected `str`, got `int`"),
    (["a"], "patch id: expected `str`, got `list`"),
    ("\ud800", "lone surrogate"),
]


@pytest.mark.parametrize(("id", "text"), BAD)
def test_a_bad_id_is_refused_and_leaves_nothing(resident_place: Place, id: Any, text: str) -> None:
    async def asks(ctx: WorkflowContext) -> None:
        ctx.patched(id)

    async def main() -> None:
        async with resident_place.engine(Order(asks)) as engine:
            handle = await engine.send(Order.run, key="k")
            with pytest.raises(InvalidInput, match=text):
                await handle.result()
            journal = (await engine.describe(handle.id)).journal
            assert [entry.kind for entry in journal] in ([], ["start", "return"])

    run(main())


def test_the_longest_id_is_an_id(resident_place: Place) -> None:
    async def asks(ctx: WorkflowContext) -> bool:
        return ctx.patched("é" * 48)

    async def main() -> None:
        async with resident_place.engine(Order(asks)) as engine:
            assert await engine.submit(Order.run, key="k")

    run(main())
