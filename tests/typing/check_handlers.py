"""What type checkers make of handlers given to the engine by reference.

Nothing runs this module: mypy and pyright check it, and that what is ignored here is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from perdure import (
    Context,
    Engine,
    InvocationHandle,
    ObjectContext,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


@dataclass
class Document:
    title: str


@dataclass
class Result:
    status: str


class Approval(Workflow):
    async def run(self, ctx: WorkflowContext, doc: Document) -> Result:
        raise NotImplementedError

    @handler
    async def approve(self, ctx: WorkflowSharedContext, by: str) -> None: ...

    @handler(name="state-of")
    async def status(self, ctx: WorkflowSharedContext) -> str:
        raise NotImplementedError

    @handler
    async def find(self, ctx: WorkflowSharedContext, text: str = "") -> list[int]:
        raise NotImplementedError


class Sub(Approval): ...


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, number: int) -> int:
        raise NotImplementedError


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str | None) -> str:
        raise NotImplementedError

    @handler
    async def forever(self, ctx: Context) -> None: ...


async def call_has_the_type_of_the_result(engine: Engine) -> None:
    assert_type(await engine.call(Approval.run, Document("a"), key="k"), Result)
    assert_type(await engine.call(Approval.status, key="k"), str)
    assert_type(await engine.call(Approval.find, "a", key="k"), list[int])
    assert_type(await engine.call(Approval.find, key="k"), list[int])
    assert_type(await engine.call(Sub.run, Document("a"), key="k"), Result)
    assert_type(await engine.call(Counter.add, 1, key="k"), int)
    assert_type(await engine.call(Greeter.greet, None), str)
    assert_type(await engine.call("Greeter.greet", "a", returns=str), Any)


async def send_gives_a_handle_with_the_type_of_the_result(engine: Engine) -> None:
    handle = await engine.send(Approval.run, Document("a"), key="k")
    assert_type(handle, InvocationHandle[Result])
    assert_type(await handle.result(), Result)
    assert_type(await handle.output(), Result)
    assert_type(await engine.send(Greeter.forever), InvocationHandle[None])
    assert_type(await engine.send("Greeter.greet", "a"), InvocationHandle[Any])


async def submit_has_the_type_of_the_result(engine: Engine) -> None:
    assert_type(await engine.submit(Approval.run, Document("a"), key="k"), Result)
    assert_type(await engine.submit("Approval.run", Document("a"), key="k"), Any)


async def an_argument_of_another_type_is_an_error(engine: Engine) -> None:
    await engine.call(Approval.run, "a", key="k")  # type: ignore[arg-type]
    await engine.send(Approval.run, Result("a"), key="k")  # type: ignore[arg-type]
    await engine.submit(Approval.run, None, key="k")  # type: ignore[misc]
    await engine.call(Counter.add, "1", key="k")  # type: ignore[arg-type]
    await engine.call(Greeter.greet, 7)  # type: ignore[arg-type]


async def an_argument_left_out_or_too_many_is_an_error(engine: Engine) -> None:
    await engine.call(Approval.run, key="k")  # type: ignore[arg-type]
    await engine.send(Counter.add, key="k")  # type: ignore[arg-type]
    await engine.call(Approval.status, "a", key="k")  # type: ignore[arg-type]
    await engine.submit(Greeter.forever, None)  # type: ignore[arg-type]


async def a_result_of_another_type_is_an_error(engine: Engine) -> None:
    _number: int = await engine.call(Approval.run, Document("a"), key="k")  # type: ignore[arg-type]
    _handle: InvocationHandle[int] = await engine.send(
        Approval.run,  # type: ignore[arg-type]
        Document("a"),
        key="k",
    )


async def what_is_no_handler_is_an_error(engine: Engine) -> None:
    await engine.call(7)  # type: ignore[call-overload]
    await engine.call(Approval)  # type: ignore[arg-type]
    await engine.call(len, "a")  # type: ignore[arg-type]
    await engine.call(Approval.run, Document("a"), key=7)  # type: ignore[call-overload]
    await engine.call(Approval.missing, key="k")  # type: ignore[attr-defined]
