"""What P8 asks of perdure, and its server: its arguments are the directory and the port.

benchmarks/_p8_restate.py has the same handlers for Restate.
"""

from __future__ import annotations

import logging
import sys

import perdure
from perdure.http._server import run


class Greeter(perdure.Service):
    @perdure.handler
    async def greet(self, ctx: perdure.Context, name: str) -> str:
        return f"hi {name}"


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: perdure.ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", int, 0)) + amount
        ctx.set("total", total)
        return total


if __name__ == "__main__":
    engine = perdure.Engine(sys.argv[1], [Greeter(), Counter()])
    sys.exit(run(engine, port=int(sys.argv[2]), admin_port=0, log_level=logging.WARNING))
