"""Simulations, seed by seed, and what a red one prints."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from perdure.retry import DEFAULT_RETRY, RetryPolicy
from perdure.testing._in_a_loop import outside_of_loops
from perdure.testing._sim_device import Landed
from perdure.testing._sim_disk import Faults
from perdure.testing._simulation import Scenario, Services, Simulation, SimulationRun

SEED_VARIABLE = "PERDURE_SIM_SEED"


class SimulationFailed(AssertionError):
    """A seed has led to something that must not be; the cause says to what.

    Attributes:
      run: How far it came; ``run.seed`` replays it.
    """

    def __init__(self, run: SimulationRun, cause: BaseException, replay: str) -> None:
        events = "\n  ".join(run.events)
        super().__init__(
            f"seed {run.seed}: {type(cause).__name__}: {cause}\n"
            f"replay it: {replay}\n"
            f"the last events, digest {run.digest}:\n  {events}"
        )
        self.run = run


def simulate(
    scenario: Scenario,
    *,
    services: Services,
    seeds: int | Iterable[int] = 100,
    seed: int | None = None,
    world: Callable[[], Any] = lambda: None,
    faults: Faults | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    max_resident: int | None = None,
    power_loss_at: int | None = None,
    landed: Landed | None = None,
) -> list[SimulationRun]:
    """Run *scenario* in a simulated world, once for each seed.

    The environment variable ``PERDURE_SIM_SEED`` wins over both *seed* and *seeds*.

    Args:
      scenario: Given the :class:`Simulation`; what it raises makes the run red.
      services: For the engine; a function is given the simulation for each process, so that
        nothing passes from one to the next but by the disk.
      seeds: How many, counted from 0, or which.
      seed: This one alone.
      world: Called for each seed: what it gives is ``sim.world``, which no crash touches.
      faults: How badly the machine behaves; None: syncs are slow now and then.
      retry: For handlers and services that declare none.
      max_resident: As for an engine; None: it is drawn for each process, and often 0.
      power_loss_at: Cut the power when this sync of the disk begins, counted from 1.
      landed: What is on the disk then of that which was not synced; None: it is drawn.

    Returns:
      One report for each seed.

    Raises:
      SimulationFailed: A run was red; with the seed, and the line that replays it.
      TypeError: The scenario is no ``async def``.
    """
    chosen = os.environ.get(SEED_VARIABLE)
    if chosen is not None:
        seed = int(chosen, 0)
    if seed is not None:
        seeds = [seed]
    elif isinstance(seeds, int):
        seeds = range(seeds)
    if not callable(services):
        services = tuple(services)  # each process needs them
    runs = []
    for each in seeds:
        simulation = Simulation(
            each,
            services,
            world=world,
            faults=faults or Faults(),
            retry=retry,
            max_resident=max_resident,
            power_loss_at=power_loss_at,
            landed=landed,
        )
        try:
            runs.append(outside_of_loops(partial(simulation.run, partial(_played, scenario))))
        except _NotAScenario as error:
            raise TypeError(str(error)) from None
        except Exception as error:
            raise SimulationFailed(simulation.so_far(), error, replay_line(each)) from error
    return runs


class _NotAScenario(Exception):
    """It can not be awaited, whatever the seed."""


def _played(scenario: Scenario, simulation: Simulation) -> Awaitable[object]:
    played: object = scenario(simulation)
    if not inspect.isawaitable(played):
        name = getattr(scenario, "__name__", "scenario")
        raise _NotAScenario(
            f"the scenario returned {played!r}, which can not be awaited: "
            f"write `async def {name}(sim): ...`"
        )
    return played


def replay_line(seed: int) -> str:
    """The command that runs this program, or this test, with *seed* alone."""
    test = os.environ.get("PYTEST_CURRENT_TEST")
    if test is not None:
        command = f"python -m pytest {shlex.quote(test.rpartition(' ')[0])}"
    else:
        command = shlex.join(["python", *sys.argv])
    return f"{SEED_VARIABLE}={seed} {command}"
