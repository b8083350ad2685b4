"""Sync steps that block: they hold up as many others as there are threads, and nothing else."""

from __future__ import annotations

import threading

from engine_support import Place, run, until

from perdure import Context, Service, handler


class Work(Service):
    """Its sync steps run in the engine's threads; two of its handlers need none."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.blocked = 0
        self.quick = 0

    @handler
    async def block(self, ctx: Context) -> None:
        await ctx.run("block", self._block)

    @handler
    async def thread(self, ctx: Context) -> None:
        await ctx.run("quick", self._quick)

    @handler
    async def loop(self, ctx: Context) -> str:
        await ctx.run("on the loop", self._on_the_loop)
        await ctx.sleep(0.001)
        return "done"

    def _block(self) -> None:
        self.blocked += 1
        assert self.go.wait(10)

    def _quick(self) -> None:
        self.quick += 1

    async def _on_the_loop(self) -> None: ...


def test_while_a_thread_is_left_a_blocked_step_holds_up_no_other(resident_place: Place) -> None:
    work = Work()

    async def main() -> None:
        async with resident_place.engine(work, step_threads=2) as engine:
            blocked = await engine.send(Work.block)
            await until(lambda: work.blocked == 1)
            for _ in range(50):
                await engine.call(Work.thread)
            work.go.set()
            await blocked.result()

    run(main())
    assert work.quick == 50


def test_with_every_thread_blocked_sync_steps_wait_and_all_else_goes_on(
    resident_place: Place,
) -> None:
    work = Work()

    async def main() -> None:
        async with resident_place.engine(work, step_threads=2) as engine:
            blocked = [await engine.send(Work.block) for _ in range(3)]
            waiting = [await engine.send(Work.thread) for _ in range(5)]
            await until(lambda: work.blocked == 2)
            for _ in range(20):
                assert await engine.call(Work.loop) == "done"
            assert (work.blocked, work.quick) == (2, 0)
            work.go.set()
            for handle in [*blocked, *waiting]:
                await handle.result()

    run(main())
    assert (work.blocked, work.quick) == (3, 5)
