"""A workflow whose body the test gives, and an engine that restarts before each event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from engine_support import ManualClock, Place, run, until_idle

from perdure import Status, Workflow, WorkflowContext, WorkflowSharedContext, handler

Body = Callable[[WorkflowContext], Awaitable[Any]]


class Primitive(Workflow):
    """Runs the body a test gives it; what is resolved from outside gets its own name."""

    def __init__(self, body: Body) -> None:
        self.body = body

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.body(ctx)

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name).resolve(f"value of {name}")


def durable(place: Place, body: Body, *events: str | float) -> Any:
    """The result of *body*, the engine being closed and opened again before each of *events*.

    A text is the promise that is resolved, a number the seconds by which the clock is turned on.
    Until the last event the body must wait.
    """
    clock = ManualClock()

    async def main() -> Any:
        async with place.engine(Primitive(body), clock=clock) as engine:
            handle = await engine.send(Primitive.run, key="k")
            await until_idle(engine)
        for event in events:
            async with place.engine(Primitive(body), clock=clock) as engine:
                await until_idle(engine)
                assert (await engine.describe(handle.id)).status is Status.SUSPENDED
                if isinstance(event, str):
                    await engine.call(Primitive.resolve, event, key="k")
                else:
                    clock.advance(event)
                await until_idle(engine)
        async with place.engine(Primitive(body), clock=clock) as engine:
            return await engine.attach(handle.id)

    return run(main())


def once(place: Place, body: Body) -> Any:
    """The result of *body*, in one life of the engine."""

    async def main() -> Any:
        async with place.engine(Primitive(body)) as engine:
            return await engine.submit(Primitive.run, key="k")

    return run(main())
