"""Values that can not be stored, or are not of the type: named with their place, never retried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from engine_support import Place, run, scheduler_of, until_idle

from perdure import (
    Context,
    InvalidInput,
    Service,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

TOO_LARGE = 32 * 1024 * 1024 + 1
WORD: Any = "two"


class Opaque:
    """Nothing that could be stored."""


@dataclass
class Line:
    article: str
    quantity: int


@dataclass
class Order:
    lines: list[Line]


class Shop(Workflow):
    """Its run does what the test says."""

    def __init__(self, act: Any = None) -> None:
        self.act = act

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.act(ctx)

    @handler
    async def order(self, ctx: WorkflowSharedContext, order: Order) -> int:
        return sum(line.quantity for line in order.lines)

    @handler
    async def anything(self, ctx: WorkflowSharedContext, value: Any) -> None: ...


class Adder(Service):
    @handler
    async def add(self, ctx: Context, number: int) -> int:
        return number + 1

    @handler
    async def lie(self, ctx: Context) -> int:
        value: Any = "seven"
        return value  # type: ignore[no-any-return]


def result_of(place: Place, act: Any) -> Any:
    async def main() -> Any:
        async with place.engine(Shop(act)) as engine:
            return await engine.submit(Shop.run, key="k")

    return run(main())


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_step_result_that_can_not_be_stored_names_step_and_type(
    place: Place, in_thread: bool
) -> None:
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        return Opaque()

    async def make_async() -> Any:
        return make()

    async def act(ctx: WorkflowContext) -> Any:
        return await ctx.run("fetch it", make if in_thread else make_async)

    with pytest.raises(InvalidInput, match=r"result of step 'fetch it'.*Opaque`") as caught:
        result_of(place, act)
    assert caught.value.code == 400
    assert calls == [1]  # never retried


def test_the_path_of_what_can_not_be_stored_is_named(resident_place: Place) -> None:
    async def act(ctx: WorkflowContext) -> Any:
        return await ctx.run("fetch", lambda: {"parts": [1, Opaque()]})

    with pytest.raises(InvalidInput, match=r"result of step 'fetch'.*Opaque.*parts"):
        result_of(resident_place, act)


def test_a_handler_can_catch_a_step_result_that_can_not_be_stored(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> str:
        try:
            await ctx.run("fetch", Opaque)
        except InvalidInput as refused:
            await ctx.run("note", lambda: None)
            return str(refused)
        return "stored"

    assert "result of step 'fetch'" in result_of(place, act)


def test_a_step_result_of_the_wrong_type_names_step_and_types(place: Place) -> None:
    def count() -> int:
        value: Any = "seven"
        return value  # type: ignore[no-any-return]

    async def act(ctx: WorkflowContext) -> int:
        return await ctx.run("count", count)

    with pytest.raises(InvalidInput, match=r"result of step 'count'.*`int`.*`str`"):
        result_of(place, act)


def test_a_step_result_of_the_wrong_type_names_the_path_of_the_field(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> Any:
        made = {"lines": [{"article": "x", "quantity": "many"}]}
        return await ctx.run("order", lambda: made, returns=Order)

    with pytest.raises(InvalidInput, match=r"result of step 'order'.*lines\[.*\]\.quantity"):
        result_of(place, act)


def test_a_handler_result_that_can_not_be_stored_names_handler_and_type(place: Place) -> None:
    async def act(ctx: WorkflowContext) -> Any:
        return Opaque()

    with pytest.raises(InvalidInput, match=r"result of Shop\.run.*Opaque`"):
        result_of(place, act)


def test_a_handler_result_of_the_wrong_type_is_refused(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Adder()) as engine:
            with pytest.raises(InvalidInput, match=r"result of Adder\.lie.*`int`.*`str`"):
                await engine.call(Adder.lie)

    run(main())


@pytest.mark.parametrize("what", ["result of step 'load'", "state 's'", "value of promise 'p'"])
def test_a_value_over_the_limit_names_its_place_and_both_sizes(
    resident_place: Place, what: str
) -> None:
    async def act(ctx: WorkflowContext) -> None:
        if what.startswith("result"):
            await ctx.run("load", lambda: bytes(TOO_LARGE))
        elif what.startswith("state"):
            ctx.set("s", bytes(TOO_LARGE))
        else:
            await ctx.promise("p").resolve(bytes(TOO_LARGE))

    limit = r"is 33,554,4\d\d bytes when encoded; the limit is 33,554,432 bytes: keep large data"
    with pytest.raises(InvalidInput, match=f"^{what} {limit}"):
        result_of(resident_place, act)


def test_an_argument_over_the_limit_is_refused_before_anything_is_written(
    resident_place: Place,
) -> None:
    async def main() -> None:
        async with resident_place.engine(Shop()) as engine:
            before = scheduler_of(engine).store.sealed
            with pytest.raises(InvalidInput, match=r"argument of Shop\.anything is 33,554,4"):
                await engine.send(Shop.anything, bytes(TOO_LARGE), key="k")
            assert scheduler_of(engine).store.sealed == before

    run(main())


@pytest.mark.parametrize("verb", ["call", "send"])
@pytest.mark.parametrize(
    ("order", "path"),
    [
        (Order([Line("x", 1), Line("y", WORD)]), r"lines\[.*\]\.quantity"),
        ({"lines": [{"article": "x"}]}, r"quantity"),
        ({"lines": 7}, r"\$\.lines"),
        ("order", r"`Order`|`object`"),
        (None, r"null|None"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused_with_the_path_of_the_field(
    resident_place: Place, verb: str, order: Any, path: str
) -> None:
    async def main() -> None:
        async with resident_place.engine(Shop()) as engine:
            with pytest.raises(InvalidInput, match=rf"argument of Shop\.order.*({path})"):
                await getattr(engine, verb)(Shop.order, order, key="k")
            await until_idle(engine)

    run(main())


def test_an_argument_that_can_not_be_stored_names_handler_and_type(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Shop()) as engine:
            with pytest.raises(InvalidInput, match=r"argument of Shop\.anything.*Opaque`"):
                await engine.call(Shop.anything, Opaque(), key="k")

    run(main())


def test_a_missing_argument_is_not_the_same_as_none(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Shop()) as engine:
            await engine.call(Shop.anything, None, key="k")
            with pytest.raises(InvalidInput, match=r"Shop\.anything needs an argument"):
                await engine.call("Shop.anything", key="k")

    run(main())


def test_an_argument_for_a_handler_that_takes_none_is_refused(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Shop()) as engine:
            with pytest.raises(InvalidInput, match=r"Shop\.run takes no argument, got 'extra'"):
                await engine.call("Shop.run", "extra", key="k")

    run(main())


def test_a_result_asked_for_as_another_type_is_refused_at_the_caller(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Adder()) as engine:
            with pytest.raises(InvalidInput, match=r"result.*`str`.*`int`"):
                await engine.call("Adder.add", 1, returns=str)
            assert await engine.call("Adder.add", 1) == 2

    run(main())


@pytest.mark.parametrize(
    "headers",
    [{"a": 5}, {5: "a"}, {"a": Opaque()}, {"a": "\ud800"}, {"\ud800": "a"}, ["a"], "ab", 7],
)
def test_headers_are_texts_and_anything_else_is_refused_at_the_caller(
    resident_place: Place, headers: Any
) -> None:
    async def main() -> None:
        async with resident_place.engine(Adder()) as engine:
            for verb in (engine.call, engine.send):
                with pytest.raises(InvalidInput, match="headers"):
                    await verb(Adder.add, 1, headers=headers)
            assert await engine.call(Adder.add, 1, headers={"a": "b"}) == 2

    run(main())
