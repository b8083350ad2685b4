"""The examples that are workflows: order, onboarding, loan and booking."""

from __future__ import annotations

from datetime import timedelta

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until_idle

from booking_saga import Agency, Trip, TripBooking
from loan_application import Application, Bureau, Decision, LoanApplication, Verdict
from loan_application import Status as Loan
from order_fulfilment import Order, OrderFulfilment, Shop
from order_fulfilment import Status as Fulfilment
from perdure import AlreadyCompleted, Cancelled, Engine, TerminalError
from user_onboarding import Mailer, Outcome, SignUp, UserOnboarding

# ---- order ----------------------------------------------------------------------------------

ORDER = Order("o1", "teapot", "1 Quay Street")
REPORTS = [("packed", "parcel-1"), ("labelled", "label-3")]


@pytest.mark.parametrize("reports", [REPORTS, REPORTS[::-1]], ids=["packed", "labelled"])
def test_an_order_is_seen_through_across_restarts(
    place: Place, reports: list[tuple[str, str]]
) -> None:
    shop = Shop()

    async def status(engine: Engine) -> Fulfilment:
        return await engine.call(OrderFulfilment.status, key="o1")

    async def main() -> None:
        async with place.engine(OrderFulfilment(shop)) as engine:
            assert await status(engine) == Fulfilment.UNKNOWN
            order = await engine.send(OrderFulfilment.run, ORDER, key="o1")
            await until_idle(engine)
            assert await status(engine) == Fulfilment.UNPAID
            await engine.call(OrderFulfilment.pay, "tx-7", key="o1")
            await until_idle(engine)
            assert await status(engine) == Fulfilment.PREPARING
        for verb, text in reports:
            async with place.engine(OrderFulfilment(shop)) as engine:
                assert await status(engine) == Fulfilment.PREPARING
                await engine.call(f"OrderFulfilment.{verb}", text, key="o1")
                await until_idle(engine)
        async with place.engine(OrderFulfilment(shop)) as engine:
            assert await status(engine) == Fulfilment.SHIPPED
            await engine.call(OrderFulfilment.delivered, key="o1")
            assert await engine.attach(order.id, returns=Fulfilment) == Fulfilment.DELIVERED

    run(main())
    assert sorted(shop.told) == [
        "carrier: fetch for 1 Quay Street",
        "customer: parcel-1 is on its way as label-3, paid by tx-7",
        "customer: please pay for o1",
        "warehouse: pack teapot",
    ]


def test_an_order_that_is_not_paid_in_time_is_cancelled_and_payments_refused(place: Place) -> None:
    clock, shop = ManualClock(), Shop()

    async def main() -> None:
        async with place.engine(OrderFulfilment(shop), clock=clock) as engine:
            order = await engine.send(OrderFulfilment.run, ORDER, key="o1")
            await until_idle(engine)
            clock.advance(timedelta(days=7))
            assert await order.result() == Fulfilment.CANCELLED
            with pytest.raises(AlreadyCompleted):
                await engine.call(OrderFulfilment.pay, "tx-7", key="o1")

    run(main())
    assert shop.told == ["customer: please pay for o1"]


# ---- onboarding -----------------------------------------------------------------------------

ADA = SignUp("Ada", "ada@example.org")


@pytest.mark.parametrize("days", [0, 1, 2], ids=["at once", "one reminder", "two reminders"])
def test_a_user_who_enters_the_code_is_welcome(place: Place, days: int) -> None:
    clock, mailer = ManualClock(), Mailer()

    async def main() -> None:
        async with place.engine(UserOnboarding(mailer), clock=clock) as engine:
            sign_up = await engine.send(UserOnboarding.run, ADA, key="ada")
            await until_idle(engine)
        for _ in range(days):
            clock.advance(timedelta(days=1))
            async with place.engine(UserOnboarding(mailer), clock=clock) as engine:
                await until_idle(engine)
        async with place.engine(UserOnboarding(mailer), clock=clock) as engine:
            code = mailer.sent[0][1][-6:]
            with pytest.raises(TerminalError) as caught:
                await engine.call(UserOnboarding.verify, f"not {code}", key="ada")
            assert caught.value.code == 403
            await engine.call(UserOnboarding.verify, code, key="ada")
            assert await engine.attach(sign_up.id, returns=Outcome) == Outcome.WELCOME

    run(main())
    first, *others = [text for _, text in mailer.sent]
    assert first.startswith("Your code is ")
    reminders = [f"Please enter your code (reminder {day + 1})" for day in range(days)]
    assert others == [*reminders, "Welcome, Ada!"]


def test_a_user_who_does_not_is_reminded_and_then_it_is_too_late(place: Place) -> None:
    clock, mailer = ManualClock(), Mailer()

    async def main() -> None:
        async with place.engine(UserOnboarding(mailer), clock=clock) as engine:
            sign_up = await engine.send(UserOnboarding.run, ADA, key="ada")
            for _ in range(3):
                await until_idle(engine)
                clock.advance(timedelta(days=1))
            assert await sign_up.result() == Outcome.EXPIRED
            code = mailer.sent[0][1][-6:]
            with pytest.raises(AlreadyCompleted):
                await engine.call(UserOnboarding.verify, code, key="ada")

    run(main())
    assert len(mailer.sent) == 4
    assert mailer.sent[-1][1] == "Your sign-up has expired"


# ---- loan -----------------------------------------------------------------------------------


async def hand_in(engine: Engine, *kinds: str) -> None:
    for kind in kinds:
        await engine.call(LoanApplication.hand_in, (kind, f"{kind}.pdf"), key="1")


@pytest.mark.parametrize(
    ("score", "amount", "decision"),
    [
        (90, 9_000, Decision(Loan.GRANTED, 9_000)),
        (90, 20_000, None),
        (50, 9_000, None),
        (10, 9_000, Decision(Loan.DECLINED)),
        (None, 9_000, None),
    ],
)
def test_the_score_decides_or_leaves_it_to_a_person(
    place: Place, score: int | None, amount: int, decision: Decision | None
) -> None:
    quiet_log()
    loans = LoanApplication(Bureau({} if score is None else {"ada": score}))

    async def main() -> None:
        async with place.engine(loans) as engine:
            application = Application("ada", amount)
            loan = await engine.send(LoanApplication.run, application, key="1")
            await hand_in(engine, "payslip", "identity")
            if decision is None:
                await engine.call(LoanApplication.decide, Verdict("bob", 0), key="1")
            assert await loan.result() == (decision or Decision(Loan.DECLINED, by="bob"))

    run(main())


@pytest.mark.parametrize("yes", [True, False])
def test_another_offer_waits_for_the_applicant_across_a_restart(place: Place, yes: bool) -> None:
    async def main() -> None:
        loans = LoanApplication(Bureau({"ada": 50}))
        async with place.engine(loans) as engine:
            loan = await engine.send(LoanApplication.run, Application("ada", 9_000), key="1")
            await hand_in(engine, "identity", "payslip")
            assert await engine.call(LoanApplication.offer, key="1") is None
            await engine.call(LoanApplication.decide, Verdict("bob", 5_000), key="1")
            await until_idle(engine)
        async with place.engine(LoanApplication(Bureau())) as engine:
            assert await engine.call(LoanApplication.offer, key="1") == 5_000
            await engine.call(LoanApplication.answer, yes, key="1")
            decision = await engine.attach(loan.id, returns=Decision)
            granted = Decision(Loan.GRANTED, 5_000, "bob")
            assert decision == (granted if yes else Decision(Loan.TURNED_DOWN, by="bob"))

    run(main())


def test_an_application_without_its_documents_ends_after_a_month(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(LoanApplication(Bureau()), clock=clock) as engine:
            loan = await engine.send(LoanApplication.run, Application("ada", 1), key="1")
            await hand_in(engine, "identity")
            with pytest.raises(TerminalError, match="needed are identity, payslip"):
                await hand_in(engine, "diary")
            await until_idle(engine)
            clock.advance(timedelta(days=30))
            assert await loan.result() == Decision(Loan.INCOMPLETE)

    run(main())


# ---- booking --------------------------------------------------------------------------------

TRIP = Trip("ada", ["flight", "hotel", "car"])
ALL_UNDONE = ["+flight", "+hotel", "+car", "-car", "-hotel", "-flight"]


def test_a_trip_is_booked_when_the_customer_agrees_after_a_restart(place: Place) -> None:
    agency = Agency()

    async def main() -> None:
        async with place.engine(TripBooking(agency)) as engine:
            booking = await engine.send(TripBooking.run, TRIP, key="1")
            await until_idle(engine)
        async with place.engine(TripBooking(agency)) as engine:
            await engine.call(TripBooking.answer, True, key="1")
            references = await engine.attach(booking.id, returns=dict[str, str])
            assert {part: agency.booked[references[part]] for part in TRIP.parts} == {
                part: part for part in TRIP.parts
            }

    run(main())
    assert agency.log == ["+flight", "+hotel", "+car"]


@pytest.mark.parametrize("end", ["no", "silence", "cancelled"])
def test_a_trip_that_is_not_wanted_is_undone(place: Place, end: str) -> None:
    clock, agency = ManualClock(), Agency()

    async def main() -> None:
        async with place.engine(TripBooking(agency), clock=clock) as engine:
            booking = await engine.send(TripBooking.run, TRIP, key="1")
            await until_idle(engine)
            if end == "no":
                await engine.call(TripBooking.answer, False, key="1")
            elif end == "silence":
                clock.advance(timedelta(hours=24))
            else:
                await booking.cancel()
            with pytest.raises(Cancelled if end == "cancelled" else TerminalError):
                await booking.result()

    run(main())
    assert agency.log == ALL_UNDONE
    assert agency.booked == {}


def test_what_was_booked_before_a_part_that_is_sold_out_is_undone(place: Place) -> None:
    agency = Agency(sold_out={"hotel"})

    async def main() -> None:
        async with place.engine(TripBooking(agency)) as engine:
            booking = await engine.send(TripBooking.run, TRIP, key="1")
            with pytest.raises(TerminalError, match="no hotel left"):
                await booking.result()

    run(main())
    assert agency.log == ["+flight", "-flight"]
