"""A trip is booked whole or not at all.

A flight, a hotel and a car are booked one after the other, then the customer has to agree. Whatever
goes wrong, a full hotel, a customer who does not answer or who cancels, all that was booked is
cancelled again, through crashes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta

import perdure
from perdure import AlreadyCompleted, TerminalError, WorkflowContext, WorkflowSharedContext


@dataclass(frozen=True)
class Trip:
    customer: str
    parts: list[str]


@dataclass
class Agency:
    """Books what is not sold out, under references that the caller has chosen."""

    sold_out: set[str] = field(default_factory=set)
    booked: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    async def book(self, part: str, reference: str) -> None:
        if part in self.sold_out:
            raise TerminalError(f"no {part} left", 409)
        self.booked[reference] = part
        self.log.append(f"+{part}")

    async def cancel(self, part: str, reference: str) -> None:
        # Called also for a booking that failed, and a second time after a crash: no harm done.
        if self.booked.pop(reference, None):
            self.log.append(f"-{part}")


class TripBooking(perdure.Workflow):
    """The key is the trip's number."""

    def __init__(self, agency: Agency, *, patience: timedelta = timedelta(hours=24)) -> None:
        self.agency = agency
        self.patience = patience

    async def run(self, ctx: WorkflowContext, trip: Trip) -> dict[str, str]:
        """Book all parts and wait for the customer's yes; the reference of each part."""
        references = {part: str(ctx.uuid4()) for part in trip.parts}
        async with perdure.Saga(ctx) as saga:
            for part, reference in references.items():
                await saga.step(
                    f"book {part}", self.agency.book, part, reference, undo=self.agency.cancel
                )
            await self._agreed(ctx)
        return references

    async def _agreed(self, ctx: WorkflowContext) -> None:
        """Return when the customer agrees; else a `TerminalError`, and the saga undoes all."""
        answer = ctx.promise("answer", bool)
        timeout = ctx.after(self.patience)
        if await ctx.wait_first(answer, timeout) is timeout:
            with contextlib.suppress(AlreadyCompleted):  # an answer at the last moment counts
                await answer.reject("the offer has expired", 410)
        if not await answer:
            raise TerminalError("the customer does not want it", 409)

    @perdure.handler
    async def answer(self, ctx: WorkflowSharedContext, yes: bool) -> None:
        """The customer's answer, once; after the deadline `AlreadyCompleted`."""
        await ctx.promise("answer", bool).resolve(yes)


services = [TripBooking(Agency())]


async def main() -> None:
    agency = Agency(sold_out={"hotel in Paris"})
    trips = {"rome": True, "oslo": False, "paris": True}
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, [TripBooking(agency)]) as engine:
            for city, yes in trips.items():
                trip = Trip("ada", [f"flight to {city.title()}", f"hotel in {city.title()}"])
                booking = await engine.send(TripBooking.run, trip, key=city)
                await engine.call(TripBooking.answer, yes, key=city)
                try:
                    print(city, "is booked:", *await booking.result())
                except TerminalError as error:
                    print(city, "is not booked:", error)
    print("the agency did:", ", ".join(agency.log))


if __name__ == "__main__":
    asyncio.run(main())
