"""One program, with an engine and with a client of it: the verbs have the same outcome."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from client_support import Approval, Counter, Decision, Desk, Document, Served, client_of, served
from engine_support import Place, run, until

import perdure
from perdure import (
    Accepted,
    AlreadyCompleted,
    Cancelled,
    Client,
    Conflict,
    Engine,
    InvalidInput,
    InvocationFilter,
    InvocationHandle,
    Killed,
    NotFound,
    NotReady,
    PerdureError,
    Status,
    StoreError,
    TerminalError,
    WorkflowContext,
    testing,
)

Ask = Callable[[], Awaitable[Any]]

BY = pytest.mark.parametrize("by", ["engine", "client"])
NO_ID = "inv_06d3pdls0000f7hnf6snuijs2k"
DUE = datetime(2026, 1, 31, 12, 30, 15, 250_000, UTC)


def shown(error: pytest.ExceptionInfo[PerdureError]) -> tuple[type, str]:
    return type(error.value), str(error.value)


def test_a_client_has_the_verbs_of_an_engine_with_their_signatures() -> None:
    verbs = {name for name in dir(Engine) if not name.startswith("_")} - {
        *("is_open", "open"),
        "backup_file",  # for a server
    }
    assert {name for name in dir(Client) if not name.startswith("_")} >= verbs
    for name in verbs - {"close"}:
        theirs, ours = getattr(Engine, name), getattr(Client, name)
        assert inspect.signature(ours) == inspect.signature(theirs), name


# -- invoking -----------------------------------------------------------------------------------


@BY
def test_a_call_gives_the_result_as_its_class(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            document = Document("tea", DUE)
            assert await at.verbs.call(Desk.copy, document) == document
            assert await at.verbs.call("Desk.copy", document, returns=Document) == document
            assert await at.verbs.call("Desk.nothing") is None
            assert await at.verbs.call(Desk.maybe, None) is None
            assert await at.verbs.call(Desk.maybe, "") == ""
            assert await at.verbs.call(Desk.untyped, {"a": [1, None]}) == {"a": [1, None]}
            assert await at.verbs.call(Desk.raw, b"\x00\xff") == b"\xff\x00"
            assert await at.verbs.call("Desk.raw", b"\x00\xff") == b"\xff\x00"
            assert await at.verbs.call(Counter.add, key="k") == 1  # its default
            assert await at.verbs.call(Counter.add, 4, key="k") == 5

    run(main())


@BY
@pytest.mark.parametrize("key", ["", "a/b", "..", ".", "a b?c=d#e", "ключ", "%2F", "send"])
def test_any_text_is_a_key(resident_place: Place, by: str, key: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            assert await at.verbs.call(Counter.key_of, key=key) == key
            await at.verbs.set_state(Counter, key, {"total": 3})
            assert await at.verbs.state(Counter, key) == {"total": 3}
            handle = await at.verbs.send(Approval.run, Document("a"), key=key)
            await at.verbs.resolve(Approval.decision, Decision(True), key=key)
            assert await handle.result() == Decision(True)
            assert [each.name for each in await at.verbs.promises(Approval, key)] == ["decision"]

    run(main())


@BY
def test_a_terminal_error_arrives_whole(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            for code in (400, 404, 409, 418, 429, 470, 500, 503, 599):
                with pytest.raises(TerminalError) as caught:
                    await asyncio.wait_for(at.verbs.call(Desk.fail, code), 5)
                assert type(caught.value) is TerminalError
                error = caught.value
                assert (error.message, error.code) == ("no tea", code)
                assert error.metadata == {"shop": "closed"}

    run(main())


async def bad_calls(at: Served) -> list[tuple[type, str]]:
    verbs: Any = at.verbs
    found = []
    asks: list[Ask] = [
        lambda: verbs.call(Desk.copy, "tea"),
        lambda: verbs.call(Desk.copy),
        lambda: verbs.call(Desk.nothing, 1),
        lambda: verbs.call(Desk.copy, Document("a"), key="k"),
        lambda: verbs.call(Counter.add, 1),
        lambda: verbs.call(Counter.add, 1, key=7),
        lambda: verbs.call(Counter.add, 1, key="k" * 257),
        lambda: verbs.call(Desk.secret),
        lambda: verbs.call(Desk),
        lambda: verbs.call("Desk"),
        lambda: verbs.call(Desk.nothing, headers=["a"]),
        lambda: verbs.call(Desk.nothing, idempotency_key=""),
        lambda: verbs.call(Approval.run, Document("a"), key="k", idempotency_key="i"),
        lambda: verbs.send(Desk.nothing, delay=-1),
        lambda: verbs.send(Desk.nothing, delay="1s"),
        lambda: verbs.resolve(Approval.decision, "yes", key="k"),
        lambda: verbs.resolve(Approval.decision, Decision(True)),
        lambda: verbs.resolve("decision", Decision(True), key="k"),
        lambda: verbs.resolve(Desk.go, "a", key="k"),
        lambda: verbs.reject(Approval.decision, 7, key="k"),
        lambda: verbs.signal(NO_ID, Desk.go, 7),
        lambda: verbs.signal(NO_ID, "", 7),
        lambda: verbs.state(Desk, "k"),
        lambda: verbs.state(int, "k"),
        lambda: verbs.set_state(Counter, "k", {"": 1}),
        lambda: verbs.set_state(Counter, "k", [1]),
        lambda: verbs.promises(Counter, "k"),
        lambda: verbs.describe(NO_ID, journal_limit=-1),
        lambda: verbs.invocations(limit=0),
        lambda: verbs.invocations("all"),
        lambda: verbs.invocations(cursor="none"),
        lambda: verbs.cancel("inv_7"),
        lambda: verbs.restart(NO_ID, from_entry=-1),
        lambda: verbs.restart(InvocationFilter(), from_entry=1),
    ]
    for asked in asks:
        with pytest.raises(InvalidInput) as caught:
            await asked()
        found.append(shown(caught))
    return found


def test_what_makes_no_sense_is_refused_in_the_same_words(tmp_path: Any) -> None:
    async def main(by: str) -> list[tuple[type, str]]:
        async with served(Place(tmp_path / by, 10_000), by) as at:
            return await bad_calls(at)

    assert run(main("client")) == run(main("engine"))


@BY
def test_what_is_not_there_is_not_found(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            verbs: Any = at.verbs
            asks: list[Ask] = [
                lambda: verbs.call("Desk.copies", 1),
                lambda: verbs.send("Disk.copy", 1),
                lambda: verbs.submit("Disk.run", 1, key="k"),
                lambda: verbs.resolve("Disk.decision", 1, key="k"),
                lambda: verbs.signal(NO_ID, "go", 1),
                lambda: verbs.attach(NO_ID),
                lambda: verbs.output(NO_ID),
                lambda: verbs.cancel(NO_ID),
                lambda: verbs.kill(NO_ID),
                lambda: verbs.pause(NO_ID),
                lambda: verbs.resume(NO_ID),
                lambda: verbs.purge(NO_ID),
                lambda: verbs.restart(NO_ID),
                lambda: verbs.describe(NO_ID),
                lambda: verbs.state("Disk", "k"),
                lambda: verbs.set_state("Disk", "k", {}),
                lambda: verbs.promises("Disk", "k"),
            ]
            for asked in asks:
                with pytest.raises(NotFound):
                    await asked()

    run(main())


@BY
def test_a_run_begins_once_for_its_key(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            first = await at.verbs.send(Approval.run, Document("a"), key="k")
            assert isinstance(first, InvocationHandle)
            assert first.accepted is Accepted.NEW
            again = await at.verbs.send(Approval.run, Document("b"), key="k")
            assert (again.id, again.accepted) == (first.id, Accepted.EXISTING)
            with pytest.raises(Conflict):
                await at.verbs.call(Approval.run, Document("b"), key="k")
            submitted = asyncio.ensure_future(at.verbs.submit(Approval.run, Document("b"), key="k"))
            with pytest.raises(NotReady):
                await first.output()
            with pytest.raises(NotReady):
                await at.verbs.output(first.id)
            await at.verbs.resolve(Approval.decision, Decision(True, "bob"), key="k")
            assert await submitted == Decision(True, "bob")
            assert await first.result() == await again.output() == Decision(True, "bob")
            assert await at.verbs.attach(first.id, Decision) == Decision(True, "bob")
            assert await at.verbs.call(Approval.title, key="k") == "a"
            with pytest.raises(InvalidInput):
                await at.verbs.submit(Approval.title, key="k")

    run(main())


@BY
def test_an_idempotency_key_stands_for_one_invocation(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            calls = (at.verbs.call(Desk.count, idempotency_key="i") for _ in range(3))
            assert await asyncio.gather(*calls) == [1, 1, 1]
            sent = await at.verbs.send(Desk.count, idempotency_key="i")
            assert (sent.accepted, await sent.result()) == (Accepted.EXISTING, 1)

    run(main())


@BY
def test_headers_reach_the_handler(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            headers = {"x-tea": "green, hot"}
            assert await at.verbs.call(Desk.header, "x-tea", headers=headers) == "green, hot"

    run(main())


@BY
def test_a_delayed_send_is_scheduled(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            sent = await at.verbs.send(Desk.count, delay=86_400)
            assert (await at.verbs.describe(sent.id)).status is Status.SCHEDULED
            with pytest.raises(Conflict):
                await at.verbs.pause(sent.id)
            now = await at.verbs.send(Desk.count, delay=0.0001)
            assert await now.result() == 1

    run(main())


# -- completing ---------------------------------------------------------------------------------


@BY
def test_signals_reach_what_waits_for_them(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            sent = await at.verbs.send(Desk.wait)
            await at.verbs.signal(sent.id, Desk.go, "on")
            assert await sent.result() == "on"
            with pytest.raises(Conflict):
                await at.verbs.signal(sent.id, "go", "on")
            timed = await at.verbs.send(Desk.when)
            await at.verbs.signal(timed.id, Desk.moment, DUE)
            assert await timed.result() == DUE

    run(main())


@BY
def test_a_promise_is_completed_once(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            await at.verbs.resolve(Approval.decision, Decision(True), key="early")
            with pytest.raises(AlreadyCompleted):
                await at.verbs.resolve("Approval.decision", Decision(False), key="early")
            with pytest.raises(AlreadyCompleted):
                await at.verbs.reject(Approval.decision, "no", key="early")
            assert await at.verbs.submit(Approval.run, Document("a"), key="early") == Decision(True)
            refused = await at.verbs.send(Approval.run, Document("a"), key="k")
            await at.verbs.reject(Approval.decision, "no täa", key="k", code=451)
            with pytest.raises(TerminalError, match="no täa") as caught:
                await refused.result()
            assert caught.value.code == 451

    run(main())


@BY
def test_an_awakeable_is_completed_by_its_id(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            sent = await at.verbs.send(Desk.ask)
            await until(lambda: len(at.desk.ids) == 1)
            await at.verbs.resolve_awakeable(at.desk.ids[0], "tea")
            assert await sent.result() == "tea"
            sent = await at.verbs.send(Desk.ask)
            await until(lambda: len(at.desk.ids) == 2)
            await at.verbs.reject_awakeable(at.desk.ids[1], "no tea", 451)
            with pytest.raises(TerminalError, match="no tea") as caught:
                await sent.result()
            assert caught.value.code == 451

    run(main())


# -- operating ----------------------------------------------------------------------------------


@BY
def test_cancel_and_kill_end_an_invocation_once(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            sent = await at.verbs.send(Desk.wait)
            assert await sent.cancel() is True
            with pytest.raises(Cancelled):
                await sent.result()
            assert await at.verbs.cancel(sent.id) is False
            sent = await at.verbs.send(Desk.wait)
            assert await at.verbs.kill(sent.id) is True
            with pytest.raises(Killed):
                await sent.result()
            assert await at.verbs.kill(sent.id) is False

    run(main())


@BY
def test_pause_and_resume_say_whether_they_did_anything(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            sent = await at.verbs.send(Desk.wait)
            assert await at.verbs.resume(sent.id) is False
            assert await at.verbs.pause(sent.id) is True
            assert await at.verbs.pause(sent.id) is False
            await at.verbs.signal(sent.id, Desk.go, "on")
            assert await at.verbs.resume(sent.id) is True
            assert await sent.result() == "on"
            assert await at.verbs.pause(sent.id) is False
            assert await at.verbs.resume(sent.id) is False

    run(main())


@BY
def test_purge_and_restart_are_for_what_has_completed(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            started = await at.verbs.send(Approval.run, Document("a"), key="k")
            with pytest.raises(Conflict):
                await at.verbs.purge(started.id)
            with pytest.raises(Conflict):
                await at.verbs.restart(started.id)
            await at.verbs.resolve(Approval.decision, Decision(True), key="k")
            await started.result()
            with pytest.raises(Conflict):
                await at.verbs.restart(started.id)
            await at.verbs.purge(started.id)
            with pytest.raises(NotFound):
                await at.verbs.purge(started.id)
            counted = await at.verbs.send(Desk.count)
            assert await counted.result() == 1
            again = await at.verbs.restart(counted.id)
            assert (again.accepted, await again.result()) == (Accepted.NEW, 2)
            with pytest.raises(InvalidInput):
                await at.verbs.restart(counted.id, from_entry=1_000)

    run(main())


@BY
def test_a_filter_means_many(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            for _ in range(3):
                await at.verbs.send(Desk.wait)
            other = await at.verbs.send(Approval.run, Document("a"), key="k")
            waiting = InvocationFilter(
                handler=Desk.wait, created_before=datetime.max.replace(tzinfo=UTC)
            )
            assert await at.verbs.pause(waiting) == 3
            assert await at.verbs.resume(waiting) == 3
            assert await at.verbs.cancel(waiting) == 3
            assert await at.verbs.kill(InvocationFilter()) == 1
            with pytest.raises(Killed):
                await other.result()
            assert await at.verbs.restart(waiting) == 3
            assert await at.verbs.kill(InvocationFilter(older_than=3600)) == 0
            assert await at.verbs.purge(InvocationFilter()) == 4

    run(main())


# -- inspecting ---------------------------------------------------------------------------------


def test_a_client_lists_what_an_engine_lists(resident_place: Place) -> None:
    async def main() -> None:
        async with served(resident_place, "client") as at:
            engine, client = at.engine, at.verbs
            for number in range(5):
                await client.send(Approval.run, Document("a"), key=f"k{number}")
            await client.call(Desk.count, idempotency_key="i")
            some: list[InvocationFilter | None] = [
                None,
                InvocationFilter(service=Approval),
                InvocationFilter(handler="count"),
                InvocationFilter(key="k3"),
                InvocationFilter(status=[Status.COMPLETED, "suspended"]),
                InvocationFilter(older_than=0, created_after=datetime(2020, 1, 1, tzinfo=UTC)),
                InvocationFilter(created_before=datetime(2020, 1, 1, tzinfo=UTC)),
            ]
            for each in some:
                assert await client.invocations(each) == await engine.invocations(each)
                assert [item async for item in client.all_invocations(each)] == [
                    item async for item in engine.all_invocations(each)
                ]
            page = await client.invocations(some[1], limit=2)
            assert page == await engine.invocations(some[1], limit=2)
            rest = await client.invocations(some[1], limit=9, cursor=page.cursor)
            assert (len(page.items), len(rest.items), rest.cursor) == (2, 3, None)

    run(main())


def test_a_client_describes_as_an_engine_does(resident_place: Place) -> None:
    async def main() -> None:
        async with served(resident_place, "client") as at:
            engine, client = at.engine, at.verbs
            running = await client.send(Approval.run, Document("a"), key="k")
            failed = await client.send(Desk.fail, 418)
            with pytest.raises(TerminalError):
                await failed.result()
            rejected = await client.send(Approval.run, Document("b"), key="no")
            await client.reject(Approval.decision, "no", key="no", code=451)
            with pytest.raises(TerminalError):
                await rejected.result()
            for handle in (running, failed):
                ours, theirs = await client.describe(handle.id), await engine.describe(handle.id)
                assert ours == theirs
                assert ours.timeline() == theirs.timeline()
            ours = await client.describe(rejected.id, journal_from=1, journal_limit=3)
            theirs = await engine.describe(rejected.id, journal_from=1, journal_limit=3)
            assert ours.timeline() == theirs.timeline()
            assert ours.journal_next == theirs.journal_next
            failures = [each.failure for each in ours.journal if each.failure is not None]
            assert [(type(each), each.message, each.code) for each in failures] == [
                (type(each.failure), each.failure.message, each.failure.code)
                for each in theirs.journal
                if each.failure is not None
            ]
            (promise,) = await client.promises(Approval, "no")
            assert promise.status == "rejected"
            assert promise.failure is not None
            assert (promise.failure.message, promise.failure.code) == ("no", 451)
            assert await client.promises(Approval, "k") == await engine.promises(Approval, "k")

    run(main())


@BY
def test_an_invocation_is_exported_with_its_journal(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            started = await at.verbs.send(Approval.run, Document("a"), key="k")
            await at.verbs.resolve(Approval.decision, Decision(True), key="k")
            await started.result()
            history = await at.verbs.export(started.id)
            assert [each.key for each in history.invocations] == ["k"]
            assert history.dumps() == (await at.engine.export(started.id)).dumps()
            assert testing.replay(history, [Approval()]).ok
            for wrong in (NO_ID, (await at.verbs.send(Desk.nothing)).id):
                with pytest.raises(NotFound):
                    await at.verbs.export(started.id, wrong)
            with pytest.raises(InvalidInput):
                await at.verbs.export("inv_1")

    run(main())


@BY
def test_state_is_read_and_replaced(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            await at.verbs.call(Counter.add, 7, key="k")
            assert await at.verbs.state(Counter, "k") == {"total": 7}
            await at.verbs.set_state("Counter", "k", {"total": 1, "note": None})
            assert await at.verbs.state("Counter", "k") == {"note": None, "total": 1}
            assert await at.verbs.call(Counter.add, 1, key="k") == 2
            await at.verbs.send(Approval.run, Document("a"), key="k")
            with pytest.raises(Conflict):
                await at.verbs.set_state(Approval, "k", {})

    run(main())


@BY
def test_a_check_tells_what_the_code_does_not_fit(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            await at.verbs.send(Approval.run, Document("a"), key="k")
            report = await at.verbs.check()
            assert report.ok
            assert str(report) == str(await at.engine.check())

    run(main())


def order_that_awaits(name: str) -> Any:
    """A workflow of one name with the code of one day."""

    class Order(perdure.Workflow):
        async def run(self, ctx: WorkflowContext) -> None:
            await ctx.promise(name, str)

    return Order()


@BY
def test_a_check_shows_what_diverges(resident_place: Place, by: str) -> None:
    async def main() -> None:
        async with resident_place.engine(order_that_awaits("paid")) as engine:
            await engine.send("Order.run", key="k")
        async with resident_place.engine(order_that_awaits("sent")) as engine:
            async with client_of(engine) as client:
                verbs: Any = client if by == "client" else engine
                report = await verbs.check()
            assert not report.ok
            assert report.problems[0].divergence.index == 1
            assert str(report) == str(await engine.check())

    run(main())


@BY
def test_a_backup_is_opened_by_an_engine(resident_place: Place, tmp_path: Path, by: str) -> None:
    async def main() -> None:
        async with served(resident_place, by) as at:
            await at.verbs.call(Counter.add, 7, key="k")
            await at.verbs.backup(tmp_path / "copy")
            with pytest.raises(StoreError):
                await at.verbs.backup(tmp_path / "copy")
        async with Place(tmp_path / "copy", 10_000).engine(Counter()) as engine:
            assert await engine.call(Counter.add, 1, key="k") == 8

    run(main())
