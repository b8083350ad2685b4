"""The documentation is true: its examples run, its commands and its links exist."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SECONDS_MAX = 60
PRELUDE = "import warnings; warnings.simplefilter('error')\n"
RUN_MAIN = "\n\nif 'main' in globals():\n    import asyncio\n    asyncio.run(main())\n"


class Block(NamedTuple):
    page: Path
    line: int  # of the first line of code
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    language: str | None = None
    lines: list[str] = []
    start = 0
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, lines, start = line[3:].strip(), [], number + 1
        else:
            found.append(Block(page, start, language, "\n".join(lines)))
            language = None
    assert language is None, f"{page}: the block at line {start} does not end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language in ("sh", "bash", "shell", "console")]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_each_python_block_runs_as_a_program_of_its_own(block: Block, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    # Blank lines in front, so that a traceback shows the line of the page.
    padding = "\n" * max(0, block.line - 1 - PRELUDE.count("\n"))
    tail = "" if "asyncio.run(" in block.code else RUN_MAIN
    program.write_text(PRELUDE + padding + block.code + tail, "utf-8")
    work = tmp_path / "work"
    work.mkdir()
    paths = (str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))
    run = subprocess.run(
        [sys.executable, str(program)],
        cwd=work,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
    for line in expected_output(block.code):
        assert line in run.stdout.splitlines(), f"{block} did not print {line!r}:\n{run.stdout}"


def expected_output(code: str) -> list[str]:
    """What the comments say is printed: ``print(x)  # -> Hello``."""
    return [match.strip() for match in re.findall(r"# -> (.*)$", code, re.MULTILINE)]


def test_the_readme_has_an_example() -> None:
    assert [block for block in PYTHON if block.page.name == "README.md"]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_each_make_target_that_a_shell_block_names_exists(block: Block) -> None:
    named = re.findall(r"^\s*(?:\$ )?make ([a-z][a-z-]*)", block.code, re.MULTILINE)
    assert set(named) <= make_targets()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_file_that_a_page_names_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    missing = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not (page.parent / target).exists()
    ]
    # Paths in code font that begin with a folder of this repository.
    folders = "src|ext|tests|benchmarks|examples|docs|\\.ci"
    missing += [
        target
        for target in re.findall(rf"`((?:{folders})/[\w./-]*)(?:::\w+)?`", text)
        if not (ROOT / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    missing = []
    for path, name in re.findall(r"`(tests/[\w./-]+\.py)::(\w+)`", page.read_text("utf-8")):
        source = ROOT / path
        if not source.exists() or not re.search(
            rf"(def|class) {name}\b", source.read_text("utf-8")
        ):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_the_limits_page_states_the_limits_of_the_code() -> None:
    from perdure import _limits

    page = (ROOT / "docs" / "reference" / "limits.md").read_text("utf-8")
    for name, value in vars(_limits).items():
        if name.endswith("_MAX"):
            assert f"{value:,}" in page, f"{name} = {value:,} is not on the page of limits"


def test_the_limits_page_states_the_limits_of_a_server() -> None:
    from perdure.http import Limits

    page = (ROOT / "docs" / "reference" / "limits.md").read_text("utf-8")
    for each in dataclasses.fields(Limits):
        stated = f"{each.default:,g}" if isinstance(each.default, float) else f"{each.default:,}"
        assert f"| `{each.name}` | {stated}" in page, f"{each.name} = {stated} is not on the page"


def test_the_errors_page_names_every_public_error() -> None:
    import perdure

    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    for name in perdure.__all__:
        value = getattr(perdure, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert f"`{name}`" in page, f"{name} is not on the page of errors"


def test_the_api_page_lists_exactly_the_public_names() -> None:
    import perdure

    page = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(perdure.__all__)


def test_the_api_page_names_every_member_that_users_call() -> None:
    import perdure

    page = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    classes = (
        *(perdure.Engine, perdure.Client, perdure.InvocationHandle),
        *(perdure.DurablePromise, perdure.Timer),
        *(perdure.Call, perdure.InvocationRef, perdure.Awakeable),
        *(perdure.WorkflowContext, perdure.ObjectContext),
    )
    internal = {  # of durable futures: what the machine does to them, and what it reads
        *("arguments", "complete", "failed", "function", "index", "issue", "kind", "name"),
        *("options", "ordinal", "payload", "progress", "time_ms", "unwatch", "wait_cancelled"),
        *("born_failed", "recode", "watch"),
    }
    members = {name for cls in classes for name in dir(cls) if not name.startswith("_")}
    missing = [name for name in members - internal if not re.search(rf"\.{name}\b", page)]
    assert sorted(missing) == []


def test_the_testing_page_lists_exactly_the_public_names() -> None:
    import perdure.testing

    page = (ROOT / "docs" / "reference" / "testing.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(perdure.testing.__all__)


def test_the_testing_page_names_every_member_that_users_call() -> None:
    import perdure
    from perdure import testing

    page = (ROOT / "docs" / "reference" / "testing.md").read_text("utf-8")
    members = set(dir(testing.Harness)) - set(dir(perdure.Engine))
    members |= {name for cls in (testing.StepDouble, testing.CallDouble) for name in dir(cls)}
    internal = {"acts", "closeness", "fits", "is_missed", "lasts", "next_action"}
    internal |= {"pattern", "target"}
    public = {name for name in members - internal if not name.startswith("_")}
    missing = [name for name in public if not re.search(rf"\b(h|double)\.{name}\b", page)]
    assert sorted(missing) == []


def test_the_tests_that_pages_show_pass_under_pytest(tmp_path: Path) -> None:
    shown = [block for block in PYTHON if "perdure_harness" in block.code]
    assert shown
    for number, block in enumerate(shown):
        (tmp_path / f"test_{number}.py").write_text(block.code, "utf-8")
    # What the tutorial's test imports.
    tutorial = blocks_of(ROOT / "docs" / "tutorial" / "first-workflow.md")
    program = next(block for block in tutorial if block.language == "python")
    (tmp_path / "order.py").write_text(program.code, "utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(shown)} passed" in run.stdout


def test_the_journal_format_page_has_every_kind_with_its_number() -> None:
    from perdure._core._entries import LOGIC_VERSION, Flag, Kind

    page = (ROOT / "docs" / "reference" / "journal-format.md").read_text("utf-8")
    for numbers in (Kind, Flag):
        for name, number in vars(numbers).items():
            if name.isupper():
                assert f"| {number} | `{name}` |" in page, f"{name} is not on the page"
    assert f"logic version is {LOGIC_VERSION}" in page


def test_the_journal_format_page_has_every_database() -> None:
    from perdure._store._schema import DATABASES, SCHEMA_VERSION

    page = (ROOT / "docs" / "reference" / "journal-format.md").read_text("utf-8")
    for name in DATABASES:
        assert f"| `{name}` |" in page, f"database {name} is not on the page"
    assert f"schema version is {SCHEMA_VERSION}" in page
