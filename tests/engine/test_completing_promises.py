"""Promises completed from outside: engine.resolve and engine.reject."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, scheduler_of, until_idle, until_status
from stalled_disk import StalledDisk

import perdure
from perdure import (
    AlreadyCompleted,
    Engine,
    InvalidInput,
    NotFound,
    Pending,
    Service,
    Status,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._store import Store, _store


@dataclass(frozen=True)
class Decision:
    approved: bool
    by: str = ""


class Approval(Workflow):
    approval = perdure.promise(Decision)
    renamed = perdure.promise(int, name="the number")
    status = perdure.state(str)

    async def run(self, ctx: WorkflowContext) -> Decision:
        return await ctx.promise(self.approval)

    @handler
    async def wait(self, ctx: WorkflowSharedContext) -> Decision:
        return await ctx.promise(Approval.approval)

    @handler
    async def number(self, ctx: WorkflowSharedContext) -> int:
        return await ctx.promise("the number", int)

    @handler
    async def peek(self, ctx: WorkflowSharedContext) -> bool:
        return await ctx.promise(Approval.approval).peek() is not Pending

    @handler
    async def undeclared(self, ctx: WorkflowSharedContext) -> Any:
        return await ctx.promise("other.name")


class Other(Workflow):
    async def run(self, ctx: WorkflowContext) -> None: ...


class Dotted(Other, name="Approval.more"): ...


class Base(Workflow, abstract=True):
    inherited = perdure.promise(int)

    async def run(self, ctx: WorkflowContext) -> int:
        return await ctx.promise(self.inherited)


class First(Base): ...


class Second(Base): ...


class Plain(Service):
    @handler
    async def go(self, ctx: perdure.Context) -> None: ...


class Thing(VirtualObject):
    @handler
    async def go(self, ctx: perdure.ObjectContext) -> None: ...


YES = Decision(True, "bob")


def test_who_waits_gets_the_value_that_comes_from_outside(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            handles = [await engine.send(Approval.run, key="k")]
            handles += [await engine.send(Approval.wait, key="k") for _ in range(3)]
            await until_status(engine, handles[0], Status.SUSPENDED)
            await until_idle(engine)
            await engine.resolve(Approval.approval, YES, key="k")
            assert [await handle.result() for handle in handles] == [YES] * 4

    run(main())


def test_a_promise_may_be_resolved_from_outside_before_the_run_starts(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            await engine.resolve(Approval.approval, YES, key="k")
        async with place.engine(Approval()) as engine:
            assert await engine.submit(Approval.run, key="k") == YES

    run(main())


def test_a_workflow_that_waited_at_the_last_closing_is_resolved(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            handle = await engine.send(Approval.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(Approval()) as engine:
            await engine.resolve(Approval.approval, YES, key="k")
            assert await engine.attach(handle.id) == YES

    run(main())


def test_a_promise_that_nobody_waits_for_is_resolved_for_its_key_alone(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            await engine.resolve(Approval.approval, YES, key="k")
            assert await engine.call(Approval.peek, key="k")
            assert not await engine.call(Approval.peek, key="other")

    run(main())


def test_a_rejection_from_outside_raises_the_reason(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            handle = await engine.send(Approval.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            await engine.reject(Approval.approval, "no", key="k", code=403)
            with pytest.raises(TerminalError, match=r"^no$") as caught:
                await handle.result()
            assert caught.value.code == 403
            failure = TerminalError("gone", 410, {"who": "bob"})
            await engine.reject("Approval.approval", failure, key="2")
            with pytest.raises(TerminalError, match=r"^gone$") as caught:
                await engine.call(Approval.peek, key="2")
            assert (caught.value.code, caught.value.metadata) == (410, {"who": "bob"})
            await engine.reject(Approval.approval, "plain", key="3")
            with pytest.raises(TerminalError, match=r"^plain$") as caught:
                await engine.call(Approval.peek, key="3")
            assert caught.value.code == 500

    run(main())


def test_a_second_completion_from_outside_is_refused_and_the_first_stands(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            await engine.resolve(Approval.approval, YES, key="k")
            with pytest.raises(AlreadyCompleted, match="'approval' was already") as caught:
                await engine.resolve(Approval.approval, Decision(False), key="k")
            assert caught.value.code == 409
            with pytest.raises(AlreadyCompleted):
                await engine.reject("Approval.approval", "no", key="k")
            assert await engine.submit(Approval.run, key="k") == YES
            await engine.reject(Approval.approval, "no", key="2")
            with pytest.raises(AlreadyCompleted):
                await engine.resolve(Approval.approval, YES, key="2")

    run(main())


def test_of_many_resolvers_at_once_one_wins(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            handle = await engine.send(Approval.run, key="k")
            outcomes = await asyncio.gather(
                *(
                    engine.resolve(Approval.approval, Decision(True, str(number)), key="k")
                    for number in range(10)
                ),
                return_exceptions=True,
            )
            assert [type(each) for each in outcomes if each] == [AlreadyCompleted] * 9
            assert (await handle.result()).by == str(outcomes.index(None))

    run(main())


def test_a_name_given_to_a_declaration_is_the_name_of_the_promise(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            await engine.resolve(Approval.renamed, 7, key="k")
            assert await engine.call(Approval.number, key="k") == 7
            await engine.resolve("Approval.the number", 8, key="2")
            assert await engine.call(Approval.number, key="2") == 8

    run(main())


def test_a_text_may_name_what_is_not_declared_with_dots_in_it(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            await engine.resolve("Approval.other.name", [1, {"a": None}], key="k")
            assert await engine.call(Approval.undeclared, key="k") == [1, {"a": None}]

    run(main())


def test_workflows_that_inherit_a_promise_have_one_each(place: Place) -> None:
    async def main() -> None:
        async with place.engine(First(), Second()) as engine:
            await engine.resolve(First.inherited, 1, key="k")
            await engine.resolve(Second.inherited, 2, key="k")
            assert await engine.submit(First.run, key="k") == 1
            assert await engine.submit(Second.run, key="k") == 2

    run(main())


@contextlib.asynccontextmanager
async def an_engine_that_writes_nothing(place: Place, *services: Any) -> AsyncIterator[Engine]:
    async with place.engine(Approval(), *services) as engine:
        store = scheduler_of(engine).store
        sealed = store.sealed
        yield engine
        assert store.sealed == sealed


BAD_PROMISES: list[tuple[Any, type[TerminalError], str]] = [
    (None, InvalidInput, "None is no promise; give"),
    (7, InvalidInput, "7 is no promise; give"),
    (Approval.run, InvalidInput, "Approval.run is no promise; give"),
    (Approval.status, InvalidInput, "<state 'status' of Approval> is a state; a promise"),
    (Base.inherited, InvalidInput, "<promise 'inherited' of Base> belongs to no workflow"),
    (perdure.promise(int), InvalidInput, "<promise '' of no class> belongs to no workflow"),
    ("approval", InvalidInput, "'approval' names no promise; write"),
    ("", InvalidInput, "'' names no promise; write"),
    (".approval", InvalidInput, "names no promise; write"),
    ("Approval.", InvalidInput, "names no promise; write"),
    ("Aproval.approval", NotFound, "service 'Aproval' is not .*; did you mean 'Approval'?"),
    (First.inherited, NotFound, "service 'First' is not registered here; there are: Approval"),
    ("Plain.approval", InvalidInput, "Plain is of kind 'service' and has no promises"),
    ("Thing.approval", InvalidInput, "Thing is of kind 'object' and has no promises"),
    ("Approval.more.name", InvalidInput, "may be a promise of Approval or of Approval.more"),
    ("Approval." + "x" * 97, InvalidInput, "promise name .* the limit is 96"),
    ("Approval.\ud800", InvalidInput, "lone surrogate"),
]


@pytest.mark.parametrize(("promise", "error", "text"), BAD_PROMISES)
def test_what_is_no_promise_is_refused(
    resident_place: Place, promise: Any, error: type[TerminalError], text: str
) -> None:
    async def main() -> None:
        services = (Plain(), Thing(), Dotted())
        async with an_engine_that_writes_nothing(resident_place, *services) as engine:
            with pytest.raises(error, match=text):
                await engine.resolve(promise, YES, key="k")
            with pytest.raises(error, match=text):
                await engine.reject(promise, "no", key="k")

    run(main())


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (None, "promise Approval.approval needs key="),
        (7, "key of promise Approval.approval: expected `str`, got `int`"),
        ("k" * 257, "the limit is 256"),
    ],
)
def test_what_is_no_key_of_a_promise_is_refused(resident_place: Place, key: Any, text: str) -> None:
    async def main() -> None:
        async with an_engine_that_writes_nothing(resident_place) as engine:
            for promise in (Approval.approval, "Approval.approval"):
                with pytest.raises(InvalidInput, match=text):
                    await engine.resolve(promise, YES, key=key)
                with pytest.raises(InvalidInput, match=text):
                    await engine.reject(promise, "no", key=key)

    run(main())


@pytest.mark.parametrize(
    ("promise", "value"),
    [
        (Approval.approval, "yes"),
        (Approval.approval, None),
        (Approval.approval, {"approved": "perhaps"}),
        ("Approval.approval", "yes"),
        (Approval.renamed, "seven"),
        ("Approval.the number", 7.5),
        ("Approval.undeclared", object()),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_from_outside(
    resident_place: Place, promise: Any, value: Any
) -> None:
    async def main() -> None:
        async with an_engine_that_writes_nothing(resident_place) as engine:
            with pytest.raises(InvalidInput, match=r"^value of promise '"):
                await engine.resolve(promise, value, key="k")

    run(main())


@pytest.mark.parametrize(
    ("reason", "code", "text"),
    [
        (None, 500, "rejected with a text or a TerminalError, not NoneType"),
        (ValueError("x"), 500, "rejected with a text or a TerminalError, not ValueError"),
        ("no", "403", "the code of a rejection is an HTTP status, not '403'"),
        ("no", None, "the code of a rejection is an HTTP status, not None"),
    ],
)
def test_what_is_no_reason_is_refused_from_outside(
    resident_place: Place, reason: Any, code: Any, text: str
) -> None:
    async def main() -> None:
        async with an_engine_that_writes_nothing(resident_place) as engine:
            with pytest.raises(InvalidInput, match=text):
                await engine.reject(Approval.approval, reason, key="k", code=code)

    run(main())


def test_plain_values_of_the_right_shape_do_for_a_declared_type(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Approval()) as engine:
            await engine.resolve("Approval.approval", {"approved": True}, key="k")
            assert await engine.submit(Approval.run, key="k") == Decision(True)

    run(main())


def test_no_answer_of_a_completion_leaves_before_its_commit(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Approval()) as engine:
            with StalledDisk(resident_place.path):
                first = asyncio.create_task(engine.resolve(Approval.approval, YES, key="k"))
                await asyncio.sleep(0.01)
                second = asyncio.create_task(engine.reject(Approval.approval, "no", key="k"))
                await asyncio.sleep(0.05)
                assert not first.done()
                assert not second.done()
            await first
            with pytest.raises(AlreadyCompleted):
                await second

    run(main())


def test_a_completion_waits_while_too_much_is_uncommitted(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with resident_place.engine(Approval()) as engine:
            store = scheduler_of(engine).store
            with StalledDisk(resident_place.path):
                first = asyncio.create_task(engine.resolve(Approval.approval, YES, key="1"))
                await asyncio.sleep(0.01)
                monkeypatch.setattr(_store, "UNCOMMITTED_BYTES_MAX", 1)
                sealed = store.sealed
                second = asyncio.create_task(engine.resolve(Approval.approval, YES, key="2"))
                await asyncio.sleep(0.05)
                assert store.sealed == sealed
            await asyncio.gather(first, second)

    run(main())


def test_an_interrupt_in_the_middle_of_a_completion_leaves_no_half_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_log()

    def interrupt(store: Store, *row: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    async def first() -> None:
        async with place.engine(Approval()) as engine:
            handle = await engine.send(Approval.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            monkeypatch.setattr(Store, "delete", interrupt)
            with pytest.raises(KeyboardInterrupt):
                await engine.resolve(Approval.approval, YES, key="k")
            with pytest.raises(perdure.PerdureError, match="interrupted in the middle of a write"):
                await engine.resolve(Approval.approval, YES, key="other")

    async def second() -> None:
        async with place.engine(Approval()) as engine:
            assert not await engine.call(Approval.peek, key="k")
            await engine.resolve(Approval.approval, YES, key="k")
            assert await engine.submit(Approval.run, key="k") == YES

    run(first())
    run(second())


def test_a_closed_engine_completes_nothing(resident_place: Place) -> None:
    async def main() -> None:
        engine = resident_place.engine(Approval())
        with pytest.raises(perdure.StoreClosed, match="not open"):
            await engine.resolve(Approval.approval, YES, key="k")
        with pytest.raises(perdure.StoreClosed, match="not open"):
            await engine.reject(Approval.approval, "no", key="k")
        async with engine:
            pass
        with pytest.raises(perdure.StoreClosed):
            await engine.resolve(Approval.approval, YES, key="k")

    run(main())


def test_a_handler_may_not_use_the_engine_to_complete_a_promise(place: Place) -> None:
    class Inside(Approval):
        engine: Engine

        @handler
        async def shortcut(self, ctx: WorkflowSharedContext) -> None:
            await self.engine.resolve(Inside.approval, YES, key=ctx.key)

        @handler
        async def step(self, ctx: WorkflowSharedContext) -> None:
            await ctx.run("resolve", self.resolve, ctx.key)

        async def resolve(self, key: str) -> None:
            await self.engine.resolve(Inside.approval, YES, key=key)

    async def main() -> None:
        inside = Inside()
        async with place.engine(inside) as engine:
            inside.engine = engine
            with pytest.raises(InvalidInput, match="in a step"):
                await engine.call(Inside.shortcut, key="k")
            await engine.call(Inside.step, key="k")
            assert await engine.submit(Inside.run, key="k") == YES

    run(main())
