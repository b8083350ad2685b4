"""The examples over days and weeks, as their users would test them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from booking_saga import Agency, Trip, TripBooking
from document_approval import Document, DocumentApproval, Mailer, Status
from inventory import Inventory, Reservation, Stock
from loan_application import DOCUMENTS, Application, Bureau, Decision, LoanApplication, Verdict
from loan_application import Status as Loan
from perdure import TerminalError
from perdure.testing import Harness
from user_onboarding import Mailer as Postbox
from user_onboarding import Outcome, SignUp, UserOnboarding

HarnessClass = type[Harness]


async def test_a_user_who_never_verifies_is_reminded_each_day_and_let_go(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([UserOnboarding(Postbox())]) as h:
        bob = SignUp("Bob", "bob@example.org")
        assert await h.submit(UserOnboarding.run, bob, key="bob") is Outcome.EXPIRED
        sent = [(record.at.day, record.name) for record in h.step("*").records]
        assert sent == [(1, "send code"), (2, "remind 1"), (3, "remind 2"), (4, "say goodbye")]


async def test_a_loan_without_documents_ends_after_thirty_days(
    perdure_harness: HarnessClass,
) -> None:
    async with perdure_harness([LoanApplication(Bureau())], always_replay=True) as h:
        began = h.now
        decision = await h.submit(LoanApplication.run, Application("ann", 100), key="1")
        assert decision == Decision(Loan.INCOMPLETE)
        assert h.now - began == timedelta(days=30)


async def test_a_loan_outlives_a_crash_after_each_document(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([LoanApplication(Bureau())]) as h:
        h.step("credit check").fails_times(2, OSError("no answer")).returns(50)
        loan = await h.send(LoanApplication.run, Application("ann", 100), key="1")
        for kind in DOCUMENTS:
            await h.call(LoanApplication.hand_in, (kind, f"{kind}.pdf"), key="1")
            await h.advance(days=3)
            await h.crash()
        await h.call(LoanApplication.decide, Verdict("the clerk", 100), key="1")
        assert await loan.result() == Decision(Loan.GRANTED, 100, "the clerk")
        assert h.step("credit check").calls == 3


async def test_a_document_that_nobody_approves_times_out_without_mail_in_the_test(
    perdure_harness: HarnessClass, tmp_path: Path
) -> None:
    outbox = tmp_path / "outbox"
    async with perdure_harness([DocumentApproval(Mailer(outbox))]) as h:
        notified = h.step("notify approver").returns(None)
        document = Document("doc1", "Budget", "bob")
        result = await h.submit(DocumentApproval.run, document, key="doc1")
        assert result.status is Status.TIMEOUT
        assert notified.records[0].args == (document,)
    assert not outbox.exists()


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_a_trip_of_which_one_part_can_not_be_booked_is_undone(
    perdure_harness: HarnessClass, failing: int
) -> None:
    agency = Agency()
    parts = ["flight", "hotel", "car"]
    async with perdure_harness([TripBooking(agency)], always_replay=True) as h:
        h.step(f"book {parts[failing - 1]}").raises(TerminalError("sold out", 409))
        with pytest.raises(TerminalError, match="sold out"):
            await h.submit(TripBooking.run, Trip("ada", parts), key="1")
    assert agency.booked == {}


async def test_a_reservation_ends_when_its_time_is_over(perdure_harness: HarnessClass) -> None:
    async with perdure_harness([Inventory()]) as h:
        await h.call(Inventory.restock, 5, key="teapot")
        await h.call(Inventory.reserve, Reservation("1", 2), key="teapot")
        await h.advance(minutes=14)
        assert await h.call(Inventory.stock, key="teapot") == Stock(3, 2)
        await h.advance(minutes=1)
        assert await h.call(Inventory.stock, key="teapot") == Stock(5, 0)
