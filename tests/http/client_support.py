"""What tests of the client share: services, and an engine reached directly or over HTTP."""

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
    Client,
    Context,
    Engine,
    ObjectContext,
    ObjectSharedContext,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.http import admin, ingress

URL = "http://ingress.test"
ADMIN_URL = "http://admin.test"


@dataclass
class Document:
    title: str
    due: datetime | None = None


@dataclass
class Decision:
    approved: bool
    by: str = ""


class Approval(perdure.Workflow):
    decision = perdure.promise(Decision)

    async def run(self, ctx: WorkflowContext, document: Document) -> Decision:
        ctx.set("title", document.title)
        return await ctx.promise(Approval.decision)

    @perdure.handler
    async def title(self, ctx: WorkflowSharedContext) -> str | None:
        return await ctx.get("title", str)


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int = 1) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total

    @perdure.handler
    async def key_of(self, ctx: ObjectSharedContext) -> str:
        return ctx.key


class Desk(perdure.Service):
    """Leaves the ids of its awakeables in ``ids``, and counts its calls."""

    go = perdure.signal(str)
    moment = perdure.signal(datetime)

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.calls = 0

    @perdure.handler
    async def copy(self, ctx: Context, document: Document) -> Document:
        return document

    @perdure.handler
    async def nothing(self, ctx: Context) -> None: ...

    @perdure.handler
    async def maybe(self, ctx: Context, text: str | None) -> str | None:
        return text

    @perdure.handler
    async def raw(self, ctx: Context, content: bytes) -> bytes:
        return content[::-1]

    @perdure.handler
    async def untyped(self, ctx: Context, value):  # type: ignore[no-untyped-def]
        return value

    @perdure.handler
    async def fail(self, ctx: Context, code: int) -> None:
        raise TerminalError("no tea", code, {"shop": "closed"})

    @perdure.handler
    async def header(self, ctx: Context, name: str) -> str | None:
        return ctx.request.headers.get(name)

    @perdure.handler
    async def count(self, ctx: Context) -> int:
        return await ctx.run("count", self._count)

    async def _count(self) -> int:
        self.calls += 1
        return self.calls

    @perdure.handler
    async def wait(self, ctx: Context) -> str:
        return await ctx.signal(Desk.go)

    @perdure.handler
    async def when(self, ctx: Context) -> datetime:
        return await ctx.signal(Desk.moment)

    @perdure.handler
    async def ask(self, ctx: Context) -> str:
        awakeable = ctx.awakeable(str)
        if awakeable.id not in self.ids:
            self.ids.append(awakeable.id)
        return await awakeable

    @perdure.handler(private=True)
    async def secret(self, ctx: Context) -> None: ...


class ByHost(httpx.AsyncBaseTransport):
    """Carries requests to the apps of this process, by the host that a URL names."""

    def __init__(self, engine: Engine) -> None:
        self.serve(engine)

    def serve(self, engine: Engine) -> None:
        """Have the requests from now on go to the apps of *engine*."""
        self._apps = {
            "ingress.test": httpx.ASGITransport(ingress(engine)),
            "admin.test": httpx.ASGITransport(admin(engine)),
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._apps[request.url.host].handle_async_request(request)


class Served:
    """An engine, and the verbs to it: its own, or a client's."""

    def __init__(self, engine: Engine, desk: Desk, verbs: Any) -> None:
        self.engine = engine
        self.desk = desk
        self.verbs: Engine = verbs  # to type checkers: the verbs are the same


def client_of(engine: Engine, **options: Any) -> Client:
    """A client of *engine*, without a network."""
    return perdure.connect(URL, admin_url=ADMIN_URL, transport=ByHost(engine), **options)


@contextlib.asynccontextmanager
async def served(place: Place, by: str, **options: Any) -> AsyncIterator[Served]:
    """*by*: ``engine`` or ``client``."""
    desk = Desk()
    async with place.engine(Approval(), Counter(), desk, **options) as engine:
        if by == "engine":
            yield Served(engine, desk, engine)
            return
        async with client_of(engine) as client:
            yield Served(engine, desk, client)
