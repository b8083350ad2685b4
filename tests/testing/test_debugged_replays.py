"""A past run under a debugger: its variables are there, and nothing of it happens again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import SECONDS_MAX, environment
from engine_support import Place, run

from perdure import Workflow, WorkflowContext

PROGRAM = """
from pathlib import Path
import perdure
from perdure import testing


def work(name: str) -> str:
    Path("it ran").touch()
    return name


class Deal(perdure.Workflow):
    async def run(self, ctx: perdure.WorkflowContext, item: str) -> list[str]:
        reserved = await ctx.run("reserve", work, item)
        words = [reserved, item]
        BREAKPOINT
        charged = await ctx.run("charge", work, item)
        return [*words, charged]


services = [Deal()]

if __name__ == "__main__":
    print(testing.replay(testing.History.load("deal.json"), services))
"""
LINE = next(n for n, each in enumerate(PROGRAM.splitlines(), 1) if "charged = await" in each)


class Deal(Workflow):
    """The past run: its steps were others, of these names."""

    async def run(self, ctx: WorkflowContext, item: str) -> list[str]:
        reserved = await ctx.run("reserve", str, f"{item}, reserved")
        charged = await ctx.run("charge", str, f"{item}, charged")
        return [reserved, item, charged]


@pytest.fixture
def folder(resident_place: Place, tmp_path: Path) -> Path:
    """Has a history of a past run, and a program that could go on with it."""

    async def main() -> None:
        async with resident_place.engine(Deal()) as engine:
            handle = await engine.send(Deal.run, "tea", key="k")
            await handle.result()
            (await engine.export(handle.id)).save(tmp_path / "deal.json")

    run(main())
    write(tmp_path, "pass")
    return tmp_path


def write(folder: Path, line: str) -> None:
    (folder / "deal.py").write_text(PROGRAM.replace("BREAKPOINT", line), "utf-8")


def python(folder: Path, *arguments: str, typed: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program, and type into its debugger."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        input="".join(f"{line}\n" for line in typed),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


ASK = 'p "seen", reserved, words, ctx.key, str(ctx.now())[:2]'
SEEN = "('seen', 'tea, reserved', ['tea, reserved', 'tea'], 'k', '20')"


def test_a_breakpoint_in_a_handler_shows_the_past_run(folder: Path) -> None:
    write(folder, "breakpoint()")
    done = python(folder, "deal.py", typed=[ASK, "c"])
    assert SEEN in done.stdout
    assert done.stdout.endswith("1 recorded invocations: 1 safe\n")
    assert (done.returncode, (folder / "it ran").exists()) == (0, False)


def test_the_module_pdb_steps_through_the_past_run(folder: Path) -> None:
    typed = [f"b {LINE}", "c", ASK, "n", "n", 'p "then", charged', "c", "q"]
    done = python(folder, "-m", "pdb", "deal.py", typed=typed)
    assert SEEN in done.stdout
    assert "('then', 'tea, charged')" in done.stdout
    assert "1 recorded invocations: 1 safe" in done.stdout
    assert not (folder / "it ran").exists()


REPLAY = ("-m", "perdure", "replay", "deal.json", "deal")


def test_the_command_stops_where_the_handler_begins(folder: Path) -> None:
    typed = ["p 'first', item", f"b {LINE}", "c", ASK, "c"]
    done = python(folder, *REPLAY, "--pdb", typed=typed)
    assert "('first', 'tea')" in done.stdout
    assert '-> reserved = await ctx.run("reserve", work, item)' in done.stdout
    assert SEEN in done.stdout
    assert done.stdout.endswith("1 recorded invocations: 1 safe\n")
    assert (done.returncode, (folder / "it ran").exists()) == (0, False)


def test_next_goes_from_line_to_line_over_awaits(folder: Path) -> None:
    """Where an await ends, the debugger stops once more at its line."""
    done = python(folder, *REPLAY, "--pdb", typed=["n", "n", "n", "n", ASK, "c"])
    assert SEEN in done.stdout
    assert "perdure/" not in done.stdout.replace("1 recorded", "")


@pytest.mark.parametrize("breakpoint", ["pass", "breakpoint()"])
def test_who_quits_has_not_been_told_a_verdict(folder: Path, breakpoint: str) -> None:
    write(folder, breakpoint)
    debug = ["--pdb"] if breakpoint == "pass" else []
    done = python(folder, *REPLAY, *debug, typed=["q"])
    assert "recorded invocations" not in done.stdout
    assert done.returncode == 130
    assert not (folder / "it ran").exists()
