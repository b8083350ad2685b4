"""Stories of workflows: promises and races, signals and awakeables, and how they are ended."""

from __future__ import annotations

import random
from typing import Any

from ledger import Client, Ledger, Story, require
from torture_services import END


class OfWorkflow(Story):
    """A story of one key of a workflow, which is the story's name.

    Attributes:
      workflow: Its name.
      argument: Of ``run``.
      invocation_id: As told by who has accepted it.
      result: As told.
    """

    workflow: str
    argument: Any = None

    def __init__(self, name: str, chooser: random.Random, ledger: Ledger) -> None:
        super().__init__(name, chooser, ledger)
        self.invocation_id: str | None = None
        self.result: list[str] | None = None

    async def start(self, client: Client) -> str:
        """Start it, now or before; its id."""
        path = f"/{self.workflow}/{self.name}/run/send"
        answer = await client.ask("start", "POST", path, self.argument, good=(202,))
        found, told = answer.value["invocationId"], self.invocation_id
        require(told in (None, found), "accepted under another id", path, told, found)
        if told is not None:
            require(answer.value["status"] == "PreviouslyAccepted", "accepted anew", path)
        self.invocation_id = found
        return str(found)

    async def ask_key(self, client: Client, handler: str, value: Any = None, **more: Any) -> Any:
        path = f"/{self.workflow}/{self.name}/{handler}"
        return await client.ask(handler, "POST", path, value, **more)

    async def attach(self, client: Client) -> list[str]:
        path = f"/restate/workflow/{self.workflow}/{self.name}/attach"
        result: list[str] = (await client.ask("attach", "GET", path)).value
        require(self.result in (None, result), "another result", path, self.result, result)
        self.result = result
        return result

    async def output(self, client: Client) -> None:
        path = f"/restate/invocation/{self.invocation_id}/output"
        result = (await client.ask("output", "GET", path)).value
        require(self.result == result, "another output", path, self.result, result)


class OrderStory(OfWorkflow):
    """Starts an order, approves it or not, looks at it, waits for it."""

    workflow = "Order"

    def __init__(self, name: str, chooser: random.Random, ledger: Ledger) -> None:
        super().__init__(name, chooser, ledger)
        self.argument = chooser.choice([0.0, 0.01, 0.1, 2.0])
        self.stage = 0
        self.proposed: list[str] = []
        self.approved: str | None = None

    async def tell(self, client: Client) -> None:
        if self.chooser.random() < 0.2:
            await self._approve(client, f"{self.name} before it began")
        await self.start(client)
        await self._look(client)
        if not self.proposed and self.chooser.random() < 0.7:
            await self._approve(client, f"{self.name} yes")
            await self._look(client)
            if self.chooser.random() < 0.7:
                await self._wait(client)

    async def settle(self, client: Client) -> None:
        await self.start(client)
        await self._approve(client, f"{self.name} again {len(self.proposed)}")
        await self._look(client)
        await self._wait(client)
        await self.output(client)

    async def _look(self, client: Client) -> None:
        stage = (await self.ask_key(client, "stage")).value
        require(stage >= self.stage, "a state went back", self.name, self.stage, stage)
        self.stage = stage

    async def _approve(self, client: Client, value: str) -> None:
        self.proposed.append(value)
        if self.chooser.random() < 0.7:
            answer = await self.ask_key(client, "approve", value, good=(200, 409))
        else:
            path = f"/perdure/promises/Order/{self.name}/approval/resolve"
            answer = await client.ask("resolve", "POST", path, value, good=(200, 409))
        if answer.status == 200:
            require(self.approved is None, "a promise was resolved twice", self.name, value)
            self.approved = value
        else:
            require(len(self.proposed) > 1, "the first to resolve was refused", self.name)

    async def _wait(self, client: Client) -> None:
        result = await self.attach(client)
        require(len(result) == 8, "a result without all its parts", self.name, result)
        approval = result[5]
        require(approval in self.proposed, "a value that nobody gave", self.name, approval)
        require(self.approved in (None, approval), "another approval", self.name, result)
        self.approved = approval


class ErrandStory(OfWorkflow):
    """Sends words to a workflow, one after the other, and gives it a parcel by an awakeable."""

    workflow = "Errand"

    def __init__(self, name: str, chooser: random.Random, ledger: Ledger) -> None:
        super().__init__(name, chooser, ledger)
        self.argument = chooser.choice([0.0, 0.0, 0.05, 0.5])
        self.words: list[str] = []
        self.heard: list[str] = []
        self.parcel = ""

    async def tell(self, client: Client) -> None:
        await self.start(client)
        for number in range(self.chooser.randrange(4)):
            word = f"{self.name} {number}"
            self.words.append(word)
            await self._signal(client, word)
            self.heard.append(word)
        if self.chooser.random() < 0.6:
            await self._give(client)
            if self.chooser.random() < 0.6:
                await self._end(client)

    async def settle(self, client: Client) -> None:
        await self.start(client)
        await self._give(client)
        await self._end(client)
        await self.output(client)

    async def _signal(self, client: Client, word: str, good: tuple[int, ...] = (200,)) -> None:
        path = f"/perdure/signals/{self.invocation_id}/word"
        await client.ask("signal", "POST", path, word, good=good)

    async def _give(self, client: Client) -> None:
        """Resolve the awakeable; done twice, it is done once, for the value is the same."""
        found = ""
        while not found:  # it may not have begun yet
            found = (await self.ask_key(client, "parcel")).value
        require(self.parcel in ("", found), "another awakeable", self.name, self.parcel, found)
        self.parcel = found
        path = f"/restate/awakeables/{found}/resolve"
        await client.ask("awakeable", "POST", path, f"{self.name} parcel", good=(202,))

    async def _end(self, client: Client) -> None:
        if self.result is None:
            # A second one finds it ended, if the first has arrived.
            await self._signal(client, END, (200, 404, 409))
        *words, parcel = await self.attach(client)
        require(parcel == f"{self.name} parcel", "another parcel", self.name, parcel)
        told = [word for word in self.words if word in words]
        require(words == told, "words that were not sent, or sent otherwise", self.name, words)
        missing = set(self.heard) - set(words)
        require(not missing, "words that were accepted are lost", self.name, words, missing)


ENDS = {"cancel": (202, "cancelled"), "kill": (200, "killed")}


class SleeperStory(OfWorkflow):
    """Starts what sleeps, lets it rest and go on, ends it, and forgets it."""

    workflow = "Sleeper"

    def __init__(self, name: str, chooser: random.Random, ledger: Ledger) -> None:
        super().__init__(name, chooser, ledger)
        self.tried: list[str] = []  # ways to end it that were asked for
        self.was_paused: bool | None = False  # None: it is not known
        self.ended_by: str | None = None
        self.purged: bool | None = False

    async def tell(self, client: Client) -> None:
        await self.start(client)
        if self.chooser.random() < 0.5:
            await self._pause(client)
            if self.chooser.random() < 0.4:
                return
            if self.chooser.random() < 0.5:
                await self._resume(client)
        await self._end(client, self.chooser.choice(list(ENDS)))
        if self.chooser.random() < 0.4:
            await self._purge(client)

    async def settle(self, client: Client) -> None:
        if self.purged is not False:
            await self._purge(client)
            return
        await self.start(client)
        if self.was_paused and not self.tried:
            path = f"/invocations/{self.invocation_id}"
            status = (await client.ask("describe", "GET", path, admin=True)).value["status"]
            require(status == "paused", "what was paused goes on", path, status)
            await self._resume(client)
        await self._end(client, self.tried[-1] if self.tried else "kill")

    async def _act(self, client: Client, verb: str, good: tuple[int, ...]) -> int:
        path = f"/invocations/{self.invocation_id}/{verb}"
        return (await client.ask(verb, "PATCH", path, admin=True, good=good)).status

    async def _pause(self, client: Client) -> None:
        self.was_paused = None
        await self._act(client, "pause", (202,))
        self.was_paused = True

    async def _resume(self, client: Client) -> None:
        was_paused, self.was_paused = self.was_paused, None
        await self._act(client, "resume", (200,) if was_paused else (200, 409))
        self.was_paused = False

    async def _end(self, client: Client, verb: str) -> None:
        status, _ = ENDS[verb]
        known, again = self.ended_by is not None, bool(self.tried)
        self.tried.append(verb)
        if not known:
            await self._act(client, verb, (status, 409) if again else (status,))
            if verb == "kill":
                # From now on none of its steps may begin.
                self.ledger.outside.note("killed", id=self.invocation_id)
            if verb == "cancel" and self.was_paused is not False:
                # What is paused stays so: its handler learns of the end when it goes on.
                await self._resume_at_last(client)
        path = f"/restate/workflow/Sleeper/{self.name}/attach"
        answer = await client.ask("attach", "GET", path, good=(409,))
        kind = answer.headers.get("x-perdure-error")
        require(kind in {ENDS[each][1] for each in self.tried}, "an end nobody asked for", path)
        require(self.ended_by in (None, kind), "another end", path, self.ended_by, kind)
        self.ended_by = kind

    async def _resume_at_last(self, client: Client) -> None:
        self.was_paused = None
        await self._act(client, "resume", (200, 409))
        self.was_paused = False

    async def _purge(self, client: Client) -> None:
        known = self.purged
        self.purged = known or None
        if not known:
            await self._act(client, "purge", (200,) if known is False else (200, 404))
            self.purged = True
        path = f"/invocations/{self.invocation_id}"
        await client.ask("describe", "GET", path, admin=True, good=(404,))
