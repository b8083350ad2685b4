"""State and promises of a key, read and written by the engine's owner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from engine_support import Place, run, until_idle, until_status
from introspection_support import Counter, Echo, Gate
from stalled_disk import StalledDisk

from perdure import (
    Conflict,
    InvalidInput,
    NotFound,
    ObjectContext,
    Status,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


@dataclass
class Cart:
    items: list[str]


class Shop(VirtualObject):
    @handler
    async def fill(self, ctx: ObjectContext) -> None:
        ctx.set("cart", Cart(["book"]))
        ctx.set("since", datetime(2026, 1, 1, tzinfo=UTC))
        ctx.set("note", None)

    @handler
    async def cart(self, ctx: ObjectContext) -> list[str]:
        return (await ctx.get("cart", Cart, Cart([]))).items


# -- state ----------------------------------------------------------------------------------------


def test_the_state_of_a_key_is_its_names_and_plain_values(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Shop(), Gate()) as engine:
            await engine.call(Shop.fill, key="k")
            wanted = {
                "cart": {"items": ["book"]},
                "since": datetime(2026, 1, 1, tzinfo=UTC),
                "note": None,
            }
            assert await engine.state(Shop, "k") == wanted
            assert await engine.state("Shop", "k") == wanted
            assert list(await engine.state(Shop, "k")) == sorted(wanted)
            assert await engine.state(Shop, "other") == {}
            await engine.send(Gate.run, 7, key="k")
            await until_idle(engine)
            assert await engine.state(Gate, "k") == {"value": 7}
        async with place.engine(Shop()) as engine:
            assert await engine.state(Shop, "k") == wanted

    run(main())


def test_state_that_is_set_replaces_all_and_is_what_handlers_read(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Shop(), Counter()) as engine:
            await engine.call(Shop.fill, key="k")
            await until_idle(engine)
            await engine.set_state(Shop, "k", {"cart": Cart(["pen"]), "new": (1, 2)})
            assert await engine.state(Shop, "k") == {"cart": {"items": ["pen"]}, "new": [1, 2]}
            assert await engine.call(Shop.cart, key="k") == ["pen"]
            await engine.set_state("Counter", "never used", {"total": 40})
            assert await engine.call(Counter.add, 2, key="never used") == 42
            await until_idle(engine)
            await engine.set_state(Shop, "k", {})
            assert await engine.state(Shop, "k") == {}
            assert await engine.state(Counter, "never used") == {"total": 42}
        async with place.engine(Shop(), Counter()) as engine:
            assert await engine.state(Shop, "k") == {}
            assert await engine.call(Counter.total, key="never used") == 42

    run(main())


def test_the_state_of_a_workflow_can_be_set_before_run_and_after_it_not_while_it_lasts(
    place: Place,
) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            await engine.set_state(Gate, "k", {"early": 1})
            handle = await engine.send(Gate.run, 7, key="k")
            await until_idle(engine)
            for _ in range(2):
                with pytest.raises(Conflict, match=f"{handle.id} of Gate 'k' has not completed"):
                    await engine.set_state(Gate, "k", {})
            assert await engine.state(Gate, "k") == {"early": 1, "value": 7}
            await engine.set_state(Gate, "other", {"a": 1})
            await engine.call(Gate.go, 1, key="k")
            await handle.result()
            await engine.set_state(Gate, "k", {"late": 2})
            assert await engine.state(Gate, "k") == {"late": 2}
            await engine.send(Gate.run, 7, key="blocked")
        async with place.engine(Gate()) as engine:
            with pytest.raises(Conflict, match="of Gate 'blocked' has not completed"):
                await engine.set_state(Gate, "blocked", {})

    run(main())


def test_the_state_of_an_object_is_not_set_while_an_exclusive_handler_has_its_key(
    place: Place,
) -> None:
    async def main() -> None:
        counter = Counter()
        async with place.engine(counter) as engine:
            held = await engine.send(Counter.hold, key="k")
            await counter.holding.wait()
            with pytest.raises(Conflict, match=f"{held.id} of Counter 'k' has not completed"):
                await engine.set_state(Counter, "k", {"total": 1})
            await engine.set_state(Counter, "other", {"total": 1})
            calling = asyncio.create_task(engine.call(Counter.add, 1, key="new"))
            await asyncio.sleep(0)  # it has the key, and no row yet
            with pytest.raises(Conflict, match="of Counter 'new' has not completed"):
                await engine.set_state(Counter, "new", {"total": 1})
            assert await calling == 1
            counter.let_go.set()
            await until_status(engine, held, Status.COMPLETED)
            await engine.set_state(Counter, "k", {"total": 1})
            assert await engine.call(Counter.total, key="k") == 1

    run(main())


def test_a_refused_value_leaves_the_state_as_it_was(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Shop()) as engine:
            await engine.call(Shop.fill, key="k")
            before = await engine.state(Shop, "k")
            bad: list[tuple[Any, str]] = [
                ({"a": 1, "b": object()}, "state 'b'"),
                ({"": 1}, "state name is empty"),
                ({"x" * 97: 1}, "the limit is 96"),
                ({7: 1}, "state name: expected `str`, got `int`"),
                ([("a", 1)], "expected a mapping of names, got `list`"),
                (None, "expected a mapping of names, got `NoneType`"),
            ]
            for state, complaint in bad:
                with pytest.raises(InvalidInput) as caught:
                    await engine.set_state(Shop, "k", state)
                assert complaint in str(caught.value)
            assert await engine.state(Shop, "k") == before

    run(main())


# -- promises -------------------------------------------------------------------------------------


class Votes(Workflow):
    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.promise("open")

    @handler
    async def await_it(self, ctx: WorkflowSharedContext, name: str) -> Any:
        return await ctx.promise(name)

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name).resolve(Cart([name]))

    @handler
    async def reject(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name).reject("no", code=418)


def test_the_promises_of_a_key_are_those_completed_and_those_waited_for(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Votes()) as engine:
            assert await engine.promises(Votes, "k") == []
            main_run = await engine.send(Votes.run, key="k")
            await until_idle(engine)
            watch = await engine.send(Votes.await_it, "open", key="k")
            later = await engine.send(Votes.await_it, "opened later", key="k")
            await engine.send(Votes.await_it, "open", key="k2")
            await engine.call(Votes.resolve, "done", key="k")
            await engine.call(Votes.reject, "bad", key="k")
            await until_idle(engine)
            for _ in range(2):
                bad, done, opened, opened_later = await engine.promises("Votes", "k")
                assert [each.name for each in (bad, done, opened, opened_later)] == [
                    *("bad", "done", "open", "opened later")
                ]
                assert (bad.status, bad.value, bad.waiters) == ("rejected", None, [])
                assert isinstance(bad.failure, TerminalError)
                assert (str(bad.failure), bad.failure.code) == ("no", 418)
                assert (done.status, done.value) == ("resolved", {"items": ["done"]})
                assert (done.failure, done.waiters) == (None, [])
                assert (opened.status, opened.value, opened.failure) == ("pending", None, None)
                assert sorted(opened.waiters) == sorted([main_run.id, watch.id])
                assert opened_later.waiters == [later.id]
            await engine.call(Votes.resolve, "open", key="k")
            await main_run.result()
            statuses = {each.name: each.status for each in await engine.promises(Votes, "k")}
            assert statuses["open"] == "resolved"
            await engine.call(Votes.resolve, "opened later", key="k")
            await engine.call(Votes.resolve, "open", key="k2")

    run(main())


# -- answers and bad input ------------------------------------------------------------------------


def test_no_answer_on_a_key_or_a_listing_leaves_before_its_commit(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Counter(), Gate(), durability="fsync") as engine:
            await engine.call(Counter.add, 1, key="k")
            await until_idle(engine)
            with StalledDisk(resident_place.path) as disk:
                adding = asyncio.create_task(engine.call(Counter.add, 1, key="k"))
                sending = asyncio.create_task(engine.send(Gate.run, 1, key="k"))
                await asyncio.sleep(0.01)
                asked: list[asyncio.Task[Any]] = [
                    asyncio.create_task(engine.state(Counter, "k")),
                    asyncio.create_task(engine.promises(Gate, "k")),
                    asyncio.create_task(engine.invocations()),
                    asyncio.create_task(engine.set_state(Counter, "other", {})),
                ]
                await asyncio.sleep(0.05)
                answered = [task for task in asked if task.done()]
                disk.release()
            assert not answered
            await adding
            state, promises, page, _ = await asyncio.gather(*asked)
            assert state == {"total": 2}
            # What is not committed when it is asked for is seen all the same.
            assert [each.id for each in page.items] == [(await sending).id]
            assert [each.name for each in promises] == ["go"]

    run(main())


@pytest.mark.parametrize(
    ("service", "key", "error", "complaint"),
    [
        ("Countr", "k", NotFound, "did you mean 'Counter'"),
        (Votes, "k", NotFound, "service 'Votes' is not registered here"),
        (Echo, "k", InvalidInput, "Echo is a service without keys"),
        (int, "k", InvalidInput, "is not a service; subclass"),
        ("", "k", InvalidInput, "given as its class or by name, not as ''"),
        (7, "k", InvalidInput, "given as its class or by name, not as 7"),
        (None, "k", InvalidInput, "given as its class or by name"),
        (Gate, 7, InvalidInput, "key of Gate: expected `str`, got `int`"),
        (Gate, None, InvalidInput, "key of Gate: expected `str`"),
        (Gate, "x" * 257, InvalidInput, "the limit is 256"),
    ],
)
@pytest.mark.parametrize("verb", ["state", "set_state", "promises"])
def test_what_is_no_key_of_a_service_is_refused(
    resident_place: Place, verb: str, service: Any, key: Any, error: type, complaint: str
) -> None:
    async def main() -> None:
        async with resident_place.engine(Counter(), Echo(), Gate()) as engine:
            rest: list[Any] = [{}] if verb == "set_state" else []
            with pytest.raises(error) as caught:
                await getattr(engine, verb)(service, key, *rest)
            assert complaint in str(caught.value)

    run(main())


def test_objects_have_no_promises(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Counter()) as engine:
            with pytest.raises(InvalidInput, match="Counter is no workflow, and has no promises"):
                await engine.promises(Counter, "k")

    run(main())
