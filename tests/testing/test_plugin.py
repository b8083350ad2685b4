"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PREAMBLE = """
import asyncio
import pytest
import perdure

class Order(perdure.Workflow):
    async def run(self, ctx: perdure.WorkflowContext) -> str:
        place = await ctx.run("pack", lambda: "box 1")
        await ctx.sleep(86400)
        return place
"""


def pytest_run(tmp_path: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_it.py").write_text(PREAMBLE + test, "utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_tests_of_each_kind_run_without_another_plugin(tmp_path: Path) -> None:
    run = pytest_run(
        tmp_path,
        """
opened = []

@pytest.mark.parametrize("key", ["1", "2"])
async def test_an_async_one(perdure_harness, key, tmp_path):
    async with perdure_harness([Order()]) as h:
        assert await h.submit(Order.run, key=key) == "box 1"

class TestInAClass:
    async def test_it(self, perdure_harness):
        async with perdure_harness([Order()]) as h:
            assert await h.submit(Order.run, key="1") == "box 1"

def test_a_sync_one(perdure_harness):
    async def test():
        async with perdure_harness([Order()]) as h:
            return await h.submit(Order.run, key="1")
    assert asyncio.run(test()) == "box 1"

async def test_one_that_leaves_it_open(perdure_harness):
    h = perdure_harness([Order()])
    await h.open()
    await h.send(Order.run, key="1")
    opened.append(h)

def test_that_it_was_closed():
    assert not opened[0].is_open
""",
        *("-p", "no:anyio"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed" in run.stdout


def test_the_report_of_a_failure_has_the_journals(tmp_path: Path) -> None:
    run = pytest_run(
        tmp_path,
        """
async def test_order(perdure_harness):
    async with perdure_harness([Order()]) as h:
        assert await h.submit(Order.run, key="1") == "box 2"
""",
    )
    assert run.returncode == 1
    assert "- perdure invocations -" in run.stdout
    assert "Order.run/1  completed" in run.stdout
    assert "step done 'pack' of entry 1: 'box 1'" in run.stdout


def test_a_run_that_does_not_use_it_does_not_import_perdure(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n    assert 'pytest_perdure' in sys.modules\n"
        "    assert 'perdure' not in sys.modules\n",
        "utf-8",
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_kit_needs_no_pytest() -> None:
    code = "import sys, perdure.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_perdure_does_not_import_the_kit() -> None:
    code = "import sys, perdure; sys.exit('perdure.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
