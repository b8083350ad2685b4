"""Every process records the same journals, however it hashes, allocates and collects."""

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


def perturbed(out: Path, *, junk: int, gc: int, recorded: Path | None = None, **env: str) -> None:
    """Run a process of its own over the programs; it writes its journals to *out*."""
    arguments = [
        str(PROGRAMS),
        str(junk),
        str(gc),
        str(out),
        *([str(recorded)] if recorded else []),
    ]
    run = subprocess.run(
        [sys.executable, str(HERE / "perturbed.py"), *arguments],
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
