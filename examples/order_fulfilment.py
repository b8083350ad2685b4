"""An order from the payment to the door: promises one after the other, and side by side.

The payment comes first. Then the warehouse packs while the carrier sends a label, in whichever
order; the parcel goes out when both are ready. Each of them reports by calling a handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import perdure
from perdure import AlreadyCompleted, TerminalError, WorkflowContext, WorkflowSharedContext


class Status(StrEnum):
    UNKNOWN = "unknown"
    UNPAID = "waiting for the payment"
    PREPARING = "packing"
    SHIPPED = "on its way"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Order:
    id: str
    product: str
    address: str


@dataclass
class Shop:
    """Tells others what to do; here it only notes that it did."""

    told: list[str] = field(default_factory=list)

    async def tell(self, whom: str, what: str) -> None:
        self.told.append(f"{whom}: {what}")


class OrderFulfilment(perdure.Workflow):
    """The key is the order's id."""

    def __init__(self, shop: Shop, *, payment_within: timedelta = timedelta(days=7)) -> None:
        self.shop = shop
        self.payment_within = payment_within

    async def run(self, ctx: WorkflowContext, order: Order) -> Status:
        """See the order through."""
        ctx.set("status", Status.UNPAID)
        await ctx.run("send invoice", self.shop.tell, "customer", f"please pay for {order.id}")
        paid = ctx.promise("paid", str)
        deadline = ctx.after(self.payment_within)
        if await ctx.wait_first(paid, deadline) is deadline:
            with contextlib.suppress(AlreadyCompleted):  # a payment at the last moment counts
                await paid.reject("the order has expired", 410)
        try:
            transaction = await paid
        except TerminalError:
            ctx.set("status", Status.CANCELLED)
            return Status.CANCELLED

        ctx.set("status", Status.PREPARING)
        await asyncio.gather(
            ctx.run("ask warehouse", self.shop.tell, "warehouse", f"pack {order.product}"),
            ctx.run("ask carrier", self.shop.tell, "carrier", f"fetch for {order.address}"),
        )
        parcel, label = await asyncio.gather(ctx.promise("parcel", str), ctx.promise("label", str))
        ctx.set("status", Status.SHIPPED)
        note = f"{parcel} is on its way as {label}, paid by {transaction}"
        await ctx.run("tell customer", self.shop.tell, "customer", note)

        await ctx.promise("delivered", bool)
        ctx.set("status", Status.DELIVERED)
        return Status.DELIVERED

    @perdure.handler
    async def pay(self, ctx: WorkflowSharedContext, transaction: str) -> None:
        """For the payment provider: the money is there."""
        await ctx.promise("paid", str).resolve(transaction)

    @perdure.handler
    async def packed(self, ctx: WorkflowSharedContext, parcel: str) -> None:
        """For the warehouse."""
        await ctx.promise("parcel", str).resolve(parcel)

    @perdure.handler
    async def labelled(self, ctx: WorkflowSharedContext, label: str) -> None:
        """For the carrier: it will come, and this goes on the parcel."""
        await ctx.promise("label", str).resolve(label)

    @perdure.handler
    async def delivered(self, ctx: WorkflowSharedContext) -> None:
        """For the carrier: the parcel is at the door."""
        await ctx.promise("delivered", bool).resolve(True)

    @perdure.handler
    async def status(self, ctx: WorkflowSharedContext) -> Status:
        """How far the order is."""
        return await ctx.get("status", Status, Status.UNKNOWN)


services = [OrderFulfilment(Shop())]


async def main() -> None:
    shop = Shop()
    order = Order("o1", "teapot", "1 Quay Street")
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, [OrderFulfilment(shop)]) as engine:
            started = await engine.send(OrderFulfilment.run, order, key=order.id)
            await engine.call(OrderFulfilment.pay, "tx-7", key=order.id)
            await engine.call(OrderFulfilment.labelled, "label-3", key=order.id)
            await engine.call(OrderFulfilment.packed, "parcel-1", key=order.id)
            await engine.call(OrderFulfilment.delivered, key=order.id)
            print("the order is", await started.result())
    print(*shop.told, sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
