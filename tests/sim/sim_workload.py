"""A world of clients that use everything, and what they know of it afterwards.

``World`` is what outlives every process: what steps have done to it, and what clients were told.
Services are made anew for each process, and have the world to act on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

import perdure
from perdure import (
    AlreadyCompleted,
    Cancelled,
    Conflict,
    Context,
    NotFound,
    ObjectContext,
    ObjectSharedContext,
    RetryPolicy,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.testing import Simulation, SimulationRun, simulate

ACCOUNTS = ("a", "b", "c")
DAY_S = 86_400.0
DEADLINE_S = 1_800.0
SOON = RetryPolicy(initial=0.01, factor=2, max_interval=1, max_attempts=None)


@dataclass
class World:
    """What has happened outside of the engine.

    Attributes:
      booked: How often each booking of a step was made, by the step's token.
      awakeables: Of whom waits for one, by what it was asked with.
      adding: Numbers that clients have added to accounts, by number.
      orders: Orders that were acknowledged, by their keys, with their ids.
      ended: Waits whose end was asked for.
      problems: What must not be.
      calm: Called when no process is to die any more.
    """

    booked: Counter[str] = field(default_factory=Counter)
    awakeables: dict[int, str] = field(default_factory=dict)
    adding: dict[int, str] = field(default_factory=dict)
    orders: dict[str, str] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    calm: Callable[[], object] = lambda: None

    def book(self, what: str) -> str:
        """What a step does in a thread."""
        self.booked[perdure.step_token()] += 1
        return what

    async def book_slowly(self, what: str) -> str:
        """What a step does on the loop; the first attempt fails."""
        self.booked[perdure.step_token()] += 1
        await asyncio.sleep(0.003)
        if self.booked[perdure.step_token()] == 1:
            raise ConnectionError("try again")
        return what


def services(sim: Simulation) -> list[Any]:
    """Those of a new process."""
    return [Order(sim.world), Account(sim.world), Waiter(sim.world)]


class Order(perdure.Workflow, retention=10 * DAY_S):
    def __init__(self, world: World) -> None:
        self.world = world

    async def run(self, ctx: WorkflowContext, number: int) -> str:
        world, account = self.world, ACCOUNTS[number % len(ACCOUNTS)]
        await ctx.run("reserve", world.book, "reserved")
        a, b = await asyncio.gather(
            ctx.run("pick", world.book_slowly, "picked"), ctx.run("pack", world.book, "packed")
        )
        ctx.set("stage", "packed")
        length = await ctx.call(Account.add, 10_000 + number, key=account)
        approval, deadline = ctx.promise("approval", str), ctx.after(DEADLINE_S)
        if await ctx.wait_first(approval, deadline) is deadline:
            return f"{number}: too late"
        ctx.send(Account.add, 20_000 + number, key=account, delay=number % 2)
        await ctx.sleep(0.01)
        await ctx.run("ship", world.book_slowly, "shipped")
        stage = await ctx.get("stage", str)
        return f"{number}: {a} {b} {stage} {await approval} {length > 0}"

    @handler
    async def approve(self, ctx: WorkflowSharedContext, by: str) -> None:
        await ctx.promise("approval", str).resolve(by)


class Account(perdure.VirtualObject, idempotency_retention=10 * DAY_S):
    def __init__(self, world: World) -> None:
        self.world = world
        self.inside: dict[str, str] = {}

    @handler
    async def add(self, ctx: ObjectContext, number: int) -> int:
        holder = self.inside.setdefault(ctx.key, ctx.invocation_id)
        if holder != ctx.invocation_id:
            self.world.problems.append(f"{ctx.invocation_id} is in {ctx.key} beside {holder}")
        try:
            log = await ctx.get("log", list[int], [])
            if number % 3 == 0:
                await ctx.run("audit", self.world.book, "audited")
            elif number % 3 == 1:
                await ctx.sleep(0.005)
            ctx.set("log", [*log, number])
            return len(log) + 1
        finally:
            if self.inside.get(ctx.key) == ctx.invocation_id:
                del self.inside[ctx.key]

    @handler
    async def log(self, ctx: ObjectSharedContext) -> list[int]:
        return await ctx.get("log", list[int], [])


class Waiter(perdure.Service, idempotency_retention=10 * DAY_S):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def wait(self, ctx: Context, number: int) -> str:
        if number % 2:
            return await ctx.signal("go", str)
        awakeable = ctx.awakeable(str)
        await ctx.run("tell", self.tell, number, awakeable.id)
        return await awakeable

    async def tell(self, number: int, awakeable: str) -> None:
        self.world.booked[perdure.step_token()] += 1
        self.world.awakeables[number] = awakeable


# -- clients ------------------------------------------------------------------------------------


class Client:
    """Does one thing after the other, and does not give up."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.engine = sim.engine
        self.world: World = sim.world

    async def do(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        return await self.sim.insist(ask)

    async def order(self, number: int) -> None:
        key = f"{number}"
        sent = await self.do(lambda: self.engine.send(Order.run, number, key=key))
        self.world.orders[key] = sent.id
        if number % 4:
            await self.sim.sleep(self.sim.random.random() * 0.05)
            await self.approve(key)

    async def approve(self, key: str) -> None:
        with contextlib.suppress(AlreadyCompleted):  # by the try before
            await self.do(lambda: self.engine.call(Order.approve, "bob", key=key))

    async def add(self, number: int) -> None:
        account = self.world.adding[number] = self.sim.random.choice(ACCOUNTS)
        length = await self.do(
            lambda: self.engine.call(Account.add, number, key=account, idempotency_key=f"{number}")
        )
        log = await self.do(lambda: self.engine.call(Account.log, key=account))
        assert log[length - 1] == number, f"{number} was told {length}, the log is {log}"

    async def add_without_answer(self, number: int) -> None:
        account = self.world.adding[number] = self.sim.random.choice(ACCOUNTS)
        await self.do(
            lambda: self.engine.send(
                *(Account.add, number),
                key=account,
                idempotency_key=f"{number}",
                delay=self.sim.random.choice([None, 0.02, 60]),
            )
        )

    async def wait(self, number: int) -> None:
        sent = await self.do(
            lambda: self.engine.send(Waiter.wait, number, idempotency_key=f"{number}")
        )
        await self.sim.sleep(self.sim.random.random() * 0.02)
        how = self.sim.random.choice(["answer", "answer", "pause", "cancel", "kill"])
        if how == "pause":
            await self.do(lambda: self.engine.pause(sent.id))
            await self.do(lambda: self.engine.resume(sent.id))
        elif how != "answer":
            self.world.ended.add(number)
            await self.do(lambda: getattr(self.engine, how)(sent.id))
        try:
            await self._answer(number, sent.id)
            result = await self.do(sent.result)
        except (TerminalError, NotFound):
            if number not in self.world.ended:
                raise
        else:
            assert result == "went"

    async def _answer(self, number: int, invocation_id: str) -> None:
        if number % 2:
            with contextlib.suppress(Conflict):  # the try before has ended it
                await self.do(lambda: self.engine.signal(invocation_id, "go", "went"))
            return
        while number not in self.world.awakeables and number not in self.world.ended:
            await self.sim.sleep(0.01)
        try:
            awakeable = self.world.awakeables.get(number)
            if awakeable is not None:
                await self.do(lambda: self.engine.resolve_awakeable(awakeable, "went"))
        except AlreadyCompleted:
            pass  # by the try before

    async def live(self, first: int, count: int) -> None:
        """Do *count* things."""
        for number in range(first, first + count):
            what = self.sim.random.choice(
                [self.order, self.add, self.add_without_answer, self.wait]
            )
            await what(number)


async def mixed(sim: Simulation, *, clients: int = 3, things: int = 4) -> None:
    """Clients at work, then a long calm, and the reckoning."""
    await asyncio.gather(*(Client(sim).live(1 + 100 * number, things) for number in range(clients)))
    await reckon(sim, sim.world)


async def crashing(sim: Simulation) -> None:
    """The same, while processes die."""
    crashes = sim.crash_randomly(every=0.02)
    sim.world.calm = crashes.cancel
    await mixed(sim)


async def reckon(sim: Simulation, world: World) -> None:
    """All that was acknowledged has ended and has done what it was to do, once."""
    world.calm()
    await sim.sleep(2 * DEADLINE_S)  # unless approved, an order ends after one
    expected = Counter((account, number) for number, account in world.adding.items())
    for key, invocation_id in world.orders.items():
        number = int(key)
        account = ACCOUNTS[number % len(ACCOUNTS)]
        result = await sim.insist(partial(sim.engine.output, invocation_id))
        expected[account, 10_000 + number] += 1
        if number % 4:
            assert result == f"{number}: picked packed packed bob True"
            expected[account, 20_000 + number] += 1
        else:
            assert result == f"{number}: too late"
    found: Counter[tuple[str, int]] = Counter()
    for account in ACCOUNTS:
        log = await sim.insist(partial(sim.engine.call, Account.log, key=account))
        found.update((account, number) for number in log)
    assert found == expected
    assert world.problems == []
    for key, invocation_id in list(world.orders.items())[:2]:
        await purge(sim, key, invocation_id)


async def purge(sim: Simulation, key: str, invocation_id: str) -> None:
    """What is purged is gone, and its key is free."""
    with contextlib.suppress(NotFound):  # by the try before
        await sim.insist(partial(sim.engine.purge, invocation_id))
    again = await sim.insist(partial(sim.engine.send, Order.run, 4, key=key))
    assert again.id != invocation_id
    await sim.insist(again.cancel)
    with pytest.raises(Cancelled):
        await sim.insist(again.result)


def simulate_mixed(scenario: Any = crashing, **options: Any) -> list[SimulationRun]:
    """Runs of it in worlds of their own."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
    return simulate(scenario, services=services, world=World, retry=SOON, **options)
