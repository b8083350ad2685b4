"""Every class of the examples runs unchanged, whoever drives it: its main story."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from engine_support import until
from worlds import World

import document_approval
import mounted_in_fastapi
from agent_loop import Assistant, Message, Model, Question, Tools
from api_aggregation import CityGuide, CityReport, Web
from booking_saga import Agency, Trip, TripBooking
from counter import Counter
from document_approval import Approval, ApprovalResult, Document, DocumentApproval
from inventory import Inventory, Reservation, Stock
from loan_application import Application, Bureau, Decision, LoanApplication, Verdict
from loan_application import Status as Loan
from mounted_in_fastapi import Delivery
from order_fulfilment import Order, OrderFulfilment, Shop
from order_fulfilment import Status as Fulfilment
from perdure import AlreadyCompleted, Cancelled, NotFound, TerminalError
from shopping_cart import Bank, Item, Receipt, ShoppingCart
from user_onboarding import Mailer, Outcome, SignUp, UserOnboarding
from user_profile import Change, Profile, UserProfile


async def until_is(verbs: Any, handler: Any, key: str, expected: Any) -> None:
    """Wait until the shared *handler* says what is *expected*."""
    async with asyncio.timeout(8):
        while True:
            with contextlib.suppress(NotFound):  # its run has not begun
                if await verbs.call(handler, key=key) == expected:
                    return
            await asyncio.sleep(0.005)


def test_document_approval(world: World, tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.txt"
    workflow = DocumentApproval(document_approval.Mailer(outbox), deadline=timedelta(seconds=0.5))

    async def story(verbs: Any) -> None:
        begun = {}
        for name in ("yes", "no", "silence"):
            key = f"{world.key}{name}"
            doc = Document(key, f"Title of {name}", "bob")
            begun[name] = await verbs.send(DocumentApproval.run, doc, key=key)
            await until_is(verbs, DocumentApproval.status, key, document_approval.Status.WAITING)
            if name != "silence":
                verb = DocumentApproval.approve if name == "yes" else DocumentApproval.reject
                answer = Approval(name == "yes", "bob", f"I say {name}")
                await verbs.call(verb, answer, key=key)
        status = document_approval.Status
        assert await begun["yes"].result() == ApprovalResult(status.APPROVED, "bob", "I say yes")
        assert await begun["no"].result() == ApprovalResult(status.REJECTED, "bob", "I say no")
        assert (await begun["silence"].result()).status == status.TIMEOUT

    world.play(story, [workflow])
    assert len(outbox.read_text().splitlines()) == 3


def test_order_fulfilment(world: World) -> None:
    shop = Shop()

    async def story(verbs: Any) -> None:
        key = world.key
        assert await verbs.call(OrderFulfilment.status, key=key) == Fulfilment.UNKNOWN
        order = Order(key, "teapot", "1 Quay Street")
        begun = await verbs.send(OrderFulfilment.run, order, key=key)
        await until_is(verbs, OrderFulfilment.status, key, Fulfilment.UNPAID)
        await verbs.call(OrderFulfilment.pay, "tx-7", key=key)
        await until_is(verbs, OrderFulfilment.status, key, Fulfilment.PREPARING)
        await verbs.call("OrderFulfilment.labelled", "label-3", key=key)
        await verbs.call("OrderFulfilment.packed", "parcel-1", key=key)
        await until_is(verbs, OrderFulfilment.status, key, Fulfilment.SHIPPED)
        await verbs.call(OrderFulfilment.delivered, key=key)
        assert await begun.result() == Fulfilment.DELIVERED

    world.play(story, [OrderFulfilment(shop)])
    assert "customer: parcel-1 is on its way as label-3, paid by tx-7" in shop.told


def test_user_onboarding(world: World) -> None:
    mailer = Mailer()

    async def story(verbs: Any) -> None:
        begun = await verbs.send(
            UserOnboarding.run, SignUp("Ada", "ada@example.org"), key=world.key
        )
        await until(lambda: bool(mailer.sent), "the code")
        code = mailer.sent[0][1][-6:]
        with pytest.raises(TerminalError) as caught:
            await verbs.call(UserOnboarding.verify, f"not {code}", key=world.key)
        assert caught.value.code == 403
        await verbs.call(UserOnboarding.verify, code, key=world.key)
        assert await begun.result() == Outcome.WELCOME

    world.play(story, [UserOnboarding(mailer)])
    assert mailer.sent[-1][1] == "Welcome, Ada!"


def test_loan_application(world: World) -> None:
    async def story(verbs: Any) -> None:
        key = world.key
        begun = await verbs.send(LoanApplication.run, Application("ada", 9_000), key=key)
        for kind in ("identity", "payslip"):
            await verbs.call(LoanApplication.hand_in, (kind, f"{kind}.pdf"), key=key)
        assert await verbs.call(LoanApplication.offer, key=key) is None
        await verbs.call(LoanApplication.decide, Verdict("bob", 5_000), key=key)
        await until_is(verbs, LoanApplication.offer, key, 5_000)
        await verbs.call(LoanApplication.answer, True, key=key)
        assert await begun.result() == Decision(Loan.GRANTED, 5_000, "bob")

    world.play(story, [LoanApplication(Bureau({"ada": 50}))])


@pytest.mark.parametrize("end", ["yes", "no", "cancelled"])
def test_booking_saga(world: World, end: str) -> None:
    agency = Agency()
    parts = ["flight", "hotel", "car"]

    async def story(verbs: Any) -> None:
        begun = await verbs.send(TripBooking.run, Trip("ada", parts), key=world.key)
        await until(lambda: len(agency.log) == 3, "the bookings")
        await asyncio.sleep(0.02)
        if end == "cancelled":
            await begun.cancel()
            with pytest.raises(Cancelled):
                await begun.result()
            return
        await verbs.call(TripBooking.answer, end == "yes", key=world.key)
        if end == "yes":
            references = await begun.result()
            assert {part: agency.booked[references[part]] for part in parts} == {
                part: part for part in parts
            }
            with pytest.raises(AlreadyCompleted):
                await verbs.call(TripBooking.answer, False, key=world.key)
        else:
            with pytest.raises(TerminalError, match="does not want it"):
                await begun.result()

    world.play(story, [TripBooking(agency)])
    undone = [] if end == "yes" else ["-car", "-hotel", "-flight"]
    assert agency.log == ["+flight", "+hotel", "+car", *undone]


def test_api_aggregation(world: World) -> None:
    web = Web(down={"weather"})

    async def story(verbs: Any) -> None:
        assert await verbs.call(CityGuide.report, "Lisbon") == CityReport(
            "Lisbon",
            None,
            {"USD": 1.1, "GBP": 0.85},
            ["Lisbon has a new bridge", "Rain"],
            ["weather"],
        )

    world.play(story, [CityGuide(web, limit=timedelta(seconds=5))])


def test_agent_loop(world: World) -> None:
    tools = Tools({"a": "tea"})
    questions: asyncio.Queue[Question] = asyncio.Queue()

    async def story(verbs: Any) -> None:
        key = world.key
        assert await verbs.call(Assistant.say, "look up a", key=key) == "Done: a says 'tea'"
        answer = await verbs.send(Assistant.say, "delete a", key=key)
        await until(lambda: not questions.empty(), "the question")
        await verbs.resolve_awakeable(questions.get_nowait().answer_to, True)
        assert await answer.result() == "Done: a is deleted"
        history = await verbs.call(Assistant.history, key=key)
        assert history[0] == Message("user", "look up a")

    world.play(story, [Assistant(Model(), tools, questions)])
    assert tools.files == {}


def test_counter(world: World) -> None:
    async def story(verbs: Any) -> None:
        key = world.key
        added = await asyncio.gather(*(verbs.call(Counter.add, 1, key=key) for _ in range(10)))
        assert sorted(added) == list(range(1, 11))
        with pytest.raises(TerminalError, match="would be at -1"):
            await verbs.call(Counter.add, -11, key=key)
        assert await verbs.call(Counter.value, key=key) == 10
        await verbs.call(Counter.reset, key=key)
        assert await verbs.call(Counter.value, key=key) == 0

    world.play(story, [Counter()])


def test_user_profile(world: World) -> None:
    ada = Profile("Ada", "ada@example.org", frozenset({"en"}))

    async def story(verbs: Any) -> None:
        key = world.key
        await verbs.call(UserProfile.register, ada, key=key)
        await verbs.call(UserProfile.change, Change(email="a@example.org"), key=key)
        changed = Profile("Ada", "a@example.org", frozenset({"en"}))
        assert await verbs.call(UserProfile.profile, key=key) == changed
        history = await verbs.call(UserProfile.history, key=key)
        assert [noted.what for noted in history] == ["registered", "changed"]
        assert history[0].at <= history[1].at
        await verbs.call(UserProfile.forget, key=key)
        with pytest.raises(TerminalError) as caught:
            await verbs.call(UserProfile.profile, key=key)
        assert caught.value.code == 404
        assert await verbs.call(UserProfile.history, key=key) == []

    world.play(story, [UserProfile()])


def test_shopping_cart(world: World) -> None:
    bank = Bank()

    async def story(verbs: Any) -> None:
        key = world.key
        for _ in range(2):
            await verbs.call(ShoppingCart.add, Item("tea", Decimal("4.50"), 2), key=key)
        four = Item("tea", Decimal("4.50"), 4)
        assert await verbs.call(ShoppingCart.items, key=key) == [four]
        receipt = await verbs.call(ShoppingCart.check_out, key=key)
        assert receipt == Receipt([four], Decimal("18.00"))
        with pytest.raises(TerminalError, match="the cart is empty"):
            await verbs.call(ShoppingCart.check_out, key=key)

    world.play(story, [ShoppingCart(bank)])
    assert list(bank.charges.values()) == [Decimal("18.00")]


def test_inventory(world: World) -> None:
    async def story(verbs: Any) -> None:
        key = world.key
        await verbs.call(Inventory.restock, 5, key=key)
        for order in ("sold", "kept"):
            await verbs.call(Inventory.reserve, Reservation(order, 2), key=key)
        with pytest.raises(TerminalError, match=r"1 of .* left, not 2"):
            await verbs.call(Inventory.reserve, Reservation("late", 2), key=key)
        assert await verbs.call(Inventory.sell, "sold", key=key) == 2
        assert await verbs.call(Inventory.stock, key=key) == Stock(1, 2)
        await verbs.call(Inventory.release, "kept", key=key)
        assert await verbs.call(Inventory.stock, key=key) == Stock(3, 0)

    world.play(story, [Inventory()])


def test_what_is_mounted_in_fastapi(world: World) -> None:
    async def story(verbs: Any) -> None:
        key, order = world.key, mounted_in_fastapi.Order(article="teapot", count=2)
        begun = await verbs.send(Delivery.run, order, key=key)
        await until_is(verbs, Delivery.status, key, "waits for payment")
        await verbs.call(Delivery.pay, "ada", key=key)
        assert await begun.result() == "ada"
        assert await verbs.call(Delivery.status, key=key) == "sent off"

    world.play(story, [Delivery()])
