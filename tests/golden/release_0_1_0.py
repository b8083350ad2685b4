"""The program that wrote ``release_0_1_0.mdb.gz``; kept as it was, for its journals must replay.

Until 0.1.0 is out, a change of the format writes the file anew: in this folder, with tests/engine
on the path, ``python release_0_1_0.py``. From then on neither of the two changes any more.
"""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from engine_support import ManualClock, until_idle, until_status

import perdure
from perdure import (
    Engine,
    RetryPolicy,
    Status,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

ENDED_MS = 1_700_176_460_000
"""What the clock said when the file was written."""

RARELY = RetryPolicy(initial=3600, factor=2, max_interval=86_400, max_attempts=5)


@dataclass
class Order:
    item: str
    amount: int


class Purchase(perdure.Workflow):
    """A bit of everything.

    Attributes:
      ran: Steps that ran in this process.
      broken: Charging fails, and is tried again.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken = False

    async def run(self, ctx: WorkflowContext, order: Order) -> list[str]:
        seen = [await ctx.run("charge", self.charge, order, retry=RARELY), ctx.now().isoformat()]
        ctx.set("order", order)
        ctx.set("token", str(ctx.uuid4()))
        approval = ctx.promise("approval", str)
        deadline = ctx.after(timedelta(days=2))
        if await ctx.wait_first(approval, deadline) is deadline:
            ctx.set("late", value=True)
        try:
            seen.append(await approval)
        except TerminalError as refusal:
            seen.append(f"refused: {refusal} ({refusal.code})")
        deadline.cancel()
        await asyncio.sleep(3600)
        async with asyncio.timeout(60):
            seen += await asyncio.gather(ctx.run("pack", self.pack), ctx.run("label", self.label))
        kept = await ctx.get("order", Order)
        seen += [str(kept), *await ctx.state_keys()]
        ctx.clear("order")
        return seen

    @handler
    async def approve(self, ctx: WorkflowSharedContext, who: str) -> None:
        await ctx.promise("approval", str).resolve(who)

    @handler
    async def refuse(self, ctx: WorkflowSharedContext, why: str) -> None:
        await ctx.promise("approval", str).reject(why, 409)

    def charge(self, order: Order) -> str:
        if self.broken:
            raise RuntimeError("the bank is closed")
        return self._ran(f"charged {order.amount} for {order.item}")

    async def pack(self) -> str:
        return self._ran("packed")

    def label(self) -> str:
        return self._ran("labelled")

    def _ran(self, step: str) -> str:
        self.ran.append(step)
        return step


async def write(directory: Path) -> None:
    """Leave one invocation at each place that the program can stop at, and one that is done."""
    clock = ManualClock()
    service = Purchase()
    for name in ("run", "approve", "refuse"):  # the call sites must not tell where this folder is
        function = vars(Purchase)[name].function
        function.__code__ = function.__code__.replace(co_filename=Path(__file__).name)
    async with Engine(directory, [service], clock=clock) as engine:

        async def begin(*keys: str) -> None:
            for key in keys:
                await engine.send(Purchase.run, Order(key, 7), key=key)
            await until_idle(engine)

        await begin("late")
        clock.advance(timedelta(days=2))
        await until_idle(engine)
        await begin("waiting", "approved", "refused", "done")
        await engine.call(Purchase.approve, "ann", key="done")
        clock.advance(timedelta(hours=1))
        await until_idle(engine)
        clock.advance(60)  # past what remains of its timeout
        await engine.call(Purchase.approve, "bob", key="approved")
        await engine.call(Purchase.refuse, "too dear", key="refused")
        service.broken = True
        handle = await engine.send(Purchase.run, Order("broken", 7), key="broken")
        await until_status(engine, handle, Status.BACKING_OFF)
        await until_idle(engine)
        print("the clock stands at", clock.now_ms())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(write(Path(scratch) / "data"))
        content = (Path(scratch) / "data" / "data.mdb").read_bytes()
    Path("release_0_1_0.mdb.gz").write_bytes(gzip.compress(content, mtime=0))
