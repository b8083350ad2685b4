"""``testing.perturb``: replays in processes that hash, collect and allocate otherwise."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run

from perdure import InvalidInput, PerdureError
from perdure._loading import LoadingError
from perdure.testing import History, perturb

PROGRAM = """
import gc
import os
import perdure


class Bag(perdure.Workflow):
    async def run(self, ctx: perdure.WorkflowContext) -> object:
        print("what handlers print goes nowhere")
        for each in BODY:
            await ctx.run(each, str, each)
        return RESULT


services = [Bag()]
"""
FRUIT = '{"apple", "pear", "plum", "fig", "quince", "medlar"}'

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module that only this test's path has, and says its name."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written: list[str] = []

    def make(body: str, result: str = "1") -> str:
        name = f"perturbed_{tmp_path.name}_{len(written)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(
            PROGRAM.replace("BODY", body).replace("RESULT", result), "utf-8"
        )
        written.append(name)
        importlib.invalidate_caches()
        return name

    return make


def record(place: Place, module: str) -> History:
    async def main() -> History:
        services: list[Any] = importlib.import_module(module).services
        async with place.engine(*services) as engine:
            handle = await engine.send("Bag.run", key="k")
            await handle.result()
            return await engine.export(handle.id)

    return run(main())


def test_what_is_in_order_fits_in_each_process(resident_place: Place, write: Write) -> None:
    module = write(f"sorted({FRUIT})")
    report = perturb(record(resident_place, module), f"{module}:services")
    assert report.ok
    assert str(report) == "4 perturbed replays, 0 of them not ok"
    assert [each.environment for each in report.runs] == [
        "PYTHONHASHSEED=1 gc.set_threshold(1)",
        "PYTHONHASHSEED=2 gc.disable()",
        "PYTHONHASHSEED=3 PYTHONMALLOC=malloc MALLOC_PERTURB_=165 gc.set_threshold(50)",
        "PYTHONHASHSEED=4 PYTHONMALLOC=debug gc.set_threshold(700)",
    ]
    report.raise_for_divergence()


def test_a_loop_over_a_set_of_texts_is_found_with_the_environment_that_shows_it(
    resident_place: Place, write: Write
) -> None:
    module = write(FRUIT)
    report = perturb(record(resident_place, module), module, runs=3)
    assert not report.ok
    bad = [each for each in report.runs if not each.report.ok]
    assert bad  # six texts have one order in two processes once in 720 times
    divergence = bad[0].report.invocations[0].divergence
    assert divergence is not None
    assert divergence.actual_site.endswith(" in Bag.run")
    text = str(report)
    assert f"under {bad[0].environment}:\n1 recorded invocations: 1 diverges\n" in text
    assert "await ctx.run(each, str, each)" in text
    assert "the runs differ: the code depends on something that is not the same" in text
    with pytest.raises(AssertionError, match="perturbed replays"):
        report.raise_for_divergence()


def test_a_result_that_is_another_in_each_process_is_found(
    resident_place: Place, write: Write
) -> None:
    module = write('["a"]', f"list({FRUIT})")
    report = perturb(record(resident_place, module), module, runs=3)
    assert [each.report.ok for each in report.runs] == [True] * 3
    assert not report.ok
    assert "the runs differ" in str(report)
    assert "with another result" in str(report)


def test_a_result_that_is_another_since_yesterday_is_no_finding(
    resident_place: Place, write: Write
) -> None:
    history = record(resident_place, write('["a"]'))
    assert perturb(history, write('["a"]', "2"), runs=2).ok


def test_the_environment_that_is_told_is_the_one_of_the_process(
    resident_place: Place, write: Write
) -> None:
    plain = write('["a"]')
    told = (
        "[f\"{os.environ['PYTHONHASHSEED']} {os.environ.get('PYTHONMALLOC')} "
        '{gc.isenabled() and gc.get_threshold()[0]}"]'
    )
    report = perturb(record(resident_place, plain), write(told), runs=5)
    steps = [run.report.problems[0].divergence for run in report.runs]
    assert [each.actual for each in steps if each is not None] == [
        "step '1 None 1'",
        "step '2 None False'",
        "step '3 malloc 50'",
        "step '4 debug 700'",
        "step '5 None 1'",
    ]


def test_it_works_inside_a_running_loop(resident_place: Place, write: Write) -> None:
    module = write('["a"]')
    history = record(resident_place, module)

    async def main() -> None:
        assert perturb(history, module, runs=1).ok
        await asyncio.sleep(0)

    run(main())


def test_services_that_can_not_be_loaded_are_no_divergence(tmp_path: Path, write: Write) -> None:
    with pytest.raises(LoadingError, match="there is no module 'perturbed_nowhere'"):
        perturb(History(), "perturbed_nowhere:services")
    module = write('["a"]')
    (tmp_path / f"{module}.py").write_text("raise KeyError('b')", "utf-8")
    with pytest.raises(LoadingError, match="KeyError: 'b'"):
        perturb(History(), module)


def test_a_process_that_dies_is_told_with_what_it_said(resident_place: Place, write: Write) -> None:
    history = record(resident_place, write('["a"]'))
    with pytest.raises(PerdureError, match=r"PYTHONHASHSEED=1 .* ended with 3") as caught:
        perturb(history, write("os._exit(3)"))
    assert caught.type is PerdureError


@pytest.mark.parametrize("runs", [0, -1, 1001, "2", True])
def test_a_number_of_runs_that_can_not_be_is_refused(runs: Any) -> None:
    with pytest.raises(InvalidInput, match="runs must be an int from 1 to 1,000"):
        perturb(History(), "nowhere", runs=runs)
