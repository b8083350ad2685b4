"""Every workflow of the examples, crashed at every point, and those that race in every order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from booking_saga import Agency, Trip, TripBooking
from document_approval import Approval, Document, DocumentApproval
from document_approval import Mailer as DocumentMailer
from loan_application import DOCUMENTS, Application, Bureau, Decision, LoanApplication
from loan_application import Status as Loan
from order_fulfilment import Order, OrderFulfilment, Shop
from order_fulfilment import Status as Fulfilment
from perdure import AlreadyCompleted, TerminalError
from perdure.testing import Client, crash_everywhere, explore_orders
from user_onboarding import Mailer, Outcome, SignUp, UserOnboarding

ORDER = Order("o1", "teapot", "1 Quay Street")


async def fulfil(client: Client) -> None:
    for verb, *args in (
        ("pay", "tx-7"),
        ("labelled", "label-3"),
        ("packed", "parcel-1"),
        ("delivered",),
    ):
        await client.call(f"OrderFulfilment.{verb}", *args, key="o1")


async def approve(client: Client) -> None:
    await client.call(DocumentApproval.approve, Approval(True, "bob"), key="d1")


async def hand_in(client: Client) -> None:
    for kind in DOCUMENTS:
        await client.call(LoanApplication.hand_in, (kind, "a drawer"), key="l1")


async def say_yes(client: Client) -> None:
    await client.call(TripBooking.answer, True, key="t1")


CRASHED: dict[str, Callable[[Path], Any]] = {
    "order": lambda path: crash_everywhere(
        OrderFulfilment, ORDER, key="o1", world=Shop, script=fulfil
    ),
    "order, not paid": lambda path: crash_everywhere(OrderFulfilment, ORDER, key="o1", world=Shop),
    "document": lambda path: crash_everywhere(
        lambda: DocumentApproval(DocumentMailer(path / "outbox")),
        Document("d1", "Plan", "bob"),
        key="d1",
        script=approve,
    ),
    "document, nobody comes": lambda path: crash_everywhere(
        lambda: DocumentApproval(DocumentMailer(path / "outbox")),
        Document("d1", "Plan", "bob"),
        key="d1",
    ),
    "loan": lambda path: crash_everywhere(
        lambda: LoanApplication(Bureau({"bob": 90})),
        Application("bob", 9000),
        key="l1",
        script=hand_in,
    ),
    "onboarding, expired": lambda path: crash_everywhere(
        lambda: UserOnboarding(Mailer()), SignUp("Ada", "ada@example.org"), key="ada"
    ),
    "trip": lambda path: crash_everywhere(
        TripBooking,
        Trip("ada", ["flight", "hotel"]),
        key="t1",
        world=Agency,
        script=say_yes,
    ),
}
RESULTS = {
    "order": Fulfilment.DELIVERED,
    "order, not paid": Fulfilment.CANCELLED,
    "loan": Decision(Loan.GRANTED, 9000),
    "onboarding, expired": Outcome.EXPIRED,
}


@pytest.mark.parametrize("name", CRASHED)
def test_an_example_ends_the_same_wherever_it_crashes(name: str, tmp_path: Path) -> None:
    report = CRASHED[name](tmp_path)
    assert len(report.points) > 4
    if name in RESULTS:
        assert report.result == RESULTS[name]


def test_a_trip_that_falls_through_leaves_nothing_booked_wherever_it_crashes() -> None:
    def nothing_is_booked(result: Any, agency: Agency) -> None:
        assert isinstance(result, TerminalError)
        assert agency.booked == {}

    crash_everywhere(
        TripBooking,
        Trip("ada", ["flight", "hotel", "car"]),
        key="t1",
        world=lambda: Agency(sold_out={"car"}),
        check=nothing_is_booked,
    )


def test_an_order_is_delivered_or_cancelled_whenever_the_payment_comes() -> None:
    async def pay_late(client: Client) -> None:
        await client.sleep(7 * 24 * 3600)
        try:
            await client.call(OrderFulfilment.pay, "tx-7", key="o1")
        except AlreadyCompleted:
            return
        for verb, text in (("packed", "parcel-1"), ("labelled", "label-3")):
            await client.call(f"OrderFulfilment.{verb}", text, key="o1")
        await client.call(OrderFulfilment.delivered, key="o1")

    report = explore_orders(
        OrderFulfilment,
        ORDER,
        key="o1",
        world=Shop,
        script=pay_late,
        max_runs=300,
    )
    found = {value for value, _ in report.results}
    assert found == {Fulfilment.DELIVERED, Fulfilment.CANCELLED}
