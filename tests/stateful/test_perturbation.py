"""Every process records the same journals, however it hashes, allocates, collects and is built."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import _BLOCKS, _LEAVES, build

PROGRAMS = 500
HERE = Path(__file__).parent


def perturbed(
    out: Path,
    *,
    junk: int,
    gc: int,
    core: str = "compiled",
    recorded: Path | None = None,
    **env: str,
) -> None:
    """Run a process of its own over the programs; it writes its journals to *out*."""
    scripts = ["perturbed.py"] if core == "compiled" else ["interpreted.py", "perturbed.py"]
    arguments = [
        *[str(HERE / script) for script in scripts],
        core,
        str(PROGRAMS),
        str(junk),
        str(gc),
        str(out),
        *([str(recorded)] if recorded else []),
    ]
    run = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journals of a process like any other."""
    out = tmp_path_factory.mktemp("perturbation") / "recorded.json"
    perturbed(out, junk=0, gc=700, PYTHONHASHSEED="0")
    return out


@pytest.mark.parametrize(
    ("junk", "gc", "env"),
    [
        (1, 700, {"PYTHONHASHSEED": "1"}),
        (2, 1, {"PYTHONHASHSEED": "2"}),
        (3, 0, {"PYTHONHASHSEED": "3"}),
        (4, 50, {"PYTHONHASHSEED": "4", "PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "165"}),
        (5, 700, {"PYTHONHASHSEED": "5", "PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}),
    ],
    ids=["hash-seed", "gc-always", "gc-never", "other-allocator", "debug-mode"],
)
def test_a_perturbed_process_records_and_replays_the_same_journals(
    recorded: Path, tmp_path: Path, junk: int, gc: int, env: dict[str, str]
) -> None:
    out = tmp_path / "journals.json"
    perturbed(out, junk=junk, gc=gc, recorded=recorded, **env)
    assert out.read_bytes() == recorded.read_bytes()


def test_an_interpreted_core_records_and_replays_the_journals_of_a_compiled_one(
    recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "journals.json"
    perturbed(out, junk=6, gc=700, core="interpreted", recorded=recorded, PYTHONHASHSEED="6")
    assert out.read_bytes() == recorded.read_bytes()


def test_a_compiled_core_replays_the_journals_of_an_interpreted_one(tmp_path: Path) -> None:
    theirs = tmp_path / "interpreted.json"
    perturbed(theirs, junk=7, gc=700, core="interpreted", PYTHONHASHSEED="7")
    perturbed(tmp_path / "compiled.json", junk=8, gc=700, recorded=theirs, PYTHONHASHSEED="8")


def test_the_programs_use_every_statement() -> None:
    used = {
        word for seed in range(PROGRAMS) for word in words(build(random.Random(seed).randrange))
    }
    assert {*_LEAVES, *_BLOCKS} - used == set()


def words(program: Any) -> Iterator[str]:
    """Every text in nested tuples, statements' words among them."""
    if isinstance(program, str):
        yield program
    elif isinstance(program, tuple):
        for part in program:
            yield from words(part)
