"""Each example is a program that shows itself, and a module whose services can be served."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples_support import EXAMPLES

import perdure

SECONDS_MAX = 10  # alone they take one or two; this machine may be busy
# Programs that end by themselves, with a line of what they print.
PROGRAMS = {
    "agent_loop": "Done: notes.txt is deleted",
    "api_aggregation": "missing=['rates', 'news'])",
    "booking_saga": "paris is not booked: no hotel in Paris left",
    "counter": "visits: 100",
    "inventory": "later: Stock(available=3, reserved=0)",
    "loan_application": "bob: granted, 5000, by the clerk",
    "mounted_in_fastapi": "paid by: ada",
    "order_fulfilment": "the order is delivered",
    "shopping_cart": "paid: 9.00",
    "user_onboarding": "Bob: expired",
    "user_profile": "forgotten: there is no user ada",
}
# As `python FILE` does, with a guard for its engines that raises.
GUARDED = """
import os, runpy, sys
import perdure
perdure.Engine.__init__.__kwdefaults__["guard"] = "raise"
sys.path.insert(0, os.path.dirname(sys.argv[1]))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
MODULES = {*PROGRAMS, "document_approval"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_runs_as_a_program_under_the_guard_and_ends_soon(
    name: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GUARDED, str(EXAMPLES / f"{name}.py")],
        env={**os.environ, "PYTHONPATH": str(Path(perdure.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    took_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert PROGRAMS[name] in done.stdout
    assert "can not be replayed" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr or name == "api_aggregation"  # which logs what is down
    assert list(tmp_path.iterdir()) == []
    assert took_s < SECONDS_MAX


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_services_of_an_example_are_ready_for_an_engine(name: str, tmp_path: Path) -> None:
    services = importlib.import_module(name).services
    assert services
    perdure.Engine(tmp_path, services)


def test_the_page_of_the_examples_lists_each_in_a_line() -> None:
    page = (EXAMPLES / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted({path.stem for path in EXAMPLES.glob("*.py")})
    assert sorted(listed) == sorted({*MODULES, "demo"})
