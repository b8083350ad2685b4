"""One directory: served, loaded and killed again and again, and then asked for all it has said.

Theory of operation. In each life of the server some clients tell new stories, others settle those
of lives before, and at some moment it is killed. Then a copy of the directory is checked: each
unfinished invocation is in one place. At last a life without a kill settles every story, waits
until nothing is under way, and compares: the world outside is heard as a witness, and the history
of each key is looked at. The seed decides what is asked for and when it ends; how far the server
had come by then is its own affair, so a seed does not repeat a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from invariants import violations
from ledger import Client, Ledger, Story, Violation, require
from linearizability import Undecided, counter, linearization, register
from object_stories import (
    CounterStory,
    EndedAddStory,
    EndedWorkStory,
    PressStory,
    RegisterStory,
    TransferStory,
    WorkStory,
    read_account,
    read_register,
)
from outside import Lines, Outside
from stalled_disk import StalledDisk
from tortured import Link, Lost, Place, Server
from witness import Witness
from workflow_stories import ErrandStory, OrderStory, SleeperStory

CLIENTS = 8
SETTLERS = 4
AGAIN_MAX = 400
"""Settled stories that are settled again at the end."""

QUIET_S = 30.0
STALL_S = 0.2

KINDS: list[type[Story]] = [
    *(RegisterStory, CounterStory, OrderStory) * 2,
    *(
        EndedAddStory,
        EndedWorkStory,
        TransferStory,
        PressStory,
        WorkStory,
        ErrandStory,
        SleeperStory,
    ),
]

WAYS = {"load": 10, "soon": 3, "recovery": 3, "stalled": 2, "term": 2}
"""How lives end, and how often: by SIGKILL under load, soon after the start, while it recovers, or
while no commit lands; and by SIGTERM."""


@dataclass(frozen=True)
class Life:
    """How one life of the server is to be.

    Attributes:
      load_s: How long it is under load.
      share: How far into its recovery, or into the stall, it is killed; of the usual time.
      max_resident: Of the engine.
    """

    way: str
    load_s: float
    share: float
    max_resident: int


def lives_of(seed: int, count: int, load_s: float) -> list[Life]:
    """The lives of a trial; the first is one under load, so that there is something to lose."""
    chooser = random.Random(seed)
    ways = ["load", *chooser.choices([*WAYS], [*WAYS.values()], k=count - 1)]
    return [
        Life(
            way,
            chooser.uniform(0.0, 0.15) if way == "soon" else load_s * chooser.uniform(0.2, 1.0),
            chooser.uniform(0.4, 1.1),
            chooser.choice([10_000, 10_000, 20, 0]),
        )
        for way in ways
    ]


class TrialFailed(AssertionError):
    """Something that was promised is not so; the ledger is in the directory."""


@dataclass
class Figures:
    """What trials have seen.

    Attributes:
      recoveries_s: From the start of a process to its first answer, each.
      repeated: Steps that ran again: failed before, or killed before their answer was durable.
    """

    trials: int = 0
    kills: int = 0
    stops: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    stories: int = 0
    steps: int = 0
    repeated: int = 0
    histories: int = 0
    operations: int = 0


class Trial:
    """Of a new directory *root*, which is left behind."""

    def __init__(self, root: Path, seed: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.place = Place(root)
        self.figures = Figures(trials=1)
        self.ledger = Ledger(Outside(self.place.outside))
        self._seed = seed
        self._chooser = random.Random(seed)
        self._outside = Lines(self.place.outside)
        self._witness = Witness()
        self._open: list[Story] = []
        self._settled: list[Story] = []

    async def run(self, lives: int, load_s: float) -> None:
        """Let it live and die so often, under load for up to *load_s*, and then to the end.

        Raises:
          TrialFailed: A promise was broken.
        """
        try:
            for number, life in enumerate(lives_of(self._seed, lives, load_s)):
                await self._live_and_die(number, life)
            await self._live_to_the_end(lives)
        except (AssertionError, ExceptionGroup, Lost, Undecided) as error:
            self.ledger.save(self.place.ledger)
            raise TrialFailed(
                f"seed {self._seed}, {self.figures.kills} kills; see {self.place.root}: "
                + "; ".join(_reasons(error))
            ) from error
        finally:
            self.ledger.outside.close()

    # -- lives ------------------------------------------------------------------------------

    async def _live_and_die(self, number: int, life: Life) -> None:
        server = Server(self.place, life.max_resident)
        try:
            if life.way == "recovery":
                await asyncio.sleep(min(self.figures.recoveries_s) * life.share)
                await self._kill(server)
            else:
                self.figures.recoveries_s.append(await server.ready())
                async with self._loaded(server, number):
                    await asyncio.sleep(life.load_s)
                    await self._end(server, life)
        finally:
            server.end()
        self._check_rows(f"after life {number}, which ended by {life.way},")

    async def _end(self, server: Server, life: Life) -> None:
        if life.way == "term":
            server.send(signal.SIGTERM)
            await server.ended(0)
            self.figures.stops += 1
        elif life.way == "stalled":
            with StalledDisk(self.place.data):
                await asyncio.sleep(STALL_S * life.share)
                await self._kill(server)
        else:
            await self._kill(server)

    async def _kill(self, server: Server) -> None:
        server.send(signal.SIGKILL)
        await server.ended(-signal.SIGKILL)
        self.figures.kills += 1

    @contextlib.asynccontextmanager
    async def _loaded(self, server: Server, life: int) -> AsyncIterator[None]:
        """Clients tell and settle stories until the server has gone."""
        waiting, self._open = self._open, []  # what is told meanwhile is for later lives to settle
        self._chooser.shuffle(waiting)
        try:
            async with asyncio.TaskGroup() as clients:
                for number in range(CLIENTS):
                    clients.create_task(self._tell(server, f"{life}-{number}"))
                for _ in range(SETTLERS):
                    clients.create_task(self._settle(server, waiting))
                yield
        finally:
            self._open += waiting

    async def _tell(self, server: Server, name: str) -> None:
        """Tell one story after the other, until the server has gone."""
        chooser = random.Random(f"{self._seed} {name}")
        async with self._client(server) as client:
            for count in itertools.count():
                story = chooser.choice(KINDS)(f"{name}-{count}", chooser, self.ledger)
                self._open.append(story)
                self.figures.stories += 1
                await story.tell(client)

    async def _settle(self, server: Server, waiting: list[Story]) -> None:
        async with self._client(server) as client:
            while waiting:
                story = waiting.pop()
                try:
                    await story.settle(client)
                except Lost:
                    waiting.append(story)
                    raise
                self._settled.append(story)

    @contextlib.asynccontextmanager
    async def _client(self, server: Server) -> AsyncIterator[Client]:
        """A client until the server has gone."""
        link = Link(server)
        try:
            with contextlib.suppress(Lost):
                yield Client(link, self.ledger)
        finally:
            link.close()

    def _check_rows(self, when: str) -> None:
        """Look at a copy, so that recovery finds the directory as the kill has left it."""
        if not (self.place.data / "data.mdb").exists():
            return  # killed before there was anything
        copy = self.place.root / "copy"
        shutil.copytree(self.place.data, copy)
        found = violations(copy)
        require(not found, f"{when} the rows break rules", *found)
        shutil.rmtree(copy)
        self._witness.hear(self._outside.further())
        require(not self._witness.problems, when, *self._witness.problems[:5])

    # -- the end ----------------------------------------------------------------------------

    async def _live_to_the_end(self, life: int) -> None:
        again = self._settled[:]
        self._chooser.shuffle(again)
        again = again[:AGAIN_MAX]
        server = Server(self.place, 10_000)
        try:
            self.figures.recoveries_s.append(await server.ready())
            for waiting in (self._open, again):
                async with asyncio.TaskGroup() as settlers:
                    for _ in range(CLIENTS):
                        settlers.create_task(self._settle(server, waiting))
                require(not waiting, "the server has gone by itself: see its log")
            link = Link(server)
            try:
                await self._until_quiet(Client(link, self.ledger))
                await self._read_all(Client(link, self.ledger))
            finally:
                link.close()
            server.send(signal.SIGTERM)
            await server.ended(0)
        finally:
            server.end()
        self._check_rows(f"after life {life}, the last,")
        self._judge_outside()
        self._judge_histories()

    async def _until_quiet(self, client: Client) -> None:
        """Nothing is under way any more, and nothing has been forgotten."""
        deadline = time.monotonic() + QUIET_S
        sql = "SELECT id, target, status FROM sys_invocation WHERE status != 'completed' LIMIT 5"
        while True:
            answer = await client.ask("query", "POST", "/query", {"query": sql}, admin=True)
            rows = answer.value["rows"]
            if not rows:
                break
            require(time.monotonic() < deadline, f"not ended after {QUIET_S} s", *rows)
            await asyncio.sleep(0.05)
        for story in self._settled:
            if isinstance(story, WorkStory):
                story.quiet()

    async def _read_all(self, client: Client) -> None:
        for kind, key in list(self.ledger.attempts):
            if kind == "Register":
                await read_register(client, self.ledger, key, "peek")
            elif kind == "Counter":
                attempt = self.ledger.attempt(kind, key, "add", 0)
                asked = {"amount": 0}
                attempt.told((await client.ask("add", "POST", f"/Counter/{key}/add", asked)).value)
        await self._read_accounts(client)

    async def _read_accounts(self, client: Client) -> None:
        """Each transfer is in both accounts or in none, and nothing else is there."""
        keys = {key for one, other, *_ in self.ledger.transfers.values() for key in (one, other)}
        found: list[tuple[str, str, int]] = []
        for key in keys:
            entries = await read_account(client, self.ledger, key)
            for read in self.ledger.entries[key]:
                require(entries[: len(read)] == read, "entries were lost", key, read, entries)
            found += [(name, key, amount) for name, amount in entries]
        for name, (one, other, amount, known) in self.ledger.transfers.items():
            booked = {(name, one, -amount), (name, other, amount)}
            here = booked.intersection(found)
            require(len(here) in ((2,) if known else (0, 2)), "half a transfer", name, *here)
        require(len(found) == len(set(found)), "a transfer was done twice")
        strange = {name for name, *_ in found} - set(self.ledger.transfers)
        require(not strange, "transfers that nobody asked for", *strange)

    def _judge_outside(self) -> None:
        witness, numbers = self._witness, self._witness.numbers
        for number, payload in self.ledger.published.items():
            require(numbers.get(number) == payload, "published otherwise", number, payload)
        missing = {(press, number - 1) for press, number in numbers if number > 1} - set(numbers)
        require(not missing, "numbers are missing", *missing)
        require(len({*numbers.values()}) == len(numbers), "published under two numbers")
        begun = {identity for identity, _ in witness.steps}
        for story in self._settled:
            if isinstance(story, SleeperStory) and story.ended_by == "cancelled":
                undone = (story.invocation_id, "undo") in witness.steps
                require(undone or story.invocation_id not in begun, "not undone", story.name)
        self.figures.steps, self.figures.repeated = len(witness.steps), witness.repeated

    def _judge_histories(self) -> None:
        for (kind, key), attempts in self.ledger.attempts.items():
            history = [each.operation for each in attempts]
            model = register if kind == "Register" else counter
            if linearization(history, model, 0) is None:
                listed = sorted(history, key=lambda each: each.invoked)
                raise Violation(f"the history of {kind} {key} is not linearizable: {listed}")
            self.figures.histories += 1
            self.figures.operations += len(history)


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [reason for each in error.exceptions for reason in _reasons(each)]
    return [f"{type(error).__name__}: {error}"]
