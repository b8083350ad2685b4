"""Calls, sends, awakeables and signals mean the same whoever drives the handler."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

import pytest
from engine_support import until
from scripted import Plain, Script, Thing, named
from worlds import World

from perdure import (
    AlreadyCompleted,
    Conflict,
    Context,
    InvalidInput,
    NotFound,
    ObjectContext,
    TerminalError,
    WorkflowContext,
)


async def _value(value: Any) -> Any:
    return value


# -- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 1 << 53, 1.5, "snow ☃", [], [1, [None]], {}, {"a": {"b": [1]}}],
    ids=repr,
)
def test_arguments_and_results_cross_services_as_they_are(world: World, value: Any) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return [await ctx.call(Plain.echo, value), await ctx.call(Plain.echo, value)]

    assert world.result(body) == [value, value]


def test_bytes_nothing_and_what_is_left_out_cross_services(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        blobs = [await ctx.call(Plain.blob, blob) for blob in (b"", b"\0\xff{", b"1")]
        return [
            [blob.hex() for blob in blobs],
            await ctx.call(Plain.nothing),
            await ctx.call(Plain.optional),
            await ctx.call(Plain.optional, None),
            await ctx.call(Plain.optional, "given"),
            await ctx.call("Plain.optional", "by name", returns=str),
        ]

    assert world.result(body) == [
        ["", "7bff00", "31"],
        None,
        "left out",
        None,
        "given",
        "by name",
    ]


def test_bytes_and_nothing_from_outside(world: World) -> None:
    async def story(verbs: Any) -> Any:
        return [
            (await verbs.call(Plain.blob, b"\0\xff")).hex(),
            await verbs.call(Plain.nothing),
            await verbs.call(Plain.optional),
            await verbs.call(Plain.optional, None),
        ]

    assert world.play(story) == ["ff00", None, "left out", None]


def test_a_call_begins_when_it_is_made_and_is_awaited_as_often_as_one_likes(
    world: World,
) -> None:
    ran: list[str] = []

    async def other(ctx: ObjectContext) -> Any:
        return await ctx.run("ran", _appended, ran, "called")

    async def body(ctx: WorkflowContext) -> Any:
        call = ctx.call(Thing.act, named_other, key=ctx.key)
        await ctx.sleep(0.1)
        await ctx.run("ran", _appended, ran, "caller")
        return [await call, await call]

    named_other = named(other)
    assert world.result(body) == ["called", "called"]
    assert ran == ["called", "caller"]


def _appended(ran: list[str], what: str) -> str:
    ran.append(what)
    return what


def test_failures_of_calls_keep_message_code_metadata_and_class(world: World) -> None:
    errors = [
        TerminalError("plain"),
        TerminalError("with all", 418, {"a": "b", "ä": "☃"}),
        NotFound("not there"),
        InvalidInput("not right"),
        Conflict("not now"),
    ]

    def failing(error: TerminalError) -> str:
        async def fails(ctx: Context) -> Any:
            raise error

        return named(fails)

    names = [failing(error) for error in errors]

    async def body(ctx: WorkflowContext) -> Any:
        seen = []
        for name in names:
            try:
                await ctx.call(Plain.act, name)
            except TerminalError as failure:
                seen.append([type(failure).__name__, str(failure), failure.code, failure.metadata])
        return seen

    assert world.result(body) == [[type(e).__name__, str(e), e.code, e.metadata] for e in errors]


def test_what_is_no_target_is_refused_at_once(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        seen = []
        for handler, key in (("Nope.act", None), ("Plain.nope", None), ("Thing.act", None)):
            try:
                ctx.call(handler, "x", key=key)
            except TerminalError as refused:
                seen.append([type(refused).__name__, refused.code])
        return seen

    assert world.result(body) == [["NotFound", 404], ["NotFound", 404], ["InvalidInput", 400]]


def test_an_exclusive_handler_can_not_call_its_own_key(world: World) -> None:
    async def act(ctx: ObjectContext) -> Any:
        try:
            ctx.call(Thing.act, "x", key=ctx.key)
        except InvalidInput as refused:
            return "same key" in str(refused)

    async def story(verbs: Any) -> Any:
        return await verbs.call(Thing.act, named(act), key=world.key)

    assert world.play(story) is True


def test_a_run_is_called_once_and_sent_as_often_as_one_likes(world: World) -> None:
    async def other(ctx: WorkflowContext) -> Any:
        return ctx.key

    name = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        key = f"{ctx.key}-other"
        first = ctx.send(Script.run, name, key=key)
        ids = [await first.invocation_id()]
        ids.append(await ctx.send(Script.run, name, key=key).invocation_id())
        result = await ctx.attach(ids[0], str)
        try:
            await ctx.call(Script.run, name, key=key)
        except Conflict as refused:
            return [ids[0] == ids[1], result == key, str(refused).partition(" for key")[0]]

    assert world.result(body) == [True, True, "run of Script was already started"]


def test_calls_with_one_idempotency_key_are_one(world: World) -> None:
    ran: list[str] = []

    async def other(ctx: ObjectContext) -> Any:
        return await ctx.run("ran", _appended, ran, "once")

    name = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        key = f"idem-{ctx.key}"
        calls = [ctx.call(Thing.act, name, key=ctx.key, idempotency_key=key) for _ in range(3)]
        results = [await call for call in calls]
        await ctx.sleep(0.001)
        sent = ctx.send(Thing.act, name, key=ctx.key, idempotency_key=key)
        ids = {await call.invocation_id() for call in calls} | {await sent.invocation_id()}
        return [results, len(ids)]

    assert world.result(body) == [["once"] * 3, 1]
    assert ran == ["once"]


def test_headers_and_the_idempotency_key_reach_the_called_handler(world: World) -> None:
    async def other(ctx: Context) -> Any:
        return [ctx.request.headers.get("x-mine"), ctx.request.idempotency_key]

    name = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        call = ctx.call(
            Plain.act, name, headers={"x-mine": "yes"}, idempotency_key=f"i-{world.key}"
        )
        return await call

    header, key = world.result(body)
    assert header == "yes"
    assert key == f"i-{world.key}" or (world.on_restate and key is None)


def test_a_delayed_send_begins_later(world: World) -> None:
    async def other(ctx: Context) -> Any:
        return ctx.now().timestamp()

    name = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        began = ctx.now().timestamp()
        ref = ctx.send(Plain.act, name, delay=0.3, idempotency_key=f"d-{world.key}")
        late = await ctx.attach(await ref.invocation_id(), float)
        return late - began

    assert 0.29 <= world.result(body) < 5


def test_sends_to_one_key_arrive_in_order(world: World) -> None:
    ran: list[int] = []

    def act(number: int) -> str:
        async def acts(ctx: ObjectContext) -> Any:
            await ctx.run("ran", ran.append, number)

        return named(acts)

    names = [act(number) for number in range(11)]

    async def body(ctx: WorkflowContext) -> Any:
        for name in names[:10]:
            ctx.send(Thing.act, name, key=ctx.key)
        await ctx.call(Thing.act, names[10], key=ctx.key)

    world.result(body)
    assert ran == list(range(11))


@pytest.mark.parametrize("key", ["a b", "a/b", "ä☃", "%2F", "a?b=c#d", "..", "a+b"])
def test_keys_may_have_odd_characters(world: World, key: str) -> None:
    key = f"{world.key}{key}"

    async def act(ctx: ObjectContext) -> Any:
        return ctx.key

    async def body(ctx: WorkflowContext) -> Any:
        return [ctx.key, await ctx.call(Thing.act, named_act, key=key)]

    named_act = named(act)

    async def story(verbs: Any) -> Any:
        return [
            await verbs.call(Thing.act, named_act, key=key),
            *await verbs.submit(Script.run, named(body), key=key),
        ]

    assert world.play(story) == [key] * 3


def test_the_empty_key_is_a_key(world: World) -> None:
    async def act(ctx: ObjectContext) -> Any:
        return ["key", ctx.key]

    named_act = named(act)

    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.call(Thing.act, named_act, key="")

    async def story(verbs: Any) -> Any:
        return [
            await verbs.call(Thing.act, named_act, key=""),
            await verbs.submit(Script.run, named(body), key=world.key),
        ]

    assert world.play(story) == [["key", ""]] * 2


# -- attach, cancel -------------------------------------------------------------------------------


def test_attaching_waits_for_the_result_of_others(world: World) -> None:
    async def other(ctx: WorkflowContext) -> Any:
        await ctx.sleep(0.05)
        return "result"

    async def fails(ctx: WorkflowContext) -> Any:
        raise NotFound("not there")

    async def body(ctx: WorkflowContext) -> Any:
        refs = [
            ctx.send(Script.run, name, key=f"{ctx.key}{i}")
            for i, name in enumerate((named_other, named_fails))
        ]
        seen: list[Any] = [await ctx.attach(await refs[0].invocation_id(), str)]
        try:
            await ctx.attach(await refs[1].invocation_id())
        except NotFound as failure:
            seen.append(str(failure))
        return seen

    named_other, named_fails = named(other), named(fails)
    assert world.result(body) == ["result", "not there"]


def test_attaching_to_oneself_or_to_what_is_no_id_is_refused(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        seen = []
        for id in (ctx.invocation_id, "no id ☃", ""):
            try:
                ctx.attach(id)
            except InvalidInput as refused:
                seen.append(refused.code)
        return seen

    assert world.result(body) == [400, 400, 400]


# -- awakeables and signals -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, "text", [1, {"a": None}]], ids=repr)
def test_an_awakeable_is_resolved_from_outside(world: World, value: Any) -> None:
    ids: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable()
        await ctx.run("tell", ids.append, awakeable.id)
        return [await awakeable]

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await until(lambda: bool(ids), "the id")
        await verbs.resolve_awakeable(ids[0], value)
        return await begun.result()

    assert world.play(story) == [value]


def test_an_awakeable_is_rejected_from_outside(world: World) -> None:
    ids: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable(int)
        await ctx.run("tell", ids.append, awakeable.id)
        try:
            await awakeable
        except TerminalError as failure:
            return [str(failure), failure.code]

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await until(lambda: bool(ids), "the id")
        await verbs.reject_awakeable(ids[0], "no")
        return await begun.result()

    assert world.play(story) == ["no", 500]


@pytest.mark.parametrize("how", ["resolve", "reject"])
def test_an_awakeable_is_completed_by_another_handler(world: World, how: str) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable(dict[str, int])
        other = named(lambda other_ctx: _complete(other_ctx, how, awakeable.id))
        ctx.send(Plain.act, await ctx.run("name", _value, other))
        try:
            return await awakeable
        except TerminalError as failure:
            return [str(failure), failure.code]

    expected: Any = {"a": 1} if how == "resolve" else ["no", 418]
    assert world.result(body) == expected


async def _complete(ctx: Context, how: str, id: str) -> None:
    if how == "resolve":
        await ctx.resolve_awakeable(id, {"a": 1})
    else:
        await ctx.reject_awakeable(id, "no", 418)


def test_a_value_that_is_not_of_the_awakeables_type_is_a_terminal_error(world: World) -> None:
    ids: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable(int)
        await ctx.run("tell", ids.append, awakeable.id)
        try:
            return await awakeable
        except InvalidInput as failure:
            return failure.code

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await until(lambda: bool(ids), "the id")
        await verbs.resolve_awakeable(ids[0], "text")
        return await begun.result()

    assert world.play(story) == 400


def test_the_first_completion_of_an_awakeable_stands(world: World) -> None:
    ids: list[str] = []

    async def body(ctx: WorkflowContext) -> Any:
        awakeable = ctx.awakeable(int)
        await ctx.run("tell", ids.append, awakeable.id)
        await ctx.promise("both")
        return await awakeable

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await until(lambda: bool(ids), "the id")
        await verbs.resolve_awakeable(ids[0], 1)
        again = contextlib.nullcontext() if world.on_restate else pytest.raises(AlreadyCompleted)
        with again:
            await verbs.resolve_awakeable(ids[0], 2)
        await verbs.call(Script.resolve, "both", key=world.key)
        return await begun.result()

    assert world.play(story) == 1


def test_signals_are_taken_in_their_order_also_early_ones(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.promise("sent")
        first, second = ctx.signal("s"), ctx.signal("s")
        seen = [await second, await first]
        return [*seen, await ctx.signal("s"), await ctx.signal("other", int)]

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        for value in ("a", "b"):
            await world.signal(verbs, begun.id, "s", value)
        await verbs.call(Script.resolve, "sent", key=world.key)
        await world.signal(verbs, begun.id, "other", 7)
        await world.signal(verbs, begun.id, "s", "c")
        return await begun.result()

    assert world.play(story) == ["b", "a", "c", 7]


def test_an_invocation_id_is_known_inside_and_out(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return ctx.invocation_id

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        return [begun.id == await begun.result(), await verbs.attach(begun.id) == begun.id]

    assert world.play(story) == [True, True]


def test_ids_of_calls_and_sends_are_those_of_their_handlers(world: World) -> None:
    async def other(ctx: Context) -> Any:
        return ctx.invocation_id

    name = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        call = ctx.call(Plain.act, name)
        ref = ctx.send(Plain.act, name, idempotency_key=uuid.uuid5(uuid.NAMESPACE_URL, ctx.key).hex)
        attached = await ctx.attach(await ref.invocation_id(), str)
        return [await call.invocation_id() == await call, attached == await ref.invocation_id()]

    assert world.result(body) == [True, True]


def test_concurrent_calls_of_one_handler_are_each_answered(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await asyncio.gather(*(ctx.call(Plain.echo, i) for i in range(30)))

    assert world.result(body) == list(range(30))
