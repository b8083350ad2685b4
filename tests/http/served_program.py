"""The program that the load tests start and end: an engine served on loopback.

Its arguments are the directory and the port.
"""

from __future__ import annotations

import logging
import sys

import perdure
from perdure import Context, ObjectContext, WorkflowContext
from perdure.http._server import run


class Tally(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total


class Decision(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, question: str) -> str:
        return f"{question} {await ctx.promise('verdict', str)}"


class Echo(perdure.Service):
    @perdure.handler
    async def echo(self, ctx: Context, text: str) -> str:
        return text


class Server(perdure.Service):
    """What the tests look at inside of the process."""

    def __init__(self) -> None:
        self.engine: perdure.Engine | None = None

    @perdure.handler
    async def attached(self, ctx: Context) -> int:
        """How many wait for the results of invocations."""
        return await ctx.run("count", self._count)

    async def _count(self) -> int:
        assert self.engine is not None
        scheduler = self.engine._scheduler
        assert scheduler is not None
        return sum(map(len, scheduler.answers._waiters.values()))


SERVICES = [Tally(), Decision(), Echo()]

if __name__ == "__main__":
    server = Server()
    engine = server.engine = perdure.Engine(sys.argv[1], [*SERVICES, server])
    sys.exit(run(engine, port=int(sys.argv[2]), admin_port=0, log_level=logging.WARNING))
