"""A shopping cart: an object that charges the customer in a durable step.

While `check_out` waits for the bank, everything else that would change the cart waits in line, so
nobody can put in a piano between the sum and the charge. Looking into the cart does not wait.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from decimal import Decimal

import perdure
from perdure import ObjectContext, ObjectSharedContext, RetryPolicy, TerminalError


@dataclass(frozen=True)
class Item:
    product: str
    price: Decimal
    count: int = 1


@dataclass(frozen=True)
class Receipt:
    items: list[Item]
    total: Decimal


@dataclass
class Bank:
    """A bank that has no money and remembers whom it has charged."""

    charges: dict[str, Decimal] = field(default_factory=dict)

    async def charge(self, customer: str, amount: Decimal) -> None:
        if amount > 1000:
            raise TerminalError(f"{customer} can not pay {amount}", 402)
        # Asked twice for one step, it charges once: what an idempotency key is for.
        self.charges[perdure.step_token()] = amount


class ShoppingCart(perdure.VirtualObject):
    """The key is the customer."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @perdure.handler
    async def add(self, ctx: ObjectContext, item: Item) -> int:
        """Put something in; how many different things there are then."""
        cart = await self._items(ctx)
        before = cart.get(item.product)
        count = item.count + (before.count if before else 0)
        cart[item.product] = Item(item.product, item.price, count)
        ctx.set("items", cart)
        return len(cart)

    @perdure.handler
    async def remove(self, ctx: ObjectContext, product: str) -> None:
        """Take something out, all of it."""
        cart = await self._items(ctx)
        if cart.pop(product, None) is None:
            raise TerminalError(f"there is no {product} in the cart", 404)
        ctx.set("items", cart)

    @perdure.handler
    async def check_out(self, ctx: ObjectContext) -> Receipt:
        """Charge the customer and empty the cart; if they can not pay, it stays as it is."""
        items = list((await self._items(ctx)).values())
        if not items:
            raise TerminalError("the cart is empty", 409)
        total = sum((item.price * item.count for item in items), Decimal())
        retry = RetryPolicy(max_attempts=5)
        await ctx.run("charge", self.bank.charge, ctx.key, total, retry=retry)
        ctx.clear("items")
        return Receipt(items, total)

    @perdure.handler
    async def items(self, ctx: ObjectSharedContext) -> list[Item]:
        """What is in the cart."""
        return list((await self._items(ctx)).values())

    async def _items(self, ctx: ObjectContext | ObjectSharedContext) -> dict[str, Item]:
        return await ctx.get("items", dict[str, Item], {})


services = [ShoppingCart(Bank())]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, services) as engine:
            for item in (Item("tea", Decimal("4.50"), 2), Item("piano", Decimal(9000))):
                await engine.call(ShoppingCart.add, item, key="ada")
            try:
                await engine.call(ShoppingCart.check_out, key="ada")
            except TerminalError as error:
                print("refused:", error)
            await engine.call(ShoppingCart.remove, "piano", key="ada")
            receipt = await engine.call(ShoppingCart.check_out, key="ada")
            print("paid:", receipt.total)
            print("left:", await engine.call(ShoppingCart.items, key="ada"))


if __name__ == "__main__":
    asyncio.run(main())
