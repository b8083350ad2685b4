"""The verbs of a client at a real Restate server, whose handlers know nothing of perdure.

One server for all of it: each test has keys of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from client_support import Approval, Counter, Decision, Desk, Document
from engine_support import run
from restate_server import Restate, hypercorn, restate

import perdure
from perdure import (
    Accepted,
    Cancelled,
    Client,
    Conflict,
    InvalidInput,
    InvocationFilter,
    InvocationHandle,
    Killed,
    NotFound,
    NotReady,
    NotSupportedOnRestate,
    Status,
    TerminalError,
)

T = TypeVar("T")

DUE = datetime(2026, 1, 31, 12, 30, 15, 250_000, UTC)
NO_ID = "inv_12jNkpBzgTvn02h3vAcqyjpWc8FisSTFir"
_keys = (f"key {number}/é'\\" for number in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restate]:
    """A Restate server with the services of client_on_restate_services.py."""
    handlers = hypercorn("client_on_restate_services:app")
    directory = tmp_path_factory.mktemp("restate") / "data"
    with asyncio.Runner() as runner:
        serving = restate(directory, handlers, Path(__file__).parent)
        urls = runner.run(serving.__aenter__())
        yield urls
        runner.run(serving.__aexit__(None, None, None))


def on(server: Restate, main: Callable[[Client], Awaitable[None]]) -> None:
    """Run *main* with a client of *server*."""

    async def connected() -> None:
        async with client_of(server) as client:
            await main(client)

    run(connected())


@asynccontextmanager
async def client_of(server: Restate) -> AsyncIterator[Client]:
    async with perdure.connect(server.ingress, admin_url=server.admin, timeout=8) as client:
        yield client


async def until(ask: Callable[[], Awaitable[T]], is_so: Callable[[T], object]) -> T:
    """What *ask* finds, once it is so."""
    while True:
        found = await ask()
        if is_so(found):
            return found
        await asyncio.sleep(0.01)


async def until_status(client: Client, invocation_id: str, status: Status) -> None:
    await until(lambda: client.describe(invocation_id), lambda found: found.status is status)


# -- invoking -----------------------------------------------------------------------------------


def test_a_call_gives_the_result_as_its_class(server: Restate) -> None:
    async def main(client: Client) -> None:
        document = Document("tea", DUE)
        assert await client.call(Desk.copy, document) == document
        assert await client.call("Desk.copy", document, returns=Document) == document
        assert await client.call("Desk.copy", document) == {
            "title": "tea",
            "due": "2026-01-31T12:30:15.250000Z",
        }
        assert await client.call("Desk.nothing") is None
        assert await client.call(Desk.maybe, None) is None
        assert await client.call(Desk.maybe, "") == ""
        assert await client.call(Desk.raw, b"\x00\xff") == b"\xff\x00"
        assert await client.call("Desk.raw", b"\x00\xff") == b"\xff\x00"
        with pytest.raises(InvalidInput):
            await client.call("Desk.copy", document, returns=int)

    on(server, main)


@pytest.mark.parametrize("key", ["a/b", "..", "a b?c=d#e", "ключ", "%2F", "send", "it's"])
def test_any_text_is_a_key(server: Restate, key: str) -> None:
    async def main(client: Client) -> None:
        assert await client.call(Counter.key_of, key=key) == key
        await client.call(Counter.add, 3, key=key)
        assert await client.state(Counter, key) == {"total": 3}

    on(server, main)


def test_a_terminal_error_arrives_whole(server: Restate) -> None:
    async def main(client: Client) -> None:
        for code in (400, 404, 409, 418, 429, 470, 500, 503, 599):
            with pytest.raises(TerminalError) as caught:
                await client.call(Desk.fail, code)
            error = caught.value
            assert type(error) is TerminalError
            assert (error.message, error.code) == ("no tea", code)
            assert error.metadata == {"shop": "closed"}

    on(server, main)


@pytest.mark.parametrize(
    ("kind", "cls"),
    [("NotFound", NotFound), ("TerminalError", TerminalError), ("StoreError", TerminalError)],
)
def test_the_class_of_an_error_is_read_from_its_metadata(
    server: Restate, kind: str, cls: type[TerminalError]
) -> None:
    async def main(client: Client) -> None:
        with pytest.raises(TerminalError) as caught:
            await client.call("Desk.failAs", kind)
        assert type(caught.value) is cls
        assert caught.value.metadata == {"shop": "closed"}
        assert (caught.value.message, caught.value.code) == ("cancelled", 409)

    on(server, main)


def test_what_is_not_there_is_not_found(server: Restate) -> None:
    async def main(client: Client) -> None:
        asks: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.call("Desk.copies", 1),
            lambda: client.send("Disk.copy", 1),
            lambda: client.submit("Disk.run", 1, key="k"),
            lambda: client.attach(NO_ID),
            lambda: client.output(NO_ID),
            lambda: client.cancel(NO_ID),
            lambda: client.kill(NO_ID),
            lambda: client.pause(NO_ID),
            lambda: client.resume(NO_ID),
            lambda: client.purge(NO_ID),
            lambda: client.restart(NO_ID),
            lambda: client.describe(NO_ID),
            lambda: client.state("Disk", "k"),
            lambda: client.set_state("Disk", "k", {}),
            lambda: client.promises("Disk", "k"),
        ]
        for ask in asks:
            with pytest.raises(NotFound):
                await ask()

    on(server, main)


def test_an_id_of_perdures_is_refused_by_the_server(server: Restate) -> None:
    async def main(client: Client) -> None:
        ours = "inv_06d3pdls0000f7hnf6snuijs2k"
        for ask in (client.attach, client.output, client.cancel, client.resume, client.describe):
            with pytest.raises(InvalidInput, match=r"codec|invocation id"):
                await ask(ours)
        with pytest.raises(InvalidInput, match="begin with inv_"):
            await client.describe("' OR 1 = 1")

    on(server, main)


def test_a_run_begins_once_for_its_key(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        first = await client.send(Approval.run, Document("a"), key=key)
        assert isinstance(first, InvocationHandle)
        assert first.accepted is Accepted.NEW
        again = await client.send(Approval.run, Document("b"), key=key)
        assert (again.id, again.accepted) == (first.id, Accepted.EXISTING)
        with pytest.raises(Conflict):
            await client.call(Approval.run, Document("b"), key=key)
        submitted = asyncio.ensure_future(client.submit(Approval.run, Document("b"), key=key))
        with pytest.raises(NotReady):
            await first.output()
        await client.call("Approval.decide", Decision(True, "bob"), key=key)
        assert await submitted == Decision(True, "bob")
        assert await first.result() == await again.output() == Decision(True, "bob")
        assert await client.attach(first.id, Decision) == Decision(True, "bob")
        assert await client.output(first.id) == {"approved": True, "by": "bob"}
        assert await client.call(Approval.title, key=key) == "a"

    on(server, main)


def test_submit_starts_what_has_not_started(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        await client.call("Approval.decide", Decision(False), key=key)
        assert await client.submit(Approval.run, Document("a"), key=key) == Decision(False)

    on(server, main)


def test_an_idempotency_key_stands_for_one_invocation(server: Restate) -> None:
    async def main(client: Client) -> None:
        calls = [client.call(Desk.count, idempotency_key="tea") for _ in range(3)]
        first, *others = await asyncio.gather(*calls)
        assert others == [first, first]
        sent = await client.send(Desk.count, idempotency_key="tea")
        assert (sent.accepted, await sent.result()) == (Accepted.EXISTING, first)
        other = await client.send(Desk.count, idempotency_key="other")
        assert other.accepted is Accepted.NEW
        assert await other.result() != first

    on(server, main)


def test_headers_reach_the_handler(server: Restate) -> None:
    async def main(client: Client) -> None:
        headers = {"x-tea": "green, hot"}
        assert await client.call(Desk.header, "x-tea", headers=headers) == "green, hot"
        assert await client.call(Desk.header, "x-tea") is None

    on(server, main)


def test_a_delayed_send_is_scheduled(server: Restate) -> None:
    async def main(client: Client) -> None:
        sent = await client.send(Desk.count, delay=timedelta(days=1))
        found = await client.describe(sent.id)
        assert found.status is Status.SCHEDULED
        (start,) = found.waiting_on
        assert start.kind == "start"
        assert start.deadline is not None
        assert timedelta(hours=23) < start.deadline - datetime.now(UTC) <= timedelta(days=1)
        with pytest.raises(Conflict):
            await client.pause(sent.id)
        assert await client.resume(sent.id) is False
        with pytest.raises(Conflict):
            await client.restart(sent.id)
        assert await sent.cancel() is True
        soon = await client.send(Desk.count, delay=0.0001)
        assert type(await soon.result()) is int

    on(server, main)


# -- completing ---------------------------------------------------------------------------------


def test_an_awakeable_is_completed_by_its_id(server: Restate) -> None:
    async def main(client: Client) -> None:
        sent = await client.send(Desk.ask)
        await client.resolve_awakeable(await new_awakeable(client, []), "tea")
        assert await sent.result() == "tea"
        known = await client.call("Desk.ids")
        sent = await client.send(Desk.ask)
        awakeable = await new_awakeable(client, known)
        with pytest.raises(NotSupportedOnRestate, match=r"reject_awakeable: .* 500; leave out"):
            await client.reject_awakeable(awakeable, "no tea", 451)
        await client.reject_awakeable(awakeable, "no téa")
        with pytest.raises(TerminalError, match="no téa") as caught:
            await sent.result()
        assert caught.value.code == 500

    on(server, main)


async def new_awakeable(client: Client, known: list[str]) -> str:
    """The id of an awakeable that was not there before; they begin with sign_."""
    ids = await until(lambda: client.call("Desk.ids"), lambda ids: len(ids) > len(known))
    return str(ids[-1])


def test_signals_and_promises_are_refused_with_the_remedy(server: Restate) -> None:
    async def main(client: Client) -> None:
        remedies: list[tuple[Callable[[], Awaitable[None]], str]] = [
            (lambda: client.signal(NO_ID, "go", 1), "signal: .* resolve_awakeable"),
            (
                lambda: client.resolve(Approval.decision, Decision(True), key="k"),
                r"resolve: .* shared handler of Approval .*ctx\.promise\('decision', …\)\.resolve",
            ),
            (
                lambda: client.reject("Approval.decision", "no", key="k"),
                r"reject: .* shared handler of Approval .*ctx\.promise\('decision', …\)\.reject",
            ),
        ]
        for ask, remedy in remedies:
            with pytest.raises(NotSupportedOnRestate, match=remedy) as caught:
                await ask()
            assert caught.value.code == 501

    on(server, main)


# -- operating ----------------------------------------------------------------------------------


def test_cancel_and_kill_end_an_invocation_once(server: Restate) -> None:
    async def main(client: Client) -> None:
        sent = await client.send(Desk.wait)
        assert await sent.cancel() is True
        with pytest.raises(Cancelled):
            await sent.result()
        assert await client.cancel(sent.id) is False
        sent = await client.send(Desk.wait)
        assert await client.kill(sent.id) is True
        with pytest.raises(Killed):
            await sent.result()
        assert await client.kill(sent.id) is False
        assert await client.pause(sent.id) is False
        assert await client.resume(sent.id) is False

    on(server, main)


def test_pause_and_resume_say_whether_they_did_anything(server: Restate) -> None:
    async def main(client: Client) -> None:
        sent = await client.send("Desk.nap", 0.5)
        await until_status(client, sent.id, Status.RUNNING)
        assert await client.resume(sent.id) is False
        assert await client.pause(sent.id) is True
        await until_status(client, sent.id, Status.PAUSED)
        assert await client.pause(sent.id) is False
        assert await client.resume(sent.id) is True
        assert await sent.result() == "awake"

    on(server, main)


def test_a_pause_of_what_is_suspended_is_refused(server: Restate) -> None:
    async def main(client: Client) -> None:
        sent = await client.send(Desk.wait)
        await until_status(client, sent.id, Status.SUSPENDED)
        with pytest.raises(Conflict, match=r"is suspended: .* only what runs or backs off"):
            await client.pause(sent.id)
        assert await client.resume(sent.id) is False
        await client.kill(sent.id)

    on(server, main)


def test_purge_and_restart_are_for_what_has_completed(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        started = await client.send(Approval.run, Document("a"), key=key)
        for refused in (client.purge(started.id), client.restart(started.id)):
            with pytest.raises(Conflict):
                await refused
        await client.call("Approval.decide", Decision(True), key=key)
        await started.result()
        with pytest.raises(Conflict):
            await client.restart(started.id)
        await client.purge(started.id)
        with pytest.raises(NotFound):
            await client.attach(started.id)
        assert (await client.send(Approval.run, Document("b"), key=key)).accepted is Accepted.NEW
        counted = await client.send(Desk.count)
        first = await counted.result()
        anew = await client.restart(counted.id)
        assert (anew.accepted, anew.id != counted.id) == (Accepted.NEW, True)
        assert await anew.result() != first

    on(server, main)


def test_a_restart_takes_over_what_the_journal_has_before_an_entry(server: Restate) -> None:
    async def main(client: Client) -> None:
        counted = await client.send(Desk.count)
        first = await counted.result()
        journal = (await client.describe(counted.id)).journal
        (step,) = [entry.index for entry in journal if entry.kind == "step"]
        assert await (await client.restart(counted.id, from_entry=step + 1)).result() == first
        assert await (await client.restart(counted.id, from_entry=step)).result() != first

    on(server, main)


def test_acts_reach_all_that_a_filter_means(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        holds = [await client.send("Counter.hold", 3600, key=key) for _ in range(3)]
        await until_status(client, holds[0].id, Status.RUNNING)
        mine = InvocationFilter(service=Counter, key=key)
        assert await client.pause(mine) == 1
        await until_status(client, holds[0].id, Status.PAUSED)
        assert await client.purge(InvocationFilter(key=key, status="paused")) == 0
        assert await client.resume(mine) == 1
        assert await client.kill(InvocationFilter(key=key, status="pending")) == 2
        assert await client.cancel(mine) == 1
        with pytest.raises(Cancelled):
            await holds[0].result()
        assert await client.restart(mine) == 1
        assert await client.kill(mine) == 1
        assert await client.purge(mine) == 2
        assert (await client.invocations(mine)).items == []

    on(server, main)


# -- reading ------------------------------------------------------------------------------------


def test_invocations_are_listed_page_by_page(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        began = datetime.now(UTC)
        for amount in range(5):
            await client.call(Counter.add, amount, key=key)
        mine = InvocationFilter(handler=Counter.add, key=key, status=Status.COMPLETED)
        page = await client.invocations(mine, limit=2)
        ids = [item.id for item in page.items]
        while page.cursor is not None:
            assert len(page.items) == 2
            page = await client.invocations(mine, limit=2, cursor=page.cursor)
            ids += [item.id for item in page.items]
        assert len(set(ids)) == 5
        listed = [item async for item in client.all_invocations(mine)]
        assert [item.id for item in listed] == ids
        for item in listed:
            assert (item.service, item.key, item.handler) == ("Counter", key, "add")
            assert (item.status, item.attempt, item.last_failure) == (Status.COMPLETED, 1, None)
            assert began - timedelta(seconds=1) < item.created_at <= datetime.now(UTC)
            assert item.completed_at is not None
        assert [item.created_at for item in listed] == sorted(item.created_at for item in listed)
        later = InvocationFilter(key=key, created_after=listed[-1].created_at)
        assert ids[-1] in [item.id for item in (await client.invocations(later)).items]
        earlier = InvocationFilter(key=key, created_before=listed[0].created_at)
        assert (await client.invocations(earlier)).items == []
        assert (await client.invocations(InvocationFilter(key=key, older_than=3600))).items == []
        old = InvocationFilter(key=key, older_than=0)
        assert len((await client.invocations(old)).items) == 5

    on(server, main)


def test_pages_lose_none_of_those_accepted_in_one_millisecond(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        sends = [client.send(Counter.key_of, key=key) for _ in range(60)]
        sent = {handle.id for handle in await asyncio.gather(*sends)}
        at_once = (await client.invocations(InvocationFilter(key=key))).items
        assert len({item.created_at for item in at_once}) < 60
        cursor: str | None = None
        listed: list[str] = []
        while cursor is not None or not listed:
            page = await client.invocations(InvocationFilter(key=key), limit=7, cursor=cursor)
            listed += [item.id for item in page.items]
            cursor = page.cursor
        assert len(listed) == 60
        assert set(listed) == sent

    on(server, main)


def test_a_cursor_is_good_for_its_listing_alone(server: Restate) -> None:
    async def main(client: Client) -> None:
        for _ in range(2):
            await client.call(Desk.nothing)
        cursor = (await client.invocations(limit=1)).cursor
        assert cursor is not None
        with pytest.raises(InvalidInput, match="another filter"):
            await client.invocations(InvocationFilter(service=Desk), cursor=cursor)
        for none in ("none", "Zm9v", "é"):
            with pytest.raises(InvalidInput, match="no cursor"):
                await client.invocations(cursor=none)

    on(server, main)


def test_describe_tells_what_is_waited_for_and_the_journal(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        run_of_key = await client.send(Approval.run, Document("a"), key=key)
        found = await until(lambda: client.describe(run_of_key.id), lambda it: it.waiting_on)
        assert [(each.kind, each.name) for each in found.waiting_on] == [("promise", "decision")]
        assert found.waits_without_timeout
        assert (found.service, found.key, found.handler) == ("Approval", key, "run")
        await client.call("Approval.decide", Decision(True), key=key)
        await run_of_key.result()
        found = await client.describe(run_of_key.id)
        assert found.status is Status.COMPLETED
        assert (found.waiting_on, found.journal_kept, found.journal_next) == ([], True, None)
        shown = [(entry.kind, entry.name, entry.value) for entry in found.journal]
        assert shown == [
            ("start", "", {"title": "a", "due": None}),
            ("set state", "title", "a"),
            ("wait for promise", "decision", None),
            ("promise completed", "", {"approved": True, "by": ""}),
            ("return", "", {"approved": True, "by": ""}),
        ]
        assert found.journal[3].answers == 2
        assert "set state 'title': \"a\"" in found.timeline()
        part = await client.describe(run_of_key.id, journal_from=1, journal_limit=2)
        assert part.journal == found.journal[1:3]
        assert (part.journal_length, part.journal_next) == (5, 3)

    on(server, main)


def test_describe_names_calls_timers_steps_and_failures(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        sent = await client.send("Desk.callsAway", key)
        assert await sent.result() == 3
        found = await client.describe(sent.id)
        entries = {(entry.kind, entry.name): entry for entry in found.journal}
        assert entries["call", f"Counter.add/{key}"].value == 3
        assert entries["send", f"Counter.add/{key}"].value == 2
        failure = entries["step done", ""].failure
        assert failure is not None
        assert (failure.message, failure.code) == ("lost", 410)
        assert entries["step done", ""].answers == entries["step", "lose"].index
        nap = await client.send("Desk.nap", 3600)
        found = await until(lambda: client.describe(nap.id), lambda it: it.journal_length == 4)
        assert [(each.kind, each.name) for each in found.waiting_on] == [("timer", "nap")]
        assert found.waiting_on[0].deadline is not None
        assert not found.waits_without_timeout
        waits = await client.send(Desk.wait)
        await until_status(client, waits.id, Status.SUSPENDED)
        waiting = (await client.describe(waits.id)).waiting_on
        assert [(each.kind, each.name) for each in waiting] == [("signal", "go")]
        stumbles = await client.send("Desk.stumble")
        await until_status(client, stumbles.id, Status.BACKING_OFF)
        found = await client.describe(stumbles.id)
        assert found.attempt > 1
        assert found.waiting_on[0].kind == "retry"
        assert "odd" in (found.last_failure or "")
        for each in (nap, waits, stumbles):
            await client.kill(each.id)

    on(server, main)


def test_state_is_read_and_replaced(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        assert await client.state(Counter, key) == {}
        await client.set_state(Counter, key, {"total": 3, "none": None, "tea": {"a": [DUE]}})
        plain = {"total": 3, "none": None, "tea": {"a": ["2026-01-31T12:30:15.250000Z"]}}
        await until(lambda: client.state(Counter, key), lambda it: it == plain)  # applied later
        assert await client.call(Counter.add, 4, key=key) == 7
        with pytest.raises(InvalidInput, match="Desk is a Service, and has no state"):
            await client.state(Desk, key)
        with pytest.raises(InvalidInput, match="has no state"):
            await client.set_state(Desk, key, {})

    on(server, main)


def test_state_of_every_form_is_shown(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        await client.call("Counter.keep", key=key)
        assert await client.state(Counter, key) == {
            "bytes": "//4=",
            "cbor": "AP8=",
            "json": {"a": [1, None]},
            "none": None,
            "text": "tea: green",
        }

    on(server, main)


def test_promises_are_listed_with_who_waits(server: Restate) -> None:
    async def main(client: Client) -> None:
        key, other = next(_keys), next(_keys)
        waits = await client.send(Approval.run, Document("a"), key=key)
        promises = await until(lambda: client.promises(Approval, key), bool)
        assert [(each.name, each.status) for each in promises] == [("decision", "pending")]
        assert promises[0].waiters == [waits.id]
        await client.call("Approval.decide", Decision(True), key=key)
        (resolved,) = await client.promises(Approval, key)
        assert (resolved.status, resolved.value) == ("resolved", {"approved": True, "by": ""})
        await client.call("Approval.refuse", "no tea", key=other)
        (rejected,) = await client.promises("Approval", other)
        assert rejected.status == "rejected"
        assert rejected.failure is not None
        assert (rejected.failure.message, rejected.failure.code) == ("no tea", 499)
        with pytest.raises(InvalidInput, match="has no promises"):
            await client.promises(Counter, key)

    on(server, main)


def test_a_rejection_by_perdures_handlers_is_one(server: Restate) -> None:
    async def main(client: Client) -> None:
        key = next(_keys)
        waits = await client.send(Approval.run, Document("a"), key=key)
        await until(lambda: client.promises(Approval, key), bool)
        await client.call("Approval.reject", key=key)
        (rejected,) = await client.promises(Approval, key)
        assert (rejected.status, rejected.value) == ("rejected", None)
        found = await until(lambda: client.describe(waits.id), lambda it: it.journal_length > 3)
        for failure in (rejected.failure, found.journal[3].failure):
            assert type(failure) is NotFound
            assert (failure.message, failure.code) == ("nope", 404)
        assert not found.journal[3].has_value
        await client.kill(waits.id)

    on(server, main)


def test_sql_is_answered_with_all_its_columns(server: Restate) -> None:
    async def main(client: Client) -> None:
        found = await client.query("SELECT 1 AS a, NULL AS b, 'x' AS c")
        assert (found.columns, found.rows, found.truncated) == (
            ["a", "b", "c"],
            [(1, None, "x")],
            False,
        )
        found = await client.query("SELECT id FROM sys_invocation WHERE 1 = 0")
        assert (found.columns, found.rows) == (["id"], [])
        found = await client.query("VALUES (1), (2), (3)", rows_max=2)
        assert (found.rows, found.truncated) == ([(1,), (2,)], True)
        assert (await client.query("SHOW TABLES")).rows != []
        for wrong in ("selec", "SELECT 1; SELECT 2", "DELETE FROM state", "SELECT * FROM nope"):
            with pytest.raises(InvalidInput):
                await client.query(wrong)
        with pytest.raises(TerminalError, match="longer than"):
            await client.query("SELECT 1", timeout_s=0.000_01)

    on(server, main)


def test_what_restate_has_not_is_refused_with_the_remedy(server: Restate, tmp_path: Path) -> None:
    async def main(client: Client) -> None:
        for verb, ask in (
            ("check: .*deployment", client.check()),
            ("export: .*describe", client.export(NO_ID)),
            ("backup: .*snapshots", client.backup(tmp_path / "copy")),
        ):
            with pytest.raises(NotSupportedOnRestate, match=verb):
                await ask

    on(server, main)
    assert list(tmp_path.iterdir()) == []
