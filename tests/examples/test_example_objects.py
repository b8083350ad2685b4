"""The examples that are objects: counter, profile, cart and inventory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from engine_support import ManualClock, Place, run, until_idle

from counter import Counter
from inventory import Inventory, Reservation, Stock
from perdure import Engine, InvalidInput, TerminalError
from shopping_cart import Bank, Item, Receipt, ShoppingCart
from user_profile import Change, Profile, UserProfile

# ---- counter --------------------------------------------------------------------------------


def test_a_counter_counts_all_that_add_at_once_and_keeps_its_value(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Counter()) as engine:
            added = await asyncio.gather(*(engine.call(Counter.add, 1, key="a") for _ in range(50)))
            assert sorted(added) == list(range(1, 51))
        async with place.engine(Counter()) as engine:
            assert await engine.call(Counter.value, key="a") == 50
            assert await engine.call(Counter.value, key="b") == 0
            await engine.call(Counter.reset, key="a")
            assert await engine.call(Counter.add, 2, key="a") == 2

    run(main())


def test_a_counter_does_not_go_below_zero(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Counter()) as engine:
            await engine.call(Counter.add, 1, key="a")
            with pytest.raises(TerminalError, match="a would be at -1") as caught:
                await engine.call(Counter.add, -2, key="a")
            assert caught.value.code == 409
            assert await engine.call(Counter.value, key="a") == 1

    run(main())


# ---- profile --------------------------------------------------------------------------------

ADA = Profile("Ada", "ada@example.org", frozenset({"en"}))


def test_a_profile_is_changed_in_parts_and_outlives_the_engine(place: Place) -> None:
    async def main() -> None:
        async with place.engine(UserProfile()) as engine:
            await engine.call(UserProfile.register, ADA, key="ada")
            await engine.call(UserProfile.change, Change(email="a@example.org"), key="ada")
        async with place.engine(UserProfile()) as engine:
            assert await engine.call(UserProfile.profile, key="ada") == Profile(
                "Ada", "a@example.org", frozenset({"en"})
            )
            history = await engine.call(UserProfile.history, key="ada")
            assert [noted.what for noted in history] == ["registered", "changed"]
            assert history[0].at <= history[1].at

    run(main())


def test_a_profile_is_registered_once_and_forgotten_altogether(place: Place) -> None:
    async def main() -> None:
        async with place.engine(UserProfile()) as engine:
            with pytest.raises(TerminalError, match="there is no user ada"):
                await engine.call(UserProfile.change, Change(name="A"), key="ada")
            await engine.call(UserProfile.register, ADA, key="ada")
            with pytest.raises(TerminalError, match="registered already"):
                await engine.call(UserProfile.register, ADA, key="ada")
            await engine.call(UserProfile.forget, key="ada")
            with pytest.raises(TerminalError) as caught:
                await engine.call(UserProfile.profile, key="ada")
            assert caught.value.code == 404
            assert await engine.call(UserProfile.history, key="ada") == []

    run(main())


def test_a_profile_of_the_wrong_shape_is_refused_with_the_field(place: Place) -> None:
    async def main() -> None:
        async with place.engine(UserProfile()) as engine:
            wrong = {"name": "Ada", "email": "a@example.org", "languages": "en"}
            with pytest.raises(InvalidInput, match="languages"):
                await engine.call("UserProfile.register", wrong, key="ada")

    run(main())


# ---- cart -----------------------------------------------------------------------------------

TEA = Item("tea", Decimal("4.50"), 2)


def test_a_cart_is_paid_once_and_empty_then(place: Place) -> None:
    bank = Bank()

    async def main() -> None:
        async with place.engine(ShoppingCart(bank)) as engine:
            await engine.call(ShoppingCart.add, TEA, key="ada")
        async with place.engine(ShoppingCart(bank)) as engine:
            assert await engine.call(ShoppingCart.add, TEA, key="ada") == 1
            four = Item("tea", Decimal("4.50"), 4)
            assert await engine.call(ShoppingCart.items, key="ada") == [four]
            receipt = await engine.call(ShoppingCart.check_out, key="ada")
            assert receipt == Receipt([four], Decimal("18.00"))
            with pytest.raises(TerminalError, match="the cart is empty"):
                await engine.call(ShoppingCart.check_out, key="ada")

    run(main())
    assert list(bank.charges.values()) == [Decimal("18.00")]


def test_a_cart_that_can_not_be_paid_stays_as_it_is(place: Place) -> None:
    bank = Bank()

    async def main() -> None:
        async with place.engine(ShoppingCart(bank)) as engine:
            piano = Item("piano", Decimal(9000))
            await engine.call(ShoppingCart.add, piano, key="ada")
            with pytest.raises(TerminalError, match="can not pay") as caught:
                await engine.call(ShoppingCart.check_out, key="ada")
            assert caught.value.code == 402
            assert await engine.call(ShoppingCart.items, key="ada") == [piano]
            with pytest.raises(TerminalError, match="no tea in the cart"):
                await engine.call(ShoppingCart.remove, "tea", key="ada")
            await engine.call(ShoppingCart.remove, "piano", key="ada")
            assert await engine.call(ShoppingCart.items, key="ada") == []

    run(main())
    assert bank.charges == {}


class SlowBank(Bank):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.open = asyncio.Event()

    async def charge(self, customer: str, amount: Decimal) -> None:
        self.asked.set()
        await self.open.wait()
        await super().charge(customer, amount)


def test_what_is_added_during_the_payment_is_not_paid_and_not_lost(place: Place) -> None:
    bank = SlowBank()

    async def main() -> None:
        async with place.engine(ShoppingCart(bank)) as engine:
            await engine.call(ShoppingCart.add, TEA, key="ada")
            payment = await engine.send(ShoppingCart.check_out, key="ada")
            await bank.asked.wait()
            added = await engine.send(ShoppingCart.add, Item("pot", Decimal(20)), key="ada")
            assert await engine.call(ShoppingCart.items, key="ada") == [TEA]
            bank.open.set()
            assert (await payment.result()).total == Decimal("9.00")
            await added.result()
            assert await engine.call(ShoppingCart.items, key="ada") == [Item("pot", Decimal(20))]

    run(main())


# ---- inventory ------------------------------------------------------------------------------


async def stock(engine: Engine) -> Stock:
    return await engine.call(Inventory.stock, key="pot")


def test_a_reservation_expires_by_itself_also_after_a_restart(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Inventory(), clock=clock) as engine:
            await engine.call(Inventory.restock, 5, key="pot")
            await engine.call(Inventory.reserve, Reservation("o1", 3), key="pot")
            await engine.call(Inventory.reserve, Reservation("o1", 3), key="pot")
            assert await stock(engine) == Stock(2, 3)
        clock.advance(timedelta(minutes=14))
        async with place.engine(Inventory(), clock=clock) as engine:
            assert await stock(engine) == Stock(2, 3)
            clock.advance(timedelta(minutes=1))
            await until_idle(engine)
            assert await stock(engine) == Stock(5, 0)
            with pytest.raises(TerminalError, match="set aside") as caught:
                await engine.call(Inventory.sell, "o1", key="pot")
            assert caught.value.code == 410

    run(main())


def test_what_is_sold_or_given_back_does_not_expire(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Inventory(), clock=clock) as engine:
            await engine.call(Inventory.restock, 5, key="pot")
            for order in ("sold", "again"):
                await engine.call(Inventory.reserve, Reservation(order, 2), key="pot")
            with pytest.raises(TerminalError, match="1 of pot left, not 2"):
                await engine.call(Inventory.reserve, Reservation("late", 2), key="pot")
            assert await engine.call(Inventory.sell, "sold", key="pot") == 2
            # Given back and reserved anew, it has its whole time again.
            clock.advance(timedelta(minutes=10))
            await engine.call(Inventory.release, "again", key="pot")
            await engine.call(Inventory.reserve, Reservation("again", 2), key="pot")
            clock.advance(timedelta(minutes=10))
            await until_idle(engine)
            assert await stock(engine) == Stock(1, 2)
            clock.advance(timedelta(minutes=5))
            await until_idle(engine)
            assert await stock(engine) == Stock(3, 0)

    run(main())
