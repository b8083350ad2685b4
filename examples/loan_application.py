"""A loan: documents, a credit check, a person who decides, and perhaps another offer.

The limit of time for the documents is asyncio's own `timeout`, which is durable in a handler.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import perdure
from perdure import RetryPolicy, TerminalError, WorkflowContext, WorkflowSharedContext

DOCUMENTS = ("identity", "payslip")


class Status(StrEnum):
    INCOMPLETE = "documents are missing"
    GRANTED = "granted"
    DECLINED = "declined"
    TURNED_DOWN = "the applicant turned the offer down"


@dataclass(frozen=True)
class Application:
    applicant: str
    amount: int


@dataclass(frozen=True)
class Verdict:
    """What the clerk says: an amount, which may be another than was asked for, or 0 for no."""

    clerk: str
    amount: int


@dataclass(frozen=True)
class Decision:
    status: Status
    amount: int = 0
    by: str = "rules"


@dataclass
class Bureau:
    """Knows how creditworthy people are, 0 to 100, when it can be reached."""

    scores: dict[str, int] = field(default_factory=dict)

    async def score(self, applicant: str) -> int:
        if applicant not in self.scores:
            raise OSError("the bureau does not answer")
        return self.scores[applicant]


class LoanApplication(perdure.Workflow):
    """The key is the application's number."""

    def __init__(self, bureau: Bureau, *, patience: timedelta = timedelta(days=30)) -> None:
        self.bureau = bureau
        self.patience = patience

    async def run(self, ctx: WorkflowContext, wanted: Application) -> Decision:
        """Decide."""
        try:
            async with asyncio.timeout(self.patience.total_seconds()):
                await asyncio.gather(*(ctx.promise(name, str) for name in DOCUMENTS))
        except TimeoutError:
            return Decision(Status.INCOMPLETE)

        score = await self._score(ctx, wanted.applicant)
        if score is not None and score < 20:
            return Decision(Status.DECLINED)
        if score is not None and score >= 80 and wanted.amount <= 10_000:
            return Decision(Status.GRANTED, wanted.amount)
        verdict = await ctx.promise("verdict", Verdict)
        if not verdict.amount:
            return Decision(Status.DECLINED, by=verdict.clerk)
        if verdict.amount != wanted.amount:
            ctx.set("offer", verdict.amount)
            if not await ctx.promise("answer", bool):
                return Decision(Status.TURNED_DOWN, by=verdict.clerk)
        return Decision(Status.GRANTED, verdict.amount, verdict.clerk)

    async def _score(self, ctx: WorkflowContext, applicant: str) -> int | None:
        """The bureau's score, or None where it can not be had: then a person decides."""
        retry = RetryPolicy(initial=0.1, max_attempts=3)
        try:
            return await ctx.run("credit check", self.bureau.score, applicant, retry=retry)
        except TerminalError as error:
            ctx.log.warning("no score for %s: %s", applicant, error)
            return None

    @perdure.handler
    async def hand_in(self, ctx: WorkflowSharedContext, document: tuple[str, str]) -> None:
        """A document: its kind, and where it is kept."""
        kind, location = document
        if kind not in DOCUMENTS:
            raise TerminalError(f"no {kind} is needed; needed are {', '.join(DOCUMENTS)}", 400)
        await ctx.promise(kind, str).resolve(location)

    @perdure.handler
    async def decide(self, ctx: WorkflowSharedContext, verdict: Verdict) -> None:
        """For the clerk."""
        await ctx.promise("verdict", Verdict).resolve(verdict)

    @perdure.handler
    async def offer(self, ctx: WorkflowSharedContext) -> int | None:
        """The amount that was offered in the place of the one asked for, if one was."""
        return await ctx.get("offer", int)

    @perdure.handler
    async def answer(self, ctx: WorkflowSharedContext, yes: bool) -> None:
        """For the applicant: whether they take the other offer."""
        await ctx.promise("answer", bool).resolve(yes)


services = [LoanApplication(Bureau({"bob": 50}))]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, services) as engine:
            bob = Application("bob", 9000)
            loan = await engine.send(LoanApplication.run, bob, key="loan-1")
            for kind in DOCUMENTS:
                await engine.call(LoanApplication.hand_in, (kind, f"{kind}.pdf"), key="loan-1")
            await engine.call(LoanApplication.decide, Verdict("the clerk", 5000), key="loan-1")
            await engine.call(LoanApplication.answer, True, key="loan-1")
            decision = await loan.result()
            print(f"bob: {decision.status}, {decision.amount}, by {decision.by}")


if __name__ == "__main__":
    asyncio.run(main())
