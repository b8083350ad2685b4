"""One seed is one run, in this process and in every other; a red one says how to repeat it."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from digests import digests

import perdure
from perdure import Context
from perdure.testing import Simulation, SimulationFailed, simulate

TESTS = Path(__file__).resolve().parents[1]
PROGRAM = str(TESTS / "sim" / "digests.py")


def test_the_same_seeds_give_the_same_runs_twice() -> None:
    first = digests()
    assert first == digests()
    assert len(set(first)) == 4


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([PROGRAM], id="compiled"),
        pytest.param([str(TESTS / "stateful" / "interpreted.py"), PROGRAM], id="interpreted"),
    ],
)
def test_the_same_seeds_give_the_same_runs_in_processes_with_other_hashes(
    command: list[str],
) -> None:
    others = [
        subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(TESTS / "sim")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert others == [digests(), digests()]


class Echo(perdure.Service):
    @perdure.handler
    async def echo(self, ctx: Context, value: int) -> int:
        return await ctx.run("echo", int, value)


async def red_on_a_high_card(sim: Simulation) -> None:
    card = sim.random.randrange(10)
    sim.log(f"the card is {card}")
    assert await sim.engine.call(Echo.echo, card) < 8, "a high card"


def fail(**options: Any) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failed:
        simulate(red_on_a_high_card, services=[Echo()], **options)
    return failed.value


def test_a_red_run_says_its_seed_and_its_events_and_is_repeated_by_the_seed() -> None:
    failed = fail(seeds=100)
    assert f"seed {failed.run.seed}: AssertionError: a high card" in str(failed)
    assert any("the card is" in event for event in failed.run.events)
    assert failed.run.events[-1] in str(failed)
    again = fail(seed=failed.run.seed)
    assert again.run == failed.run


def test_the_line_that_a_red_test_prints_repeats_it(tmp_path: Path) -> None:
    test = tmp_path / "test_high_card.py"
    test.write_text(
        "from test_seeds import Echo, red_on_a_high_card\n"
        "from perdure.testing import simulate\n\n"
        "def test_cards():\n"
        "    simulate(red_on_a_high_card, services=[Echo()])\n"
    )
    paths = os.pathsep.join([str(TESTS / "sim")])
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}

    def run(*command: str, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout

    first = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(test))
    line = next(line for line in first.splitlines() if "replay it: " in line)
    assignment, python, *arguments = shlex.split(line.partition("replay it: ")[2])
    name, _, seed = assignment.partition("=")
    assert (name, python) == ("PERDURE_SIM_SEED", "python")
    again = run(sys.executable, *arguments, PERDURE_SIM_SEED=seed)
    assert [line for line in first.splitlines() if "digest" in line] == [
        line for line in again.splitlines() if "digest" in line
    ]


def test_the_variable_chooses_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_SIM_SEED", "0x11")

    async def nothing(sim: Simulation) -> None:
        await sim.sleep(1)

    assert [run.seed for run in simulate(nothing, services=[Echo()], seeds=9)] == [17]


def test_sets_of_tasks_have_one_order_in_every_run() -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []

        async def scenario(sim: Simulation) -> None:
            async def note(number: int) -> None:
                seen.append(number)
                await asyncio.sleep(0)

            tasks = {asyncio.create_task(asyncio.sleep(60, number)) for number in range(50)}
            done, _ = await asyncio.wait(tasks)
            for task in done:
                await note(task.result())

        simulate(scenario, services=[Echo()], seed=seed)
        return seen

    assert order(1) == order(2)
