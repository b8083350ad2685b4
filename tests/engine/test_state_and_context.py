"""State of a key, and what a context gives besides operations."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until_idle

from perdure import (
    InvalidInput,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


@dataclass
class Cart:
    items: list[str]


class Shop(Workflow):
    """Its run does what the test says; its shared handlers look and try to write."""

    def __init__(self, act: Any = None) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def read(self, ctx: WorkflowSharedContext, name: str) -> Any:
        return await ctx.get(name, default="(nothing)")

    @handler
    async def names(self, ctx: WorkflowSharedContext) -> list[str]:
        return await ctx.state_keys()

    @handler
    async def write(self, ctx: WorkflowSharedContext, verb: str) -> None:
        getattr(ctx, verb)(*{"set": ("a", 1), "clear": ("a",), "clear_all": ()}[verb])

    @handler
    async def release(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(None)


def result_of(place: Place, act: Any) -> Any:
    async def main() -> Any:
        async with place.engine(Shop(act)) as engine:
            return await engine.submit(Shop.run, key="k")

    return run(main())


def test_state_is_set_read_and_cleared(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = [await ctx.get("a"), await ctx.get("a", int, 5), await ctx.state_keys()]
        ctx.set("a", 1)
        ctx.set("b", None)
        seen += [await ctx.get("a", int), await ctx.get("b", default=7), await ctx.state_keys()]
        await ctx.run("step", lambda: None)
        seen += [await ctx.get("a", int), await ctx.state_keys()]
        ctx.clear("a")
        seen += [await ctx.get("a"), await ctx.state_keys()]
        await ctx.run("step", lambda: None)
        ctx.clear_all()
        ctx.set("c", [1])
        seen += [await ctx.state_keys()]
        await ctx.run("step", lambda: None)
        return [*seen, await ctx.state_keys()]

    assert result_of(place, act) == [
        *(None, 5, []),
        *(1, None, ["a", "b"]),
        *(1, ["a", "b"]),
        *(None, ["b"]),
        *(["c"], ["c"]),
    ]


def test_state_has_the_type_it_is_asked_for(place: Place) -> None:
    seen: list[Any] = []

    async def act(ctx: WorkflowContext) -> None:
        ctx.set("cart", Cart(["x"]))
        seen.append(await ctx.get("cart", Cart))
        seen.append(await ctx.get("cart"))

    result_of(place, act)
    assert seen[-2:] == [Cart(["x"]), {"items": ["x"]}]


def test_state_of_the_wrong_type_is_an_error_that_names_it(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> None:
        ctx.set("cart", "none")
        await ctx.get("cart", Cart)

    with pytest.raises(InvalidInput, match="state 'cart'"):
        result_of(place, act)


def test_a_value_changed_after_set_is_stored_as_it_was(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> Any:
        items = ["x"]
        ctx.set("items", items)
        items.append("y")
        return await ctx.get("items")

    assert result_of(place, act) == ["x"]


def test_shared_handlers_see_state_at_once_and_after_completion_and_reopening(
    place: Place,
) -> None:
    async def act(ctx: WorkflowContext) -> str:
        ctx.set("a", "first")
        await ctx.promise("go")
        ctx.set("a", "second")
        return "done"

    async def main() -> None:
        async with place.engine(Shop(act)) as engine:
            assert await engine.call(Shop.read, "a", key="k") == "(nothing)"
            handle = await engine.send(Shop.run, key="k")
            assert await engine.call(Shop.read, "a", key="k") == "first"
            assert await engine.call(Shop.read, "a", key="other") == "(nothing)"
            await engine.call(Shop.release, key="k")
            await handle.result()
            assert await engine.call(Shop.read, "a", key="k") == "second"
        async with place.engine(Shop(act)) as engine:
            assert await engine.call(Shop.read, "a", key="k") == "second"
            assert await engine.call(Shop.names, key="k") == ["a"]
            assert await engine.output(handle.id) == "done"

    run(main())


def test_state_set_before_a_terminal_error_is_kept(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> None:
        ctx.set("a", "kept")
        raise TerminalError("over")

    async def main() -> None:
        async with place.engine(Shop(act)) as engine:
            with pytest.raises(TerminalError, match="over"):
                await engine.submit(Shop.run, key="k")
            assert await engine.call(Shop.read, "a", key="k") == "kept"

    run(main())


@pytest.mark.parametrize("verb", ["set", "clear", "clear_all"])
def test_a_shared_handler_may_not_write_state(place: Place, verb: str) -> None:
    async def main() -> None:
        async with place.engine(Shop()) as engine:
            with pytest.raises(InvalidInput, match=f"ctx.{verb}: a shared handler can not write"):
                await engine.call(Shop.write, verb, key="k")

    run(main())


def test_the_context_knows_key_id_and_request(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> list[Any]:
        return [ctx.key, ctx.invocation_id, dict(ctx.request.headers), ctx.request.attempt]

    async def main() -> None:
        async with place.engine(Shop(act)) as engine:
            handle = await engine.send(Shop.run, key="ключ", headers={"a": "b"})
            assert await handle.result() == ["ключ", handle.id, {"a": "b"}, 1]

    run(main())


def test_log_is_silent_in_replay_and_names_the_invocation(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(ctx: WorkflowContext) -> None:
        for number in range(3):
            ctx.log.warning("line %d", number)
            await ctx.run("step", lambda: None)

    async def main() -> str:
        async with place.engine(Shop(act)) as engine:
            handle = await engine.send(Shop.run, key="k")
            await handle.result()
            return handle.id

    with caplog.at_level(logging.WARNING, "perdure.handler"):
        invocation_id = run(main())
    lines = [record for record in caplog.records if record.name == "perdure.handler"]
    assert [line.getMessage() for line in lines] == [
        f"[{invocation_id}] line {number}" for number in range(3)
    ]
    assert [getattr(line, "invocation_id", "") for line in lines] == [invocation_id] * 3


def test_now_random_and_uuid4_are_the_same_in_replay(place: Place) -> None:
    seen: list[list[Any]] = []

    async def act(ctx: WorkflowContext) -> list[Any]:
        mine: list[Any] = []
        seen.append(mine)
        for _ in range(4):
            mine += [ctx.now(), ctx.random.random(), ctx.uuid4()]
            await ctx.promise(f"p{len(mine)}").resolve(None)
            await ctx.run("step", lambda: None)
        await ctx.promise("go")
        return []

    async def main() -> None:
        for release in (False, True):
            async with place.engine(Shop(act)) as engine:
                handle = await engine.send(Shop.run, key="k")
                await until_idle(engine)
                if release:
                    await engine.call(Shop.release, key="k")
                    await handle.result()

    run(main())
    assert len(seen) > 1
    whole = max(seen, key=len)
    assert len(whole) == 12
    assert all(mine == whole[: len(mine)] for mine in seen)
    assert all(type(value) is uuid.UUID and value.version == 4 for value in whole[2::3])
    assert len(set(whole[1::3])) == 4


def test_now_is_the_time_of_delivery(place: Place) -> None:
    clock = ManualClock(1_700_000_000_123)

    async def act(ctx: WorkflowContext) -> list[datetime]:
        first = ctx.now()
        await ctx.run("step", clock.advance, 5)
        return [first, ctx.now()]

    async def main() -> Any:
        async with place.engine(Shop(act), clock=clock) as engine:
            handle = await engine.send(Shop.run, key="k")
            return await engine.attach(handle.id, list[datetime])

    assert run(main()) == [
        datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
        datetime(2023, 11, 14, 22, 13, 25, 123000, tzinfo=UTC),
    ]


@pytest.mark.parametrize("name", ["", "x" * 97, None])
def test_state_needs_a_name(resident_place: Place, name: Any) -> None:
    async def act(ctx: WorkflowContext) -> None:
        ctx.set(name, 1)

    with pytest.raises(InvalidInput, match="state name"):
        result_of(resident_place, act)


def test_state_that_can_not_be_stored_names_state_and_type(resident_place: Place) -> None:
    quiet_log()

    async def act(ctx: WorkflowContext) -> None:
        ctx.set("thing", object())

    with pytest.raises(InvalidInput, match=r"state 'thing'.*object"):
        result_of(resident_place, act)
