"""Services of every kind whose handlers do what the test says, for whoever drives them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

Body = Callable[..., Awaitable[Any]]
"""What a handler does: it is given the context, whose kind is that of the handler."""

_bodies: dict[str, Body] = {}
_numbers = itertools.count()


def named(body: Body) -> str:
    """A name by which any of the handlers runs *body*."""
    name = f"{next(_numbers)}-{uuid.uuid4().hex}"
    _bodies[name] = body
    return name


class Script(Workflow):
    async def run(self, ctx: WorkflowContext, name: str) -> Any:
        return await _bodies[name](ctx)

    @handler
    async def aside(self, ctx: WorkflowSharedContext, name: str) -> Any:
        return await _bodies[name](ctx)

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, promise: str) -> None:
        await ctx.promise(promise).resolve(f"value of {promise}")


class Thing(VirtualObject):
    @handler
    async def act(self, ctx: ObjectContext, name: str) -> Any:
        return await _bodies[name](ctx)

    @handler
    async def look(self, ctx: ObjectSharedContext, name: str) -> Any:
        return await _bodies[name](ctx)


class Plain(Service):
    @handler
    async def act(self, ctx: Context, name: str) -> Any:
        return await _bodies[name](ctx)

    @handler
    async def echo(self, ctx: Context, what: Any) -> Any:
        return what

    @handler
    async def optional(self, ctx: Context, what: str | None = "left out") -> str | None:
        return what

    @handler
    async def nothing(self, ctx: Context) -> None:
        return None

    @handler
    async def blob(self, ctx: Context, blob: bytes) -> bytes:
        return blob[::-1]


SERVICES = (Script, Thing, Plain)
