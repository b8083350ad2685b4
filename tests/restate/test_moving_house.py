"""The page on outgrowing one machine: its programs, with a real engine and a real Restate.

One Restate for all of it: each test has keys and a data directory of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import httpx
import pytest
from restate_server import Restate, restate

import perdure
from perdure import Client, Engine, InvocationFilter, NotFound, Status
from perdure.http._server import Server

pytestmark = pytest.mark.slow

# Any, in this module: classes and functions are those of a page.

T = TypeVar("T")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "outgrow-one-machine.md"
HANG_S = 30.0
UNFINISHED = [each for each in Status if each is not Status.COMPLETED]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
DESK = """
class Desk(perdure.VirtualObject):
    @perdure.handler
    async def ask(self, ctx: ObjectContext) -> str:
        answer = ctx.awakeable(str)
        ctx.set("id", answer.id)
        return await answer

    @perdure.handler
    async def asked(self, ctx: ObjectSharedContext) -> str | None:
        return await ctx.get("id", str)


services.append(Desk())
"""
SHOP = BLOCKS[0] + DESK

_keys = (f"o{number}" for number in itertools.count())


def code_of_the_page() -> SimpleNamespace:
    """What the programs of the page define."""
    defined: dict[str, Any] = {"__name__": "shop"}
    for number, block in enumerate([SHOP, *BLOCKS[1:]]):
        exec(compile(block, f"{PAGE.name}, program {number}", "exec"), defined)
    return SimpleNamespace(**defined)


page: Any = code_of_the_page()
Order, Cart, Desk = page.Order, page.Cart, page.Desk


@pytest.fixture(scope="module")
def cluster_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restate]:
    """A Restate server, with the shop of the page served to it by the command of the page."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP, "utf-8")

    def serve(port: int) -> list[Any]:
        command = ("serve", "--restate", "shop:services", "--port", str(port))
        return [sys.executable, "-m", "perdure", *command]

    with asyncio.Runner() as runner:
        serving = restate(folder / "restate", serve, folder)
        urls = runner.run(serving.__aenter__())
        yield urls
        runner.run(serving.__aexit__(None, None, None))


@dataclass
class House:
    """Both sides, and what is between them."""

    engine: Engine
    old: Client
    cluster: Client
    router: Any


@pytest.fixture
def moving(cluster_of: Restate, tmp_path: Path) -> Callable[[Callable[[House], Any]], None]:
    """Runs a test with a served engine of its own, the cluster, and the router of the page."""

    @contextlib.asynccontextmanager
    async def house() -> AsyncIterator[House]:
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            engine = await enter(Engine(tmp_path / "data", page.services, durability="os"))
            server = await enter(Server(engine, port=0, admin_port=0))
            ingress, admin = (
                f"http://127.0.0.1:{port}" for port in (server.port, server.admin_port)
            )
            old = await enter(perdure.connect(ingress, admin_url=admin))
            cluster = await enter(perdure.connect(cluster_of.ingress, admin_url=cluster_of.admin))
            asking = await enter(httpx.AsyncClient(base_url=ingress))
            yield House(engine, old, cluster, page.Router(old, cluster, asking))

    def run(test: Callable[[House], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(HANG_S), house() as it:
                await test(it)

        asyncio.run(main())

    return run


async def add(house: House, key: str, item: str) -> Any:
    async with house.router.at(Cart, key) as client:
        return await client.call(Cart.add, item, key=key)


async def until(ask: Callable[[], Awaitable[T]], is_so: Callable[[T], object] = bool) -> T:
    """What *ask* finds, once it is so."""
    while True:
        found = await ask()
        if is_so(found):
            return found
        await asyncio.sleep(0.01)


async def unfinished(client: Client, key: str) -> list[str]:
    filter = InvocationFilter(key=key, status=UNFINISHED)
    return [each.id async for each in client.all_invocations(filter)]


# -- the router -----------------------------------------------------------------------------------


def test_a_workflow_ends_where_it_began_and_new_ones_begin_on_the_cluster(moving: Any) -> None:
    async def test(house: House) -> None:
        begun, new = next(_keys), next(_keys)
        sent = {begun: await house.old.send(Order.run, 3, key=begun)}
        for key in (new, begun):  # of the begun one it is the second
            async with house.router.at(Order, key) as client:
                sent[key] = await client.send(Order.run, 4, key=key)
        assert house.router.with_id(sent[begun].id) is house.old
        assert house.router.with_id(sent[new].id) is house.cluster
        for key in (begun, new):
            async with house.router.at(Order, key) as client:
                await client.call(Order.approve, True, key=key)
        assert await sent[begun].result() == f"3 reserved for {begun}, sold"
        assert await sent[new].result() == f"4 reserved for {new}, sold"
        async with house.router.at(Order, begun) as client:
            assert client is house.old  # its result is kept there
        for client, key in ((house.cluster, begun), (house.old, new)):
            assert not await all_of(client, key)

    moving(test)


async def all_of(client: Client, key: str) -> list[str]:
    return [each.id async for each in client.all_invocations(InvocationFilter(key=key))]


def test_a_key_that_is_gone_from_the_old_engine_begins_on_the_cluster(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        sent = await house.old.send(Order.run, 3, key=key)
        await house.old.call(Order.approve, False, key=key)
        assert await sent.result() == "refused"
        await house.old.purge(sent.id)
        async with house.router.at(Order, key) as client:
            assert client is house.cluster

    moving(test)


def test_the_old_engine_is_drained_when_nothing_is_unfinished_there(moving: Any) -> None:
    async def test(house: House) -> None:
        keys = [next(_keys) for _ in range(3)]
        for key in keys:
            await house.old.send(Order.run, 1, key=key)
        left = InvocationFilter(status=UNFINISHED)
        for key in keys:
            assert [each async for each in house.old.all_invocations(left)]
            async with house.router.at(Order, key) as client:
                sent = await client.send(Order.approve, True, key=key)
            await sent.result()
            await house.old.submit(Order.run, 1, key=key)
        assert not [each async for each in house.old.all_invocations(left)]

    moving(test)


def test_a_promise_that_was_completed_before_its_run_stays_where_it_is(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        await house.old.call(Order.approve, True, key=key)
        async with house.router.at(Order, key) as client:
            assert client is house.cluster
            sent = await client.send(Order.run, 2, key=key)
            await client.call(Order.approve, True, key=key)
        assert await sent.result() == f"2 reserved for {key}, sold"

    moving(test)


# -- objects --------------------------------------------------------------------------------------


def test_the_state_of_a_key_moves_as_it_is(moving: Any) -> None:
    """Also what JSON can not hold: a time."""

    async def test(house: House) -> None:
        key = next(_keys)
        assert await add(house, key, "earlier") == ["earlier"]  # a key never used before is new
        await house.old.call(Cart.add, "tea", key=key)
        changed = await house.old.call(Cart.changed, key=key)
        assert await add(house, key, "milk") == ["tea", "milk"]  # what the old engine knows, it has
        changed = await house.old.call(Cart.changed, key=key)
        assert isinstance(changed, datetime)
        async with house.router.moving(Cart, key):
            assert await page.move_state(house.engine, house.cluster, Cart, key)
        assert await house.cluster.call(Cart.changed, key=key) == changed
        assert await add(house, key, "bread") == ["tea", "milk", "bread"]
        assert await house.old.state(Cart, key) == {}

    moving(test)


def test_the_state_has_arrived_before_a_call_that_comes_after_it(moving: Any) -> None:
    async def test(house: House) -> None:
        for _ in range(30):
            key = next(_keys)
            await house.cluster.set_state(Cart, key, {"items": ["tea"]})
            assert await house.cluster.call(Cart.add, "milk", key=key) == ["tea", "milk"]

    moving(test)


def test_a_key_in_use_is_not_moved(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        await house.old.call(Cart.add, "tea", key=key)
        sent = await house.old.send(Cart.add, "milk", key=key, delay=3600)
        assert not await page.move_state(house.engine, house.cluster, Cart, key)
        await house.old.cancel(sent.id)
        assert await page.move_state(house.engine, house.cluster, Cart, key)

    moving(test)


def test_a_move_that_broke_off_is_made_again(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        await house.old.call(Cart.add, "tea", key=key)
        # It has died between the two writes:
        await house.cluster.set_state(Cart, key, await house.engine.state(Cart, key))
        assert await add(house, key, "milk") == ["tea", "milk"]
        assert await page.move_state(house.engine, house.cluster, Cart, key)
        assert await add(house, key, "bread") == ["tea", "milk", "bread"]

    moving(test)


def test_calls_wait_while_their_key_moves_and_the_move_waits_for_calls(moving: Any) -> None:
    async def test(house: House) -> None:
        key, other = next(_keys), next(_keys)
        await house.old.call(Cart.add, "tea", key=key)
        is_moving = asyncio.Event()

        async def move() -> None:
            async with house.router.moving(Cart, key):
                is_moving.set()
                late = asyncio.create_task(add(house, key, "bread"))
                await add(house, other, "other keys go on")
                assert await page.move_state(house.engine, house.cluster, Cart, key)
                assert not late.done()
            assert await late == ["tea", "milk", "bread"]

        async with house.router.at(Cart, key) as client:
            moved = asyncio.create_task(move())
            await add(house, other, "other keys go on")
            await client.call(Cart.add, "milk", key=key)
            assert not is_moving.is_set()
        await moved

    moving(test)


# -- what is outstanding --------------------------------------------------------------------------


def test_what_is_scheduled_is_sent_to_the_cluster_and_once(moving: Any) -> None:
    async def test(house: House) -> None:
        key, run, soon = next(_keys), next(_keys), next(_keys)
        due = datetime.now(UTC) + timedelta(hours=1)
        await house.old.send(Cart.add, "tea", key=key, delay=3600)
        await house.old.send(Order.run, 5, key=run, delay=3600)
        near = await house.old.send(Cart.add, "tea", key=soon, delay=30)
        scheduled = (await house.old.query(page.SCHEDULED)).rows
        assert await page.move_scheduled(house.old, house.cluster) == 2
        assert await unfinished(house.old, key) == await unfinished(house.old, run) == []
        assert await unfinished(house.old, soon) == [near.id]
        await asyncio.gather(*(is_due(house.cluster, each, due) for each in (key, run)))
        for service, moved in ((Cart, key), (Order, run)):
            async with house.router.at(service, moved) as client:
                assert client is house.cluster
        # It has died before it could cancel the first:
        again = next(row for row in scheduled if row[2] == key)
        sent = await house.cluster.send(
            Cart.add, "tea", key=key, delay=3600, idempotency_key=again[0]
        )
        assert await unfinished(house.cluster, key) == [sent.id]

    moving(test)


async def is_due(cluster: Client, key: str, due: datetime) -> None:
    """That the key has one invocation there, which begins at *due*, give or take a minute."""
    [id] = await until(lambda: unfinished(cluster, key))
    description = await cluster.describe(id)
    assert description.status is Status.SCHEDULED
    [wait] = description.waiting_on
    assert wait.deadline is not None
    assert abs(wait.deadline - due) < timedelta(minutes=1)


async def begin_order_anew(house: House, key: str) -> None:
    completed_by = {"approval": Order.approve}
    await page.begin_anew(house.old, house.cluster, Order, key, completed_by)


def test_a_workflow_that_is_begun_anew_has_its_argument_and_its_key(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        sent = await house.old.send(Order.run, 7, key=key)
        await until(lambda: house.old.describe(sent.id), lambda it: it.status is Status.SUSPENDED)
        async with house.router.moving(Order, key):
            await begin_order_anew(house, key)
        with pytest.raises(NotFound):
            await house.old.describe(sent.id)
        async with house.router.at(Order, key) as client:
            assert client is house.cluster
            await client.call(Order.approve, True, key=key)
        assert await house.cluster.submit(Order.run, 7, key=key) == f"7 reserved for {key}, sold"

    moving(test)


def test_a_promise_that_was_completed_is_completed_again(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        sent = await house.old.send(Order.run, 7, key=key)
        await house.old.pause(sent.id)
        await house.old.call(Order.approve, True, key=key)
        await begin_order_anew(house, key)
        assert await house.cluster.submit(Order.run, 7, key=key) == f"7 reserved for {key}, sold"

    moving(test)


def test_a_beginning_anew_that_broke_off_is_made_again(moving: Any) -> None:
    async def test(house: House) -> None:
        key = next(_keys)
        sent = await house.old.send(Order.run, 7, key=key)
        await house.old.pause(sent.id)
        await house.old.call(Order.approve, True, key=key)
        # It has died before it could end the old one:
        await house.cluster.send(Order.run, 7, key=key)
        await house.cluster.call(Order.approve, True, key=key)
        await begin_order_anew(house, key)
        assert await house.cluster.submit(Order.run, 7, key=key) == f"7 reserved for {key}, sold"
        with pytest.raises(NotFound):
            await house.old.describe(sent.id)

    moving(test)


def test_an_awakeable_is_completed_where_its_id_is_from(moving: Any) -> None:
    async def test(house: House) -> None:
        waiting = {}
        for client in (house.old, house.cluster):
            key = next(_keys)
            sent = await client.send(Desk.ask, key=key)
            id = await until(functools.partial(client.call, Desk.asked, key=key))
            assert house.router.with_id(id) is house.router.with_id(sent.id) is client
            waiting[id] = sent
        for id, sent in waiting.items():
            await house.router.with_id(id).resolve_awakeable(id, "yes")
            assert await sent.result() == "yes"

    moving(test)
