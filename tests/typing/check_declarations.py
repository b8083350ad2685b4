"""What type checkers make of promises, state and signals declared on the class.

Nothing runs this module: mypy and pyright check it, and that what is ignored here is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, assert_type

import perdure
from perdure import (
    DurableFuture,
    DurablePromise,
    Engine,
    ObjectContext,
    ObjectSharedContext,
    PromiseDeclaration,
    SignalDeclaration,
    StateDeclaration,
    StateWithDefault,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.futures import PendingType


@dataclass
class Decision:
    approved: bool


class Approval(Workflow):
    approval = perdure.promise(Decision)
    named = perdure.promise(int, name="the number")
    either: ClassVar[PromiseDeclaration[int | None]] = perdure.promise(int | None)
    anything: ClassVar[PromiseDeclaration[Any]] = perdure.promise(Any)
    opaque = perdure.promise(object)
    status = perdure.state(str)
    count = perdure.state(int, default=0)
    tags = perdure.state(list[str], default=[], name="the tags")
    nudge = perdure.signal(str)

    async def run(self, ctx: WorkflowContext) -> None:
        assert_type(self.approval, PromiseDeclaration[Decision])
        assert_type(type(self).approval, PromiseDeclaration[Decision])
        assert_type(self.count, StateWithDefault[int])
        assert_type(await ctx.promise(self.approval), Decision)
        assert_type(await ctx.get(self.count), int)


class Sub(Approval): ...


class Counter(VirtualObject):
    count = perdure.state(int, default=0)

    @handler
    async def add(self, ctx: ObjectContext, number: int) -> int:
        assert_type(await ctx.get(self.count), int)
        ctx.set(self.count, await ctx.get(self.count) + number)
        ctx.set(self.count, "a")  # type: ignore[misc]
        return await ctx.get(Counter.count)

    @handler
    async def read(self, ctx: ObjectSharedContext) -> int:
        return await ctx.get(self.count)


def declarations_have_the_type_they_were_made_with() -> None:
    assert_type(Approval.approval, PromiseDeclaration[Decision])
    assert_type(Approval.named, PromiseDeclaration[int])
    assert_type(Approval.either, PromiseDeclaration[int | None])
    assert_type(Approval.anything, PromiseDeclaration[Any])
    assert_type(Approval.status, StateDeclaration[str])
    assert_type(Approval.count, StateWithDefault[int])
    assert_type(Approval.tags, StateWithDefault[list[str]])
    assert_type(Approval.nudge, SignalDeclaration[str])
    assert_type(Sub.approval, PromiseDeclaration[Decision])
    assert_type(Sub().status, StateDeclaration[str])
    assert_type(Approval.approval.name, str)


async def promises_have_their_declared_type(
    ctx: WorkflowContext, shared: WorkflowSharedContext
) -> None:
    assert_type(ctx.promise(Approval.approval), DurablePromise[Decision])
    assert_type(shared.promise(Sub.approval), DurablePromise[Decision])
    assert_type(await ctx.promise(Approval.named), int)
    assert_type(await ctx.promise(Approval.either), int | None)
    assert_type(await shared.promise(Approval.named).peek(), int | PendingType)
    await shared.promise(Approval.approval).resolve(Decision(True))


async def signals_have_their_declared_type(ctx: WorkflowContext, engine: Engine) -> None:
    assert_type(ctx.signal(Approval.nudge), DurableFuture[str])
    assert_type(await ctx.signal(Approval.nudge), str)
    await engine.signal("inv_", Approval.nudge, "now")
    await engine.signal("inv_", "nudge", 7)
    await engine.signal("inv_", Approval.nudge, 7)  # type: ignore[misc]
    ctx.signal(Approval.status)  # type: ignore[call-overload]


async def state_has_its_declared_type(ctx: WorkflowContext, shared: WorkflowSharedContext) -> None:
    assert_type(await ctx.get(Approval.status), str | None)
    assert_type(await shared.get(Approval.count), int)
    assert_type(await shared.get(Approval.tags), list[str])
    ctx.set(Approval.status, "new")
    ctx.set(Approval.count, 7)
    ctx.clear(Approval.count)
    ctx.set("by name", object())
    ctx.clear("by name")


async def outside_values_have_the_declared_type(engine: Engine) -> None:
    assert_type(await engine.resolve(Approval.approval, Decision(True), key="k"), None)
    await engine.resolve(Approval.either, None, key="k")
    await engine.resolve(Approval.anything, object(), key="k")
    await engine.resolve(Approval.opaque, [1, "a"], key="k")
    await engine.resolve("Approval.approval", {"approved": True}, key="k")
    await engine.reject(Approval.approval, "no", key="k", code=403)
    await engine.reject("Approval.approval", TerminalError("no"), key="k")


async def a_value_of_another_type_is_an_error(
    ctx: WorkflowContext, shared: WorkflowSharedContext, engine: Engine
) -> None:
    ctx.set(Approval.status, 7)  # type: ignore[misc]
    ctx.set(Approval.count, None)  # type: ignore[misc]
    await shared.promise(Approval.approval).resolve(True)  # type: ignore[arg-type]
    await engine.resolve(Approval.approval, True, key="k")  # type: ignore[misc]
    await engine.resolve(Sub.named, "seven", key="k")  # type: ignore[misc]
    await engine.reject(Approval.approval, 7, key="k")  # type: ignore[call-overload]
    _text: str = await ctx.get(Approval.status)  # type: ignore[assignment]
    _number: int = await ctx.promise(Approval.approval)  # type: ignore[arg-type]


def a_declaration_is_not_assigned_to(approval: Approval) -> None:
    approval.status = "new"  # type: ignore[assignment]
    approval.count = 7  # type: ignore[assignment]


async def a_declaration_of_another_kind_is_an_error(ctx: WorkflowContext, engine: Engine) -> None:
    ctx.promise(Approval.status)  # type: ignore[call-overload]
    await ctx.get(Approval.approval)  # type: ignore[call-overload]
    ctx.set(Approval.approval, Decision(True))  # type: ignore[call-overload]
    ctx.clear(Approval.nudge)  # type: ignore[arg-type]
    await engine.resolve(Approval.status, "new", key="k")  # type: ignore[call-overload]
    await engine.reject(Approval.nudge, "no", key="k")  # type: ignore[call-overload]


async def what_a_declaration_says_is_not_said_again(ctx: WorkflowContext) -> None:
    ctx.promise(Approval.approval, Decision)  # type: ignore[call-overload]
    await ctx.get(Approval.status, str)  # type: ignore[call-overload]
    await ctx.get(Approval.status, default="new")  # type: ignore[call-overload]


async def a_promise_from_outside_needs_a_key(engine: Engine) -> None:
    await engine.resolve(Approval.approval, Decision(True))  # type: ignore[call-overload]
    await engine.reject(Approval.approval, "no")  # type: ignore[call-overload]


class Wrong(Workflow):
    no_type = perdure.promise()  # type: ignore[call-overload]
    no_name = perdure.state(int, name=7)  # type: ignore[call-overload]
    default_of_a_signal = perdure.signal(int, default=7)  # type: ignore[call-overload]

    async def run(self, ctx: WorkflowContext) -> None: ...
