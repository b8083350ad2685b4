"""An application of FastAPI with durable workflows in it, all in one process.

The application opens the engine when it starts and closes it when it stops. Its own routes use the
engine directly; below /durable its handlers are served as they are, and below /operations the
admin is. `uvicorn mounted_in_fastapi:app` serves it, with its data in ./data.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import perdure
from perdure import TerminalError, WorkflowContext, WorkflowSharedContext
from perdure.http import admin, ingress


class Order(BaseModel):
    article: str
    count: int


class Delivery(perdure.Workflow):
    """The key is the number of the order."""

    async def run(self, ctx: WorkflowContext, order: Order) -> str:
        """Wait until the order is paid for, then send it off."""
        ctx.set("status", "waits for payment")
        payer = await ctx.promise("paid", str)
        await ctx.run("send off", print, f"{order.count} x {order.article}, paid by {payer}")
        ctx.set("status", "sent off")
        return payer

    @perdure.handler
    async def pay(self, ctx: WorkflowSharedContext, payer: str) -> None:
        """For the payment provider, which calls it over HTTP. A second payment is refused."""
        await ctx.promise("paid", str).resolve(payer)

    @perdure.handler
    async def status(self, ctx: WorkflowSharedContext) -> str:
        """Where the order is."""
        status = await ctx.get("status", str)
        if status is None:
            raise TerminalError(f"there is no order {ctx.key}", 404)
        return status


services = [Delivery()]


def application(data: Path) -> FastAPI:
    """The application; what has to last is in *data*."""
    engine = perdure.Engine(data, services)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Apps that are mounted get no lifespan of their own, so the engine is opened here, once.
        async with engine:
            yield

    app = FastAPI(title="Shop", lifespan=lifespan)

    @app.put("/orders/{number:path}", status_code=202)
    async def place(number: str, order: Order) -> dict[str, str]:
        """Once this has answered, the order outlives the process. Sent again, it is the same."""
        started = await engine.send(Delivery.run, order, key=number)
        return {"order": number, "status": started.accepted.value}

    @app.get("/orders/{number:path}")
    async def look(number: str) -> str:
        return await engine.call(Delivery.status, key=number)

    @app.exception_handler(TerminalError)
    async def refused(request: Request, error: TerminalError) -> JSONResponse:
        """The code of a terminal error is a status of HTTP, unless a handler says otherwise."""
        return JSONResponse({"detail": error.message}, error.code)

    app.mount("/durable", ingress(engine))
    app.mount("/operations", admin(engine))  # it sees and changes everything: let in nobody else
    return app


app = application(Path("data"))


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        shop = application(Path(directory))
        transport = httpx.ASGITransport(shop)
        async with (
            shop.router.lifespan_context(shop),  # as a server does
            httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            placed = await client.put("/orders/2026%2F17", json={"article": "tea", "count": 2})
            print("placed:", placed.json())
            print("status:", (await client.get("/orders/2026%2F17")).json())
            await client.post("/durable/Delivery/2026%2F17/pay", json="ada")
            paid = await client.get("/durable/restate/workflow/Delivery/2026%2F17/attach")
            print("paid by:", paid.json())
            print("status:", (await client.get("/orders/2026%2F17")).json())
            print("unknown:", (await client.get("/orders/1")).json())


if __name__ == "__main__":
    asyncio.run(main())
