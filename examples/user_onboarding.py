"""A new user proves that an e-mail address is theirs: in time, after reminders, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import perdure
from perdure import AlreadyCompleted, TerminalError, WorkflowContext, WorkflowSharedContext


class Outcome(StrEnum):
    WELCOME = "welcome"
    EXPIRED = "expired"


@dataclass(frozen=True)
class SignUp:
    name: str
    email: str


@dataclass
class Mailer:
    """Keeps what it should send, and puts it into a mailbox for whoever reads there."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    boxes: dict[str, asyncio.Queue[str]] = field(default_factory=dict)

    async def send(self, email: str, text: str) -> None:
        self.sent.append((email, text))
        await self._box(email).put(text)

    async def next_to(self, email: str) -> str:
        return await self._box(email).get()

    def _box(self, email: str) -> asyncio.Queue[str]:
        return self.boxes.setdefault(email, asyncio.Queue())


class UserOnboarding(perdure.Workflow):
    """The key is the user's id."""

    def __init__(
        self, mailer: Mailer, *, patience: timedelta = timedelta(days=1), reminders: int = 2
    ) -> None:
        self.mailer = mailer
        self.patience = patience
        self.reminders = reminders

    async def run(self, ctx: WorkflowContext, user: SignUp) -> Outcome:
        """Wait for the verification, with a reminder after each *patience* without."""
        code = f"{ctx.random.randrange(1_000_000):06}"
        ctx.set("code", code)
        await ctx.run("send code", self.mailer.send, user.email, f"Your code is {code}")
        if not await self._is_verified(ctx, user):
            await ctx.run("say goodbye", self.mailer.send, user.email, "Your sign-up has expired")
            return Outcome.EXPIRED
        welcome = f"Welcome, {user.name}!"
        await ctx.run("send welcome", self.mailer.send, user.email, welcome)
        return Outcome.WELCOME

    async def _is_verified(self, ctx: WorkflowContext, user: SignUp) -> bool:
        verified = ctx.promise("verified", bool)
        for number in range(self.reminders + 1):
            if number:
                reminder = f"Please enter your code (reminder {number})"
                await ctx.run(f"remind {number}", self.mailer.send, user.email, reminder)
            timer = ctx.after(self.patience)
            if await ctx.wait_first(verified, timer) is verified:
                timer.cancel()
                return True
        with contextlib.suppress(AlreadyCompleted):  # at the last moment: it counts
            await verified.resolve(False)
        return await verified

    @perdure.handler
    async def verify(self, ctx: WorkflowSharedContext, code: str) -> None:
        """The code from the e-mail: 403 if it is wrong, 409 if it comes twice or too late."""
        if code != await ctx.get("code", str):
            raise TerminalError("this is not the code", 403)
        await ctx.promise("verified", bool).resolve(True)


services = [UserOnboarding(Mailer())]


async def main() -> None:
    mailer = Mailer()
    quick = UserOnboarding(mailer, patience=timedelta(seconds=0.1))
    ada, bob = SignUp("Ada", "ada@example.org"), SignUp("Bob", "bob@example.org")
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, [quick]) as engine:
            first = await engine.send(UserOnboarding.run, ada, key="ada")
            second = await engine.send(UserOnboarding.run, bob, key="bob")
            try:
                await engine.call(UserOnboarding.verify, "no idea", key="ada")
            except TerminalError as error:
                print("Ada tries:", error)
            code = (await mailer.next_to(ada.email))[-6:]
            await engine.call(UserOnboarding.verify, code, key="ada")
            print("Ada:", await first.result())
            print("Bob:", await second.result())
    print(*(f"to {email}: {text}" for email, text in mailer.sent), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
