"""A real server, asked by many over real sockets: it sheds load, holds clients, and loses nothing.

The clients write down each answer of success that they saw. Afterwards the store is opened again,
and must know of every one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from load_support import LOST, Answer, Connection, Served
from served_program import SERVICES, Decision, Tally
from stalled_disk import StalledDisk

import perdure
from perdure import AlreadyCompleted

CLIENTS = 24
KEYS = 6
SUCCESSES = 40
"""That one client has seen when the server is ended."""
ATTACHED = 10_000
MEMORY_PER_CLIENT = 48 * 1024


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@contextlib.asynccontextmanager
async def connections(served: Served, count: int) -> AsyncIterator[list[Connection]]:
    opened = [Connection(served.port) for _ in range(count)]
    try:
        yield opened
    finally:
        for each in opened:
            each.close()
        await asyncio.sleep(0)  # in which they are


# -- overload ---------------------------------------------------------------------------------


def test_a_server_whose_disk_is_behind_answers_429_and_recovers(directory: Path) -> None:
    async def scenario() -> None:
        async with Served(directory) as served, connections(served, 100) as asking:
            with StalledDisk(directory):
                held, refused = await ask_until_refused(asking)
                assert (await asking[-1].ask("GET", "/restate/health")).status == 200
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.value["source"] == "ingress"
            answers = [await each.answer() for each in held]
            assert {answer.status for answer in answers} == {200}
            assert [answer.value for answer in answers] == [*range(1, len(held) + 1)]
            # What was refused has not been done, and the next is taken on again.
            assert (await asking[-1].ask("POST", "/Tally/k/add", 1)).value == len(held) + 1

    asyncio.run(scenario())


async def ask_until_refused(asking: list[Connection]) -> tuple[list[Connection], Answer]:
    """Call on one connection after the other; those that wait, and the answer that came."""
    for number, each in enumerate(asking):
        await each.begin("POST", "/Tally/k/add", 1)
        with contextlib.suppress(TimeoutError):
            return asking[:number], await asyncio.wait_for(each.answer(), 0.1)
    raise AssertionError("none was refused")


# -- many that wait ---------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    """Leave to open as many files as the clients, and the server after them, need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = ATTACHED + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may open {hard} files here")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
@pytest.mark.usefixtures("many_files")
def test_ten_thousand_clients_wait_for_one_workflow_and_all_are_answered(directory: Path) -> None:
    async def scenario() -> None:
        async with (
            Served(directory) as served,
            connections(served, ATTACHED) as attached,
            connections(served, 1) as (probe,),
        ):
            assert (await probe.ask("POST", "/Decision/d/run/send", "to be?")).status == 202
            memory = served.memory()
            for first in range(0, ATTACHED, 250):
                some = attached[first : first + 250]
                path = "/restate/workflow/Decision/d/attach"
                await asyncio.gather(*(each.begin("GET", path) for each in some))
            while (await probe.ask("POST", "/Server/attached")).value < ATTACHED:
                pass
            each_has = (served.memory() - memory) / ATTACHED
            assert each_has < MEMORY_PER_CLIENT, f"{each_has / 1024:.1f} KiB a client"
            resolve = "/perdure/promises/Decision/d/verdict/resolve"
            assert (await probe.ask("POST", resolve, "not to be")).status == 200
            answers = await asyncio.gather(*(each.answer() for each in attached))
            found = Counter((answer.status, answer.content) for answer in answers)
            assert found == {(200, b'"to be? not to be"'): ATTACHED}

    asyncio.run(scenario())


# -- nothing acknowledged is lost ---------------------------------------------------------------


class Ledger:
    """What one client has asked for, and the successes that it was told of.

    Attributes:
      added: Idempotency key to the total that was answered; None: it was not answered.
      sent: The same to the invocation's id.
      decisions: Key of a workflow to how far its client has seen it come.
    """

    def __init__(self) -> None:
        self.added: dict[str, int | None] = {}
        self.sent: dict[str, str | None] = {}
        self.decisions: dict[str, list[str]] = {}
        self.successes = 0


def tally_of(idempotency_key: str) -> str:
    """The key of the object that a call with this idempotency key is of."""
    return f"t{int(idempotency_key.partition('-')[2]) % KEYS}"


async def client(
    number: int, connection: Connection, ledger: Ledger, enough: asyncio.Event
) -> None:
    """Ask for one thing after the other, until the server has gone."""
    chooser = random.Random(number)
    with contextlib.suppress(*LOST):
        for count in range(1_000_000):
            name = f"{number}-{count}"
            ask = chooser.choice([add, send, decide])
            await ask(connection, ledger, name)
            if ledger.successes >= SUCCESSES:
                enough.set()


async def add(connection: Connection, ledger: Ledger, name: str) -> None:
    ledger.added[name] = None
    path = f"/Tally/{tally_of(name)}/add"
    answer = await connection.ask("POST", path, 1, idempotency_key=name)
    if succeeded(ledger, answer, 200):
        ledger.added[name] = answer.value


async def send(connection: Connection, ledger: Ledger, name: str) -> None:
    ledger.sent[name] = None
    path = f"/Tally/{tally_of(name)}/add/send"
    answer = await connection.ask("POST", path, 1, idempotency_key=name)
    if succeeded(ledger, answer, 202):
        ledger.sent[name] = answer.value["invocationId"]


async def decide(connection: Connection, ledger: Ledger, name: str) -> None:
    stages = ledger.decisions[name] = []
    if succeeded(ledger, await connection.ask("POST", f"/Decision/{name}/run/send", "go?"), 202):
        stages.append("started")
    path = f"/perdure/promises/Decision/{name}/verdict/resolve"
    if succeeded(ledger, await connection.ask("POST", path, "yes"), 200):
        stages.append("resolved")
    if stages == ["started", "resolved"]:
        path = f"/restate/workflow/Decision/{name}/attach"
        answer = await connection.ask("GET", path)
        if succeeded(ledger, answer, 200):
            assert answer.value == "go? yes"
            stages.append("ended")


def succeeded(ledger: Ledger, answer: Answer, status: int) -> bool:
    """Whether it is the success it can be; refusals of a server that ends or is behind are none."""
    if answer.status in (429, 503):
        return False
    assert answer.status == status, answer
    ledger.successes += 1
    return True


async def reconcile(directory: Path, ledgers: list[Ledger]) -> None:
    """Compare what the clients were told with what the store knows when it is opened again."""
    async with perdure.Engine(directory, SERVICES) as engine:
        asked: Counter[str] = Counter()
        for ledger in ledgers:
            for name, total in ledger.added.items():
                asked[tally_of(name)] += 1
                again = await engine.call(Tally.add, 1, key=tally_of(name), idempotency_key=name)
                assert total in (None, again), f"{name} was answered {total}, and is {again}"
            for name, identity in ledger.sent.items():
                asked[tally_of(name)] += 1
                key = tally_of(name)
                handle = await engine.send(Tally.add, 1, key=key, idempotency_key=name)
                assert identity in (None, handle.id), f"{name} was accepted as {identity}"
                await handle.result()
            for name, stages in ledger.decisions.items():
                await reconcile_decision(engine, name, stages)
        # Asked for again, each has been done once, whether its first answer was seen or not.
        for key, count in asked.items():
            assert await engine.call(Tally.add, 0, key=key) == count


async def reconcile_decision(engine: perdure.Engine, name: str, stages: list[str]) -> None:
    if "resolved" in stages:
        with pytest.raises(AlreadyCompleted):
            await engine.resolve("Decision.verdict", "no", key=name)
    else:
        with contextlib.suppress(AlreadyCompleted):
            await engine.resolve("Decision.verdict", "yes", key=name)
    handle = await engine.send(Decision.run, "again?", key=name)
    if "started" in stages:
        assert handle.accepted is perdure.Accepted.EXISTING
        assert await handle.result() == "go? yes"


ROUNDS = [1, 2, 3, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 14))]


@pytest.mark.parametrize("how", ["term", "kill", "kill on a stalled disk"])
@pytest.mark.parametrize("seed", ROUNDS)
def test_a_server_ended_under_load_has_kept_all_that_it_has_acknowledged(
    seed: int, how: str, directory: Path
) -> None:
    ledgers = [Ledger() for _ in range(CLIENTS)]

    async def end(served: Served) -> None:
        if how == "term":
            assert await served.end(signal.SIGTERM) == 0
        elif how == "kill":
            await served.end(signal.SIGKILL)
        else:
            with StalledDisk(directory):
                # Until nothing is taken on any more: whatever could be acknowledged has been.
                async with connections(served, 100) as further:
                    _, refused = await ask_until_refused(further)
                assert refused.status == 429
                await served.end(signal.SIGKILL)

    async def scenario() -> None:
        enough = asyncio.Event()
        async with (
            Served(directory) as served,
            connections(served, CLIENTS) as asking,
            asyncio.TaskGroup() as clients,
        ):
            for number, each in enumerate(asking):
                task = client(seed * 1000 + number, each, ledgers[number], enough)
                clients.create_task(task)
            await enough.wait()
            await end(served)
        await reconcile(directory, ledgers)

    asyncio.run(scenario())
