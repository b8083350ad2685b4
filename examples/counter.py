"""The smallest object: a number for each key.

An object's exclusive handlers of one key run one at a time, in the order of their arrival, so
reading and writing need no lock and no transaction. Shared handlers run beside them and only read.
"""

from __future__ import annotations

import asyncio
import tempfile

import perdure
from perdure import ObjectContext, ObjectSharedContext, TerminalError


class Counter(perdure.VirtualObject):
    """The key is the counter's name; a counter that nobody has touched is at 0."""

    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        """Add *amount*, which may be negative; the counter does not go below 0."""
        value = await ctx.get("value", int, 0) + amount
        if value < 0:
            raise TerminalError(f"{ctx.key} would be at {value}", 409)
        ctx.set("value", value)
        return value

    @perdure.handler
    async def value(self, ctx: ObjectSharedContext) -> int:
        """Where the counter is, also while others wait to add."""
        return await ctx.get("value", int, 0)

    @perdure.handler
    async def reset(self, ctx: ObjectContext) -> None:
        """Back to 0, as if it had never been touched."""
        ctx.clear("value")


services = [Counter()]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, services) as engine:
            # A hundred at once, and none is lost.
            await asyncio.gather(*(engine.call(Counter.add, 1, key="visits") for _ in range(100)))
            print("visits:", await engine.call(Counter.value, key="visits"))
            try:
                await engine.call(Counter.add, -101, key="visits")
            except TerminalError as error:
                print("refused:", error)
            await engine.call(Counter.reset, key="visits")
            print("after the reset:", await engine.call(Counter.value, key="visits"))


if __name__ == "__main__":
    asyncio.run(main())
