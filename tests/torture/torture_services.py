"""What the tortured server serves. Each step appends a line to the world outside before all else.

Theory of operation. A step starts after the commit of its command, and its command comes after the
answers that the handler had been given. So the line of a step also says that those answers are
durable: it names the steps that were settled when it was issued (none of them may ever run again)
and what they returned, with the time of the activation. As each run of a step returns something
else, and each activation has another time, a handler that was told anything else than before, or
whose command was not durable when the step ran, shows in the lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from outside import Outside

import perdure
from perdure import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

Pace = Literal["at once", "step", "thread", "sleep", "fails"]
"""What lies between the reading and the writing of an exclusive handler."""

PACES: tuple[Pace, ...] = ("at once", "step", "thread", "sleep", "fails")

Work = Callable[[dict[str, Any]], Any]


class Works:
    """What steps do; one for all services of the process."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.inside: dict[str, set[str]] = {}  # key of an object: who is in its exclusive handler
        self._failed: set[str] = set()

    async def work(self, line: dict[str, Any]) -> str:
        self._note(line)
        await asyncio.sleep(0)
        return uuid.uuid4().hex[:12]

    def work_in_thread(self, line: dict[str, Any]) -> str:
        self._note(line)
        return uuid.uuid4().hex[:12]

    async def fail_once(self, line: dict[str, Any]) -> str:
        self._note(line)
        token = perdure.step_token()
        if token not in self._failed:
            self._failed.add(token)
            raise ConnectionError("once in each process")
        return uuid.uuid4().hex[:12]

    def _note(self, line: dict[str, Any]) -> None:
        self.outside.note("ran", token=perdure.step_token(), **line)


class Trail:
    """Issues the steps of one run of a handler, and collects what it is told.

    Args:
      once: What can have one invocation only: a key's ``run``, or an idempotency key; else empty.
      exclusive: The key whose exclusive handler it is, else empty.
    """

    def __init__(self, ctx: Context, works: Works, once: str = "", exclusive: str = "") -> None:
        self._ctx = ctx
        self._works = works
        self._about = {"id": ctx.invocation_id, "once": once, "exclusive": exclusive}
        self.saw: list[str] = []
        self.settled: list[str] = []

    async def do(self, name: str, work: Work | None = None, **fields: Any) -> None:
        """Run a step, and remember what it has returned."""
        self.see(await self.step(name, work, **fields), name)

    def step(
        self, name: str, work: Work | None = None, **fields: Any
    ) -> perdure.DurableFuture[str]:
        now = self._ctx.now().isoformat()
        told = {"saw": [now, *self.saw], "settled": list(self.settled)}
        line = {**self._about, "step": name, **told, **fields}
        return self._ctx.run(name, work or self._works.work, line, returns=str)

    def see(self, what: str, *settled: str) -> None:
        self.saw.append(what)
        self.settled += settled

    async def take_time(self, pace: Pace, **fields: Any) -> None:
        if pace == "sleep":
            await self._ctx.sleep(0.004)
        elif pace != "at once":
            works = self._works
            work: dict[Pace, Work] = {"thread": works.work_in_thread, "fails": works.fail_once}
            await self.do(pace, work.get(pace), **fields)


class OfObjects(perdure.VirtualObject):
    """What the objects share."""

    def __init__(self, works: Works) -> None:
        self._works = works

    @contextlib.contextmanager
    def _alone(self, ctx: ObjectContext) -> Iterator[Trail]:
        """Be in the exclusive handler of the key; who meets another there, says so outside."""
        place = f"{type(self).__name__}/{ctx.key}"
        inside = self._works.inside.setdefault(place, set())
        inside.add(ctx.invocation_id)
        if len(inside) > 1:
            self._works.outside.note("crowded", place=place, ids=sorted(inside))
        idempotency_key = ctx.request.idempotency_key
        once = f"{place}/{idempotency_key}" if idempotency_key else ""
        try:
            yield Trail(ctx, self._works, once, place)
        finally:
            inside.discard(ctx.invocation_id)


@dataclass
class Write:
    value: int
    pace: Pace = "at once"


@dataclass
class Swap:
    expected: int
    value: int
    pace: Pace = "at once"


class Register(OfObjects):
    @handler
    async def write(self, ctx: ObjectContext, asked: Write) -> int:
        """Returns the value before."""
        with self._alone(ctx) as trail:
            before = await ctx.get("value", int, 0)
            await trail.take_time(asked.pace)
            ctx.set("value", asked.value)
            return before

    @handler
    async def swap(self, ctx: ObjectContext, asked: Swap) -> bool:
        with self._alone(ctx) as trail:
            before = await ctx.get("value", int, 0)
            await trail.take_time(asked.pace)
            if before == asked.expected:
                ctx.set("value", asked.value)
            return before == asked.expected

    @handler
    async def read(self, ctx: ObjectContext) -> int:
        with self._alone(ctx):
            return await ctx.get("value", int, 0)

    @handler
    async def peek(self, ctx: ObjectSharedContext) -> int:
        return await ctx.get("value", int, 0)


@dataclass
class Add:
    """*amount* is added, no earlier than at *not_before*, in seconds since 1970."""

    amount: int
    pace: Pace = "at once"
    not_before: float = 0.0


class Counter(OfObjects):
    @handler
    async def add(self, ctx: ObjectContext, asked: Add) -> int:
        """Returns the total."""
        with self._alone(ctx) as trail:
            total = await ctx.get("total", int, 0)
            await trail.take_time(asked.pace, not_before=asked.not_before)
            ctx.set("total", total + asked.amount)
            if asked.pace == "thread":
                await trail.do("after")
            return total + asked.amount


@dataclass
class Transfer:
    name: str
    to: str
    amount: int
    waits: bool
    pace: Pace = "at once"


Entries = list[tuple[str, int]]


class Account(OfObjects):
    @handler
    async def transfer(self, ctx: ObjectContext, asked: Transfer) -> None:
        with self._alone(ctx) as trail:
            await self._enter(ctx, asked.name, -asked.amount)
            await trail.take_time(asked.pace)
            booking = (asked.name, asked.amount)
            if asked.waits:
                await ctx.call(Account.deposit, booking, key=asked.to)
            else:
                ctx.send(Account.deposit, booking, key=asked.to)

    @handler
    async def deposit(self, ctx: ObjectContext, booking: tuple[str, int]) -> None:
        with self._alone(ctx):
            await self._enter(ctx, *booking)

    async def _enter(self, ctx: ObjectContext, name: str, amount: int) -> None:
        entries = await ctx.get("entries", Entries, [])
        ctx.set("entries", [*entries, (name, amount)])

    @handler
    async def entries(self, ctx: ObjectSharedContext) -> Entries:
        return await ctx.get("entries", Entries, [])


class Press(OfObjects):
    @handler
    async def publish(self, ctx: ObjectContext, payload: str) -> int:
        """Publish *payload* outside, under the next number, which it returns."""
        with self._alone(ctx) as trail:
            number = await ctx.get("last", int, 0) + 1
            ctx.set("last", number)
            await trail.do("publish", number=number, payload=payload)
            await trail.do("confirm")
            return number


@dataclass
class Job:
    counter: str
    called: int
    sent: int
    delay: float


class Worker(perdure.Service):
    def __init__(self, works: Works) -> None:
        self._works = works

    @handler
    async def work(self, ctx: Context, job: Job) -> int:
        """Adds to a counter by a call, whose total it returns, and by a send."""
        key = ctx.request.idempotency_key
        trail = Trail(ctx, self._works, f"Worker/{key}" if key else "")
        await trail.do("first", self._works.fail_once)
        ctx.send(Counter.add, Add(job.sent), key=job.counter, delay=job.delay)
        total = await ctx.call(Counter.add, Add(job.called, "step"), key=job.counter)
        trail.see(str(total))
        await asyncio.gather(
            trail.do("second", self._works.work_in_thread), trail.do("third", self._works.fail_once)
        )
        await trail.do("last")
        return total


class Order(perdure.Workflow):
    def __init__(self, works: Works) -> None:
        self._works = works

    async def run(self, ctx: WorkflowContext, delay: float) -> list[str]:
        works = self._works
        trail = Trail(ctx, works, f"Order/{ctx.key}")
        ctx.set("stage", 1)
        await trail.do("first")
        await trail.do("in thread", works.work_in_thread)
        await trail.do("fails", works.fail_once)
        ctx.set("stage", 2)
        approval, deadline = ctx.promise("approval", str), ctx.after(delay)
        first = await ctx.wait_first(approval, deadline)
        trail.see("approved" if first is approval else "too late")
        await trail.do("raced")
        ctx.set("stage", 3)
        trail.see(await approval)
        a, b = trail.step("a"), trail.step("b", works.work_in_thread)
        trail.see(" ".join([await each async for each in ctx.wait(a, b)]), "a", "b")
        ctx.set("stage", 4)
        await trail.do("last")
        return trail.saw

    @handler
    async def approve(self, ctx: WorkflowSharedContext, value: str) -> None:
        await ctx.promise("approval", str).resolve(value)

    @handler
    async def stage(self, ctx: WorkflowSharedContext) -> int:
        return await ctx.get("stage", int, 0)


END = "END"


class Errand(perdure.Workflow):
    def __init__(self, works: Works) -> None:
        self._works = works

    async def run(self, ctx: WorkflowContext, rest: float) -> list[str]:
        """Returns the words that it was given, also while it rested, and then the parcel."""
        trail = Trail(ctx, self._works, f"Errand/{ctx.key}")
        parcel = ctx.awakeable(str)
        ctx.set("parcel", parcel.id)
        await ctx.sleep(rest)
        words: list[str] = []
        while (word := await ctx.signal("word", str)) != END:
            words.append(word)
            trail.see(word)
            await trail.do(f"heard {len(words)}")
        trail.see(await parcel)
        await trail.do("last")
        return [*words, await parcel]

    @handler
    async def parcel(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.get("parcel", str, "")


class Sleeper(perdure.Workflow):
    def __init__(self, works: Works) -> None:
        self._works = works

    async def run(self, ctx: WorkflowContext) -> None:
        trail = Trail(ctx, self._works, f"Sleeper/{ctx.key}")
        try:
            await trail.do("begin")
            await ctx.sleep(3_600)
            await trail.do("never")
        except asyncio.CancelledError:
            await trail.do("undo")
            raise


def services(outside: Outside) -> list[object]:
    works = Works(outside)
    kinds = (Register, Counter, Account, Press, Worker, Order, Errand, Sleeper)
    return [kind(works) for kind in kinds]
