"""What tests of the wire share: services to ask, and clients in the process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
from engine_support import Place

import perdure
from perdure import (
    Context,
    Engine,
    ObjectContext,
    ObjectSharedContext,
    Pending,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.http import admin, ingress

JSON = {"content-type": "application/json"}


@dataclass
class Item:
    name: str
    price: float
    due: datetime | None = None


class Greeter(perdure.Service):
    """Answers at once."""

    @perdure.handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"hi {name}"

    @perdure.handler
    async def untyped(self, ctx: Context, value):  # type: ignore[no-untyped-def]
        return value

    @perdure.handler
    async def void(self, ctx: Context, name: str) -> None: ...

    @perdure.handler
    async def noargs(self, ctx: Context) -> str:
        return "noargs"

    @perdure.handler
    async def maybe(self, ctx: Context, name: str | None = "nobody") -> str | None:
        return name

    @perdure.handler
    async def raw(self, ctx: Context, content: bytes) -> bytes:
        return content[::-1]

    @perdure.handler
    async def price(self, ctx: Context, item: Item) -> Item:
        return Item(item.name, item.price * 2, item.due)

    @perdure.handler
    async def fail(self, ctx: Context, code: int) -> None:
        raise TerminalError("my msg", code or None, {"k": "v"} if code else None)

    @perdure.handler
    async def headers(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)

    @perdure.handler(private=True)
    async def secret(self, ctx: Context) -> None: ...

    @perdure.handler
    async def wait(self, ctx: Context) -> str:
        return await ctx.signal("go", str)

    @perdure.handler
    async def nap(self, ctx: Context, seconds: float) -> str:
        await ctx.sleep(seconds)
        return "awake"


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total

    @perdure.handler
    async def total(self, ctx: ObjectSharedContext) -> int:
        return await ctx.get("total", int, 0)

    @perdure.handler
    async def slow(self, ctx: ObjectContext) -> str:
        return await ctx.signal("go", str)


class Signup(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, name: str) -> str:
        ctx.set("status", "waiting")
        return f"{name}:{await ctx.promise('approval', str)}"

    @perdure.handler
    async def approve(self, ctx: WorkflowSharedContext, answer: str) -> str:
        await ctx.promise("approval", str).resolve(answer)
        return "resolved"

    @perdure.handler
    async def refuse(self, ctx: WorkflowSharedContext, reason: str) -> None:
        await ctx.promise("approval", str).reject(reason, 499)

    @perdure.handler
    async def peek(self, ctx: WorkflowSharedContext) -> str | None:
        value = await ctx.promise("approval", str).peek()
        return None if value is Pending else value


class Waiter(perdure.Service):
    """Waits for awakeables, whose ids it leaves in ``ids``."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    @perdure.handler
    async def wait(self, ctx: Context) -> str:
        awakeable = ctx.awakeable(str)
        if awakeable.id not in self.ids:
            self.ids.append(awakeable.id)
        return await awakeable

    @perdure.handler
    async def waiting(self, ctx: Context) -> list[str]:
        return self.ids


class Wire:
    """An engine, and clients of its two apps."""

    def __init__(self, engine: Engine, waiter: Waiter) -> None:
        self.engine = engine
        self.waiter = waiter
        self.ingress = _client(ingress(engine))
        self.admin = _client(admin(engine))

    async def call(self, path: str, value: Any = ..., **headers: str) -> httpx.Response:
        """POST *value* as JSON; without one, nothing."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        if value is ...:
            return await self.ingress.post(path, headers=sent)
        return await self.ingress.post(path, json=value, headers=sent)


def _client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://perdure.test")


@contextlib.asynccontextmanager
async def wire(place: Place, **options: Any) -> AsyncIterator[Wire]:
    waiter = Waiter()
    async with place.engine(Greeter(), Counter(), Signup(), waiter, **options) as engine:
        on = Wire(engine, waiter)
        async with on.ingress, on.admin:
            yield on


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, message and source of an error; its body and its headers agree."""
    body = answer.json()
    assert body["code"] == answer.status_code
    assert answer.headers["x-restate-error-source"] == body["source"]
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, body["message"], body["source"]
