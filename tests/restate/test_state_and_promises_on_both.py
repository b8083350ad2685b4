"""State and promises mean the same whoever drives the handler."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from scripted import Script, Thing, named
from worlds import World

from perdure import (
    AlreadyCompleted,
    ObjectContext,
    ObjectSharedContext,
    Pending,
    PromiseNameError,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.serde import UNTYPED, serde_for


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Inner:
    when: datetime
    price: Decimal


@dataclasses.dataclass
class Outer:
    id: uuid.UUID
    inners: list[Inner]
    colours: dict[str, Colour]
    blob: bytes
    tags: set[str]


class Model(pydantic.BaseModel):
    name: str
    when: datetime | None = None


OUTER = Outer(
    uuid.UUID(int=7),
    [Inner(datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), Decimal("1.10"))],
    {"a": Colour.RED},
    b"\0\xff",
    {"x", "y"},
)

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1 << 53, 1 << 63, -(1 << 64), 1 << 200),
    *(0.5, -0.0, 1e308, math.inf, -math.inf, math.nan),
    *("", "snow ☃ \0", b"", b"\xd9\xd9\xf7", b"\0\xff"),
    *([], [1, [2, [None]]], {}, {"a": {"b": [1.0, b"c"]}}, {1: "one", (1, 2): "pair"}, {1, 2}),
    *(frozenset({"a"}), (1, 2), date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),
    *(timedelta(seconds=1.5), Decimal("1.10"), uuid.UUID(int=5)),
]

TYPED: list[Any] = [OUTER, Model(name="m"), Colour.RED, [OUTER, OUTER], {"k": Model(name="n")}]


async def _value(value: Any) -> Any:
    return value


def _same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


@pytest.mark.parametrize("where", ["state", "step", "promise"])
def test_untyped_values_come_back_alike(world: World, where: str) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        seen = []
        for number, value in enumerate(VALUES):
            if where == "state":
                ctx.set(f"v{number}", value)
                await ctx.sleep(0) if number % 8 == 0 else None
                seen.append(await ctx.get(f"v{number}", default="absent"))
            elif where == "step":
                seen.append(await ctx.run("value", _value, value))
            else:
                promise = ctx.promise(f"v{number}")
                await promise.resolve(value)
                peeked = await promise.peek()
                seen.append(await promise)
                assert _same(peeked, seen[-1])
        return [repr(value) for value in seen]

    kept = [serde_for(UNTYPED).decode(serde_for(UNTYPED).encode(v, "v"), "v") for v in VALUES]
    assert world.result(body) == [repr(value) for value in kept]


def test_typed_values_come_back_as_their_types(world: World) -> None:
    types: list[Any] = [Outer, Model, Colour, list[Outer], dict[str, Model]]

    async def body(ctx: WorkflowContext) -> Any:
        seen = []
        for number, (value, type_) in enumerate(zip(TYPED, types, strict=True)):
            ctx.set(f"v{number}", value)
            promise = ctx.promise(f"v{number}", type_)
            await promise.resolve(value)
            seen += [
                await ctx.get(f"v{number}", type_) == value,
                await promise == value,
                await ctx.run("typed", _value, value, returns=type_) == value,
            ]
        await ctx.sleep(0.001)
        return seen

    assert world.result(body) == [True] * 15


def test_none_is_not_absent(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        seen = [await ctx.get("a", default="absent")]
        ctx.set("a", None)
        seen.append(await ctx.get("a", default="absent"))
        await ctx.sleep(0.001)
        seen.append(await ctx.get("a", default="absent"))
        promise = ctx.promise("p", int | None)
        seen.append(await promise.peek() is Pending)
        await promise.resolve(None)
        seen += [await promise.peek(), await promise]
        return seen

    assert world.result(body) == ["absent", None, None, True, None, None]


def test_state_is_read_as_written_and_listed_in_order(world: World) -> None:
    async def act(ctx: ObjectContext) -> Any:
        seen: list[Any] = [await ctx.state_keys()]
        for name in ("b", "ä", "a", "a b/c"):
            ctx.set(name, name)
        seen += [await ctx.state_keys(), await ctx.get("b", str)]
        ctx.clear("b")
        seen += [await ctx.get("b", str, "gone"), await ctx.state_keys()]
        return seen

    async def clear(ctx: ObjectContext) -> Any:
        seen: list[Any] = [await ctx.state_keys()]
        ctx.clear_all()
        seen += [await ctx.state_keys(), await ctx.get("a", str)]
        ctx.set("c", 1)
        return [*seen, await ctx.state_keys()]

    async def look(ctx: ObjectSharedContext) -> Any:
        return [await ctx.state_keys(), await ctx.get("c", int)]

    async def story(verbs: Any) -> Any:
        return [
            await verbs.call(Thing.act, named(act), key=world.key),
            await verbs.call(Thing.act, named(clear), key=world.key),
            await verbs.call(Thing.look, named(look), key=world.key),
        ]

    assert world.play(story) == [
        [[], ["a", "a b/c", "b", "ä"], "b", "gone", ["a", "a b/c", "ä"]],
        [["a", "a b/c", "ä"], [], None, ["c"]],
        [["c"], 1],
    ]


def test_state_that_was_set_before_a_terminal_error_is_kept(world: World) -> None:
    async def fails(ctx: ObjectContext) -> Any:
        ctx.set("a", 1)
        raise TerminalError("after all", 418)

    async def look(ctx: ObjectContext) -> Any:
        return await ctx.get("a", int)

    async def story(verbs: Any) -> Any:
        with pytest.raises(TerminalError, match="after all"):
            await verbs.call(Thing.act, named(fails), key=world.key)
        return await verbs.call(Thing.act, named(look), key=world.key)

    assert world.play(story) == 1


def test_exclusive_handlers_of_a_key_lose_no_update(world: World) -> None:
    async def add(ctx: ObjectContext) -> Any:
        count = await ctx.get("count", int, 0)
        await ctx.sleep(0.001)
        ctx.set("count", count + 1)
        return count + 1

    async def story(verbs: Any) -> Any:
        name = named(add)
        counts = await asyncio.gather(
            *(verbs.call(Thing.act, name, key=world.key) for _ in range(10))
        )
        return sorted(counts)

    assert world.play(story) == list(range(1, 11))


@pytest.mark.parametrize("verb", ["set", "clear", "clear_all"])
def test_a_shared_handler_can_not_write(world: World, verb: str) -> None:
    async def look(ctx: Any) -> Any:
        try:
            getattr(ctx, verb)(*{"set": ("a", 1), "clear": ("a",), "clear_all": ()}[verb])
        except TerminalError as refused:
            return [type(refused).__name__, refused.code, "shared handler" in str(refused)]

    async def story(verbs: Any) -> Any:
        return [
            await verbs.call(Thing.look, named(look), key=world.key),
            await verbs.call(Script.aside, named(look), key=world.key),
        ]

    assert world.play(story) == [["InvalidInput", 400, True]] * 2


def test_a_promise_may_be_resolved_before_run_starts(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        promise = ctx.promise("early")
        return [await promise.peek(), await promise]

    async def story(verbs: Any) -> Any:
        await verbs.call(Script.resolve, "early", key=world.key)
        return await verbs.submit(Script.run, named(body), key=world.key)

    assert world.play(story) == ["value of early"] * 2


def test_a_promise_is_completed_once(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        promise = ctx.promise("once")
        await promise.resolve(1)
        seen: list[Any] = []
        for again in (promise.resolve(2), promise.reject("no")):
            try:
                await again
            except AlreadyCompleted as refused:
                seen.append([str(refused), refused.code])
        return [*seen, await promise]

    text = "promise 'once' was already completed"
    assert world.result(body) == [[text, 409], [text, 409], 1]


def test_a_second_completion_from_outside_is_refused(world: World) -> None:
    async def story(verbs: Any) -> Any:
        await verbs.call(Script.resolve, "once", key=world.key)
        with pytest.raises(AlreadyCompleted) as refused:
            await verbs.call(Script.resolve, "once", key=world.key)
        return [str(refused.value), refused.value.code]

    assert world.play(story) == ["promise 'once' was already completed", 409]


@pytest.mark.parametrize(
    "reason",
    [
        ("plain", 500),
        TerminalError("with metadata", 418, {"a": "b"}),
        PromiseNameError("of a class of its own"),
    ],
    ids=["text", "metadata", "class"],
)
def test_a_rejection_keeps_message_code_metadata_and_class(world: World, reason: Any) -> None:
    arguments = reason if isinstance(reason, tuple) else (reason,)

    async def reject(ctx: WorkflowSharedContext) -> None:
        await ctx.promise("p").reject(*arguments)

    async def body(ctx: WorkflowContext) -> Any:
        promise = ctx.promise("p")
        seen = []
        for wait in (_awaited(promise), promise.peek()):
            try:
                await wait
            except TerminalError as failure:
                seen.append([type(failure).__name__, str(failure), failure.code, failure.metadata])
        return seen

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await verbs.call(Script.aside, named(reject), key=world.key)
        return await begun.result()

    error = reason if isinstance(reason, TerminalError) else TerminalError(*reason)
    expected = [type(error).__name__, str(error), error.code, error.metadata]
    assert world.play(story) == [expected, expected]


async def _awaited(future: Any) -> Any:
    return await future


def test_run_asks_for_a_promise_once(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        ctx.promise("p")
        try:
            ctx.promise("p")
        except PromiseNameError as refused:
            return str(refused)

    assert world.result(body).startswith("run asked twice for the promise 'p'")


def test_shared_handlers_wait_for_promises_too_and_after_the_end(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        ctx.set("seen", "by run")
        return await ctx.promise("p")

    async def aside(ctx: WorkflowSharedContext) -> Any:
        return [await ctx.promise("p"), await ctx.get("seen", str)]

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        waiting = asyncio.ensure_future(verbs.call(Script.aside, named(aside), key=world.key))
        await asyncio.sleep(0.05)
        await verbs.call(Script.resolve, "p", key=world.key)
        return [
            await begun.result(),
            await waiting,
            await verbs.call(Script.aside, named(aside), key=world.key),
        ]

    assert world.play(story) == ["value of p", *[["value of p", "by run"]] * 2]


def test_reads_in_the_middle_take_no_time_for_other_tasks(world: World) -> None:
    """A read is answered before anything else of the handler runs."""

    async def body(ctx: WorkflowContext) -> Any:
        seen: list[str] = []

        async def other(name: str) -> None:
            seen.append(f"{name} begins")
            await ctx.get("a")
            seen.append(f"{name} has read")

        await asyncio.gather(other("one"), other("two"))
        return seen

    assert world.result(body) == ["one begins", "one has read", "two begins", "two has read"]
