"""What type checkers make of a harness: its verbs and doubles have the types of the handlers.

Nothing runs this module: mypy and pyright check it, and that what is ignored here is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from perdure import Context, Engine, InvocationHandle, Service, Workflow, WorkflowContext, handler
from perdure.testing import CallDouble, Harness, Recorded, StepDouble


class Order(Workflow):
    async def run(self, ctx: WorkflowContext, amount: int) -> str:
        raise NotImplementedError


class Payments(Service):
    @handler
    async def charge(self, ctx: Context, amount: int) -> float:
        raise NotImplementedError

    @handler
    async def reset(self, ctx: Context) -> None: ...


async def uses(perdure_harness: type[Harness]) -> None:
    async with Harness([Order()]) as h:
        assert_type(h, Harness)
        assert_type(await h.submit(Order.run, 5, key="1"), str)
        assert_type(await h.send(Order.run, 5, key="1"), InvocationHandle[str])
        await h.submit(Order.run, "5", key="1")  # type: ignore[arg-type]
        assert_type(h.step("charge").returns(5).fails_times(2), StepDouble)
        assert_type(h.step("charge").records, list[Recorded])
        assert_type(h.call_to(Payments.charge), CallDouble[float])
        h.call_to(Payments.charge).returns(2.5)
        h.call_to(Payments.charge).returns(lambda amount: amount * 2.0)
        h.call_to(Payments.charge).returns("2.5")  # type: ignore[arg-type]
        assert_type(h.call_to(Payments.reset), CallDouble[None])
        assert_type(await h.skip(), datetime)
        _: Engine = h
    async with perdure_harness([Order()], auto_skip=False) as other:
        assert_type(other.engine, Engine)
