"""The stock of a product, with reservations that expire by themselves.

Each reservation sends a message to the object it is in, delayed: durable, exactly once, and
without anything that looks for expired reservations from time to time.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from datetime import timedelta

import perdure
from perdure import ObjectContext, ObjectSharedContext, TerminalError


@dataclass(frozen=True)
class Reservation:
    order: str
    count: int


@dataclass(frozen=True)
class Held:
    count: int
    expiry: str  # id of the message that gives it back


@dataclass(frozen=True)
class Stock:
    available: int
    reserved: int


class Inventory(perdure.VirtualObject):
    """The key is the product."""

    def __init__(self, *, held_for: timedelta = timedelta(minutes=15)) -> None:
        self.held_for = held_for

    @perdure.handler
    async def restock(self, ctx: ObjectContext, count: int) -> int:
        """Add *count* pieces; how many are available then."""
        available = await ctx.get("available", int, 0) + count
        ctx.set("available", available)
        return available

    @perdure.handler
    async def reserve(self, ctx: ObjectContext, wanted: Reservation) -> None:
        """Set pieces aside for an order, for a while; asked again, it changes nothing."""
        reserved = await self._reserved(ctx)
        if wanted.order in reserved:
            return
        available = await ctx.get("available", int, 0)
        if wanted.count > available:
            raise TerminalError(f"{available} of {ctx.key} left, not {wanted.count}", 409)
        expiry = ctx.send(Inventory.release, wanted.order, key=ctx.key, delay=self.held_for)
        reserved[wanted.order] = Held(wanted.count, await expiry.invocation_id())
        ctx.set("reserved", reserved)
        ctx.set("available", available - wanted.count)

    @perdure.handler
    async def sell(self, ctx: ObjectContext, order: str) -> int:
        """The order's pieces leave the house; 410 if they are not set aside any more."""
        held = await self._take(ctx, order)
        if held is None:
            raise TerminalError(f"no {ctx.key} is set aside for order {order}", 410)
        return held.count

    @perdure.handler
    async def release(self, ctx: ObjectContext, order: str) -> None:
        """Give back what is set aside for *order*, if anything still is."""
        held = await self._take(ctx, order)
        if held is not None:
            ctx.set("available", await ctx.get("available", int, 0) + held.count)

    @perdure.handler
    async def stock(self, ctx: ObjectSharedContext) -> Stock:
        """How many pieces there are."""
        reserved = sum(held.count for held in (await self._reserved(ctx)).values())
        return Stock(await ctx.get("available", int, 0), reserved)

    async def _take(self, ctx: ObjectContext, order: str) -> Held | None:
        """End the order's reservation, and the message that would."""
        reserved = await self._reserved(ctx)
        held = reserved.pop(order, None)
        if held is not None:
            ctx.set("reserved", reserved)
            if held.expiry != ctx.invocation_id:
                ctx.cancel(held.expiry)
        return held

    async def _reserved(self, ctx: ObjectContext | ObjectSharedContext) -> dict[str, Held]:
        return await ctx.get("reserved", dict[str, Held], {})


services = [Inventory()]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        hasty = [Inventory(held_for=timedelta(seconds=0.2))]
        async with perdure.Engine(directory, hasty) as engine:
            await engine.call(Inventory.restock, 5, key="teapot")
            for order in ("paid", "forgotten"):
                await engine.call(Inventory.reserve, Reservation(order, 2), key="teapot")
            await engine.call(Inventory.sell, "paid", key="teapot")
            print("at first:", await engine.call(Inventory.stock, key="teapot"))
            await asyncio.sleep(0.5)
            print("later:", await engine.call(Inventory.stock, key="teapot"))


if __name__ == "__main__":
    asyncio.run(main())
