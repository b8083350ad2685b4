"""Stories of objects and services: registers, counters, accounts, the press, workers."""

from __future__ import annotations

import random
import time
from typing import Any

from ledger import Attempt, Client, Ledger, Story, require
from torture_services import PACES, Entries


class Told(Story):
    """A call whose outcome is found out by asking again with the same idempotency key.

    Without one it is asked for once, and may have happened or not.
    """

    def __init__(self, name: str, chooser: random.Random, ledger: Ledger) -> None:
        super().__init__(name, chooser, ledger)
        self.loose = False
        self.was_asked = False

    async def call(self, client: Client, kind: str, path: str, value: Any) -> Any:
        self._request = kind, path, value
        self.was_asked = True
        return await self.again(client)

    async def again(self, client: Client) -> Any:
        kind, path, value = self._request
        headers = {} if self.loose else {"idempotency_key": self.name}
        answer = await client.ask(kind, "POST", path, value, headers=headers)
        return answer.value if answer.content else None

    async def settle(self, client: Client) -> None:
        if self.was_asked and not self.loose:
            self.take(await self.again(client))

    def take(self, value: Any) -> None:
        """Hold the server to this answer."""
        raise NotImplementedError


class RegisterStory(Told):
    """Reads, writes, or compares and sets."""

    async def tell(self, client: Client) -> None:
        key = self.ledger.registers.choose(self.chooser)
        if self.chooser.random() < 0.35:
            await read_register(client, self.ledger, key, self.chooser.choice(READS))
            return
        if self.ledger.may_be_loose("Register", key) and self.chooser.random() < 0.5:
            self.loose = True
        value, pace = self.ledger.number(), self.chooser.choice(PACES)
        if self.chooser.random() < 0.5:
            self.attempt = self.ledger.attempt("Register", key, "write", value)
            asked = {"value": value, "pace": pace}
            path = f"/Register/{key}/write"
        else:
            expected = self._likely(key)
            self.attempt = self.ledger.attempt("Register", key, "cas", expected, value)
            asked = {"expected": expected, "value": value, "pace": pace}
            path = f"/Register/{key}/swap"
        self.take(await self.call(client, path.rpartition("/")[2], path, asked))

    def _likely(self, key: str) -> int:
        """What the register may well have now."""
        told = [each for each in self.ledger.attempts["Register", key] if each.answered is not None]
        if not told:
            return 0
        last = max(told, key=lambda each: each.answered or 0.0)
        return int(last.result if last.act == ("read",) else last.act[-1])

    def take(self, value: Any) -> None:
        self.attempt.told(value)


READS = ("read", "peek", "state")


async def read_register(client: Client, ledger: Ledger, key: str, how: str) -> None:
    attempt = Attempt(("read",))
    if how == "state":
        answer = await client.ask("state", "GET", f"/state/Register/{key}", admin=True)
        attempt.told(answer.value["state"].get("value", 0))
    else:
        attempt.told((await client.ask(how, "POST", f"/Register/{key}/{how}")).value)
    # Unanswered, it would say nothing: a read changes nothing.
    ledger.attempts["Register", key].append(attempt)


class CounterStory(Told):
    """Adds, by a call or by a send with or without a delay."""

    async def tell(self, client: Client) -> None:
        key = self.key = self.ledger.counters.choose(self.chooser)
        amount, pace = self.chooser.randrange(1, 1_000), self.chooser.choice(PACES)
        asked: dict[str, Any] = {"amount": amount, "pace": pace}
        self.attempt = self.ledger.attempt("Counter", key, "add", amount)
        path = f"/Counter/{key}/add"
        if self.chooser.random() < 0.5:
            if self.ledger.may_be_loose("Counter", key) and self.chooser.random() < 0.4:
                self.loose = True
            self.take(await self.call(client, "add", path, asked))
            return
        self._request, self.was_asked = ("add", path, asked), True
        delay_ms = self.chooser.choice([0, 0, 20, 300])
        query = f"?delay={delay_ms}ms" if delay_ms else ""
        if delay_ms:
            asked.update(pace="step", not_before=time.time() + delay_ms / 1000)
        kind = "send with a delay" if delay_ms else "send"
        headers = {"idempotency_key": self.name}
        await client.ask(kind, "POST", f"{path}/send{query}", asked, good=(202,), headers=headers)
        if self.chooser.random() < 0.5:
            path = f"/restate/invocation/Counter/{key}/add/{self.name}/attach"
            self.take((await client.ask("attach", "GET", path)).value)

    def take(self, value: Any) -> None:
        self.attempt.told(value)


class EndedAddStory(Story):
    """Sends an addition, and then ends it: it has happened, or it has not."""

    invocation_id: str | None = None

    async def tell(self, client: Client) -> None:
        key = self.ledger.counters.choose(self.chooser)
        if not self.ledger.may_be_loose("Counter", key):
            return
        amount, pace = self.chooser.randrange(1, 1_000), self.chooser.choice(PACES)
        self.attempt = self.ledger.attempt("Counter", key, "add", amount)
        asked = {"amount": amount, "pace": pace}
        path = f"/Counter/{key}/add/send"
        answer = await client.ask("send", "POST", path, asked, good=(202,))
        self.invocation_id = str(answer.value["invocationId"])
        await end(client, self.invocation_id, self.chooser)
        await self.settle(client)

    async def settle(self, client: Client) -> None:
        if self.invocation_id is not None:
            result = await result_of(client, self.invocation_id)
            if result is not None:
                self.attempt.told(result)
            else:
                # It may have been ended after it had written its state.
                require(self.attempt.answered is None, "what was done was ended", self.name)


async def end(client: Client, invocation_id: str, chooser: random.Random) -> None:
    """Cancel it or kill it, if it has not completed."""
    verb, good = chooser.choice([("cancel", (202, 409)), ("kill", (200, 409))])
    await client.ask(verb, "PATCH", f"/invocations/{invocation_id}/{verb}", admin=True, good=good)


async def result_of(client: Client, invocation_id: str) -> Any:
    """What it has returned; None if it was ended."""
    path = f"/restate/invocation/{invocation_id}/attach"
    answer = await client.ask("attach", "GET", path, good=(200, 409))
    return answer.value if answer.status == 200 else None


class TransferStory(Told):
    """Moves an amount from one account to another, by a call or by a send of the one's handler."""

    async def tell(self, client: Client) -> None:
        if self.chooser.random() < 0.2:
            await read_account(client, self.ledger, self.ledger.accounts.choose(self.chooser))
            return
        one, other = (self.ledger.accounts.choose(self.chooser) for _ in range(2))
        if one == other:
            return
        # Calls go one way only: two that call each other's key would wait for ever.
        waits = one < other and self.chooser.random() < 0.7
        if self.chooser.random() < 0.4:
            self.loose = True
        amount = self.chooser.randrange(1, 100)
        self._transfer = one, other, amount
        self.ledger.transfers[self.name] = (*self._transfer, False)
        asked = {"name": self.name, "to": other, "amount": amount, "waits": waits}
        asked["pace"] = self.chooser.choice(PACES)
        self.take(await self.call(client, "transfer", f"/Account/{one}/transfer", asked))

    def take(self, value: Any) -> None:
        self.ledger.transfers[self.name] = (*self._transfer, True)


async def read_account(client: Client, ledger: Ledger, key: str) -> Entries:
    answer = await client.ask("entries", "POST", f"/Account/{key}/entries")
    entries = [(name, amount) for name, amount in answer.value]
    ledger.entries[key].append(entries)
    return entries


class PressStory(Told):
    """Publishes something of its own under the next number."""

    async def tell(self, client: Client) -> None:
        self.key = self.ledger.presses.choose(self.chooser)
        if self.ledger.may_be_loose("Press", self.key) and self.chooser.random() < 0.4:
            self.loose = True
        self.attempt = self.ledger.attempt("Press", self.key, "add", 1)
        self.take(await self.call(client, "publish", f"/Press/{self.key}/publish", self.name))

    def take(self, value: Any) -> None:
        self.attempt.told(value)
        self.ledger.published[f"Press/{self.key}", value] = self.name


class WorkStory(Told):
    """Has a service add to a counter twice: by a call and by a delayed send."""

    called: Attempt | None = None

    async def tell(self, client: Client) -> None:
        key = self.ledger.counters.choose(self.chooser)
        if self.ledger.may_be_loose("Counter", key):
            self.loose = self.chooser.random() < 0.2
            self.take(await self.call(client, "work", "/Worker/work", self.job(key)))

    def job(self, key: str) -> dict[str, Any]:
        called, sent = (self.chooser.randrange(1, 1_000) for _ in range(2))
        self.called = self.ledger.attempt("Counter", key, "add", called)
        self.sent = self.ledger.attempt("Counter", key, "add", sent)
        delay = self.chooser.choice([0.0, 0.01, 0.2])
        return {"counter": key, "called": called, "sent": sent, "delay": delay}

    def take(self, value: Any) -> None:
        assert self.called is not None
        self.called.told(value)

    def quiet(self) -> None:
        """Nothing is under way any more: what was sent has happened, if the work was done."""
        if self.called is not None and self.called.answered is not None:
            self.sent.told()


class EndedWorkStory(WorkStory):
    """Sends work, and then ends it with all that it has called: parts have happened, or none."""

    invocation_id: str | None = None

    async def tell(self, client: Client) -> None:
        key = self.ledger.counters.choose(self.chooser)
        if not self.ledger.may_be_loose("Counter", key):
            return
        job = self.job(key)
        answer = await client.ask("send", "POST", "/Worker/work/send", job, good=(202,))
        self.invocation_id = str(answer.value["invocationId"])
        await end(client, self.invocation_id, self.chooser)
        await self.settle(client)

    async def settle(self, client: Client) -> None:
        if self.invocation_id is not None:
            result = await result_of(client, self.invocation_id)
            if result is not None:
                self.take(result)
            else:
                assert self.called is not None
                require(self.called.answered is None, "what was done was ended", self.name)
