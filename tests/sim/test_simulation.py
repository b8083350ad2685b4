"""What a scenario sees: deaths, restarts, a wrong clock, and errors that end the run."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

import perdure
from perdure import Context, NotFound, WorkflowContext, WorkflowSharedContext
from perdure.errors import InternalError, InvalidInput
from perdure.testing import (
    Faults,
    ProcessDied,
    Simulation,
    SimulationFailed,
    SimulationRun,
    SimulationStuck,
    simulate,
)


class Steps(perdure.Service):
    """Writes down in the world what becomes of its steps."""

    def __init__(self, world: list[str]) -> None:
        self.world = world

    @perdure.handler
    async def slow(self, ctx: Context, seconds: float) -> str:
        return await ctx.run("slow", self.sleep, seconds)

    async def sleep(self, seconds: float) -> str:
        self.world.append("began")
        try:
            await asyncio.sleep(seconds)
        finally:
            self.world.append("finally")
        self.world.append("ended")
        return "slept"

    @perdure.handler
    async def in_thread(self, ctx: Context, what: str) -> None:
        await ctx.run("in thread", self.world.append, what)


class Waits(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, seconds: float) -> str:
        await ctx.sleep(seconds)
        return await ctx.promise("word", str)

    @perdure.handler
    async def say(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("word", str).resolve(word)


def run(
    scenario: Callable[[Simulation], Awaitable[Any]], seed: int = 0, **options: Any
) -> SimulationRun:
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
    return simulate(
        scenario,
        services=lambda sim: [Steps(sim.world), Waits()],
        world=list,
        seed=seed,
        **options,
    )[0]


@pytest.mark.parametrize("how", ["kill", "power_loss"])
def test_a_call_on_its_way_fails_and_nothing_of_the_dead_process_runs_on(how: str) -> None:
    async def scenario(sim: Simulation) -> None:
        asked = asyncio.create_task(sim.engine.call(Steps.slow, 5))
        while sim.world != ["began"]:
            await sim.sleep(0.01)
        await getattr(sim, how)()
        with pytest.raises(ProcessDied):
            await asked
        await sim.sleep(60)
        # The step began anew in the next process; the first has had neither end nor `finally`.
        assert sim.world == ["began", "began", "finally", "ended"]

    run(scenario)


def test_a_restart_in_order_lets_steps_end() -> None:
    async def scenario(sim: Simulation) -> None:
        sent = await sim.engine.send(Steps.slow, 5)
        await sim.restart()
        assert sim.world == ["began", "finally", "ended"]
        assert await sent.result() == "slept"
        assert await sent.output() == "slept"

    assert run(scenario).deaths == 2


def test_handles_and_listings_outlive_processes() -> None:
    async def scenario(sim: Simulation) -> None:
        sent = await sim.engine.send(Waits.run, 30 * 86_400, key="a")
        await sim.power_loss()
        assert [each.id async for each in sim.engine.all_invocations()] == [sent.id]
        await sim.engine.call(Waits.say, "word", key="a")
        await sim.kill()
        assert await sent.result() == "word"
        again = await sim.engine.send(Waits.run, 1, key="a")
        assert (again.id, again.accepted.value) == (sent.id, "PreviouslyAccepted")
        with pytest.raises(NotFound):
            await sim.engine.call("Waits.none", key="a")

    assert run(scenario).seconds > 30 * 86_400


def test_who_insists_has_an_answer_in_the_end() -> None:
    async def scenario(sim: Simulation) -> None:
        crashes = sim.crash_randomly(every=0.01)
        for number in range(20):
            await sim.insist(
                partial(sim.engine.call, Steps.in_thread, "x", idempotency_key=f"{number}")
            )
        crashes.cancel()
        assert len(sim.world) >= 20

    assert run(scenario).deaths > 5


def test_the_wall_clock_may_be_set_and_the_engine_notices_within_a_minute() -> None:
    async def scenario(sim: Simulation) -> None:
        sent = await sim.engine.send(Waits.run, 3600, key="a")
        await sim.engine.call(Waits.say, "word", key="a")
        before = sim.seconds
        sim.jump_clock(7200)
        assert await sent.result() == "word"
        assert sim.seconds - before < 62

    run(scenario)


def test_a_disk_that_fails_ends_the_process_and_the_next_goes_on() -> None:
    async def scenario(sim: Simulation) -> None:
        for number in range(20):
            await sim.insist(
                partial(sim.engine.call, Steps.in_thread, "x", idempotency_key=f"{number}")
            )

    assert run(scenario, faults=Faults(failed=0.1)).deaths > 3


# -- what makes a run red ----------------------------------------------------------------------


def fails(scenario: Callable[[Simulation], Awaitable[Any]]) -> BaseException | None:
    with pytest.raises(SimulationFailed) as failed:
        run(scenario)
    return failed.value.__cause__


def test_a_wait_without_an_end_is_told() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.engine.call(Waits.run, 1, key="a")  # nobody says the word

    assert isinstance(fails(scenario), SimulationStuck)


def test_an_error_in_a_task_that_nobody_awaits_is_told() -> None:
    async def scenario(sim: Simulation) -> None:
        async def fail() -> None:
            raise ValueError("nobody hears it")

        task = asyncio.create_task(fail())
        await sim.sleep(1)
        del task
        gc.collect()  # with the frames that its traceback leads to
        await sim.sleep(1)

    cause = fails(scenario)
    assert isinstance(cause, ValueError)


def test_a_defect_of_the_engine_is_told_even_if_the_scenario_does_not_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(sim: Simulation) -> None:
        monkeypatch.setattr("perdure._runtime._due.DueTimers._fire", None)
        await sim.engine.send(Waits.run, 1, key="a")
        await sim.sleep(2)

    assert isinstance(fails(scenario), InternalError)


@pytest.mark.parametrize("verb", ["query", "backup"])
def test_what_needs_threads_of_its_own_is_refused(verb: str) -> None:
    async def scenario(sim: Simulation) -> None:
        with pytest.raises(InvalidInput, match="not simulated"):
            await getattr(sim.engine, verb)("x")

    run(scenario)


def test_services_may_be_given_by_an_iterator_and_a_loop_may_run_already() -> None:
    async def say(sim: Simulation) -> None:
        await sim.insist(lambda: sim.engine.call(Waits.say, "hello", key="1"))

    async def inside() -> list[SimulationRun]:
        return simulate(say, services=(each for each in [Waits()]), seeds=2)

    assert len(asyncio.run(inside())) == 2


def test_a_scenario_that_is_not_async_is_refused_with_what_to_write() -> None:
    def forgotten(sim: Simulation) -> Any:
        return None

    with pytest.raises(TypeError, match=r"returned None, .*: write `async def forgotten\(sim\)"):
        simulate(forgotten, services=[], seeds=1)
