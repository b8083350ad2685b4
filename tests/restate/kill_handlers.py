"""Handlers for a process that is killed: they append to a file what they see and run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from typing import Any

from programs import Body, _Run, build

import perdure
import perdure.restate
from perdure import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.errors import AlreadyCompleted

STEPS = 6
QUICK = RetryPolicy(initial=0.01, factor=2, max_interval=0.05)

_lines = os.open(os.environ["KILLS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _write(*words: object) -> None:
    os.write(_lines, ("\t".join(map(str, words)) + "\n").encode())


async def _step(number: int, ms: int) -> int:
    _write("step", *perdure.step_token().rsplit("-", 1), number)
    await asyncio.sleep(ms / 1000)
    if random.random() < 0.1:
        raise ValueError("one attempt of many")
    return number


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, number: int) -> int:
        count = await ctx.get("count", int) or 0
        await ctx.sleep(0.001)
        ctx.set("count", count + number)
        return count + number

    @handler
    async def get(self, ctx: ObjectContext) -> int:
        return await ctx.get("count", int) or 0


class Helper(Service):
    @handler
    async def echo(self, ctx: Context, number: int) -> int:
        return number

    @handler
    async def slow(self, ctx: Context, number: int) -> int:
        await ctx.sleep(0.05)
        return number

    @handler
    async def answer(self, ctx: Context, awakeable_id: str) -> None:
        await ctx.resolve_awakeable(awakeable_id, "answer")


class Sequence(Workflow):
    async def run(self, ctx: WorkflowContext, counter: str) -> list[int]:
        """Steps one after the other, and one is added to *counter*."""
        results = []
        for number in range(STEPS):
            results.append(await ctx.run(f"step {number}", _step, number, 5, retry=QUICK))
            await ctx.sleep(0.005)
        await ctx.call(Counter.add, 1, key=counter)
        return results


class Generated(Workflow):
    async def run(self, ctx: WorkflowContext, seed: int) -> list[Any]:
        return await _Seen(ctx, seed).main(build(random.Random(seed).randrange))

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, name: str) -> None:
        with contextlib.suppress(AlreadyCompleted):
            await ctx.promise(name).resolve(f"value of {name}")


class _Seen(_Run):
    """A program, between whose statements other services come in, and which tells what it sees."""

    def __init__(self, ctx: WorkflowContext, seed: int) -> None:
        super().__init__(ctx)
        self._seed = seed
        self._attempt = uuid.uuid4().hex
        self._number = 0

    def see(self, *what: Any) -> None:
        if self.ctx._machine.running:  # or the attempt is being thrown away
            _write("seen", self._seed, self._attempt, repr(what).replace("\n", " "))
        super().see(*what)

    async def do_patched(self, name: str) -> None:
        """Restate has no patches."""

    async def body(self, body: Body) -> str:
        for statement in body:
            self._number += 1
            await self.between(self._number)
            await super().body((statement,))
        return body[-1][0] if body else ""

    async def between(self, number: int) -> None:
        ctx = self.ctx
        if number % 7 == 1:
            self.see("called", await ctx.call(Helper.echo, number))
        elif number % 7 == 2:
            self.see("race", await self.race(number))
        elif number % 7 == 3:
            self.see("sent", await ctx.send(Helper.slow, number).invocation_id())
        elif number % 7 == 4:
            awakeable = ctx.awakeable()
            ctx.send(Helper.answer, awakeable.id)
            self.see("awakeable", await awakeable)
        elif number % 7 == 5:
            self.see(await asyncio.gather(*(ctx.call(Helper.echo, i) for i in range(3))))

    async def race(self, number: int) -> list[int]:
        """The first two of many, whose others are cancelled."""
        ctx = self.ctx
        operations: list[Any] = [
            ctx.call(Helper.echo, number),
            ctx.after(0.005),
            ctx.run(f"race {number}", _step, number, 3, retry=QUICK),
            ctx.call(Helper.slow, number),
            ctx.after(0.02),
        ]
        first: list[int] = []
        async for operation in ctx.wait(*operations):
            first.append(operations.index(operation))
            if len(first) == 2:
                break
        for operation in reversed(operations):
            operation.cancel()
        return first


app = perdure.restate.app([Counter(), Helper(), Sequence(), Generated()])
