"""What the tests of power loss share: a program that is logged, and the judging of its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lost_power import Record, read_log

HERE = Path(__file__).parent
SEED = int(os.environ.get("PERDURE_POWER_SEED", "1"))
SAMPLES = int(os.environ.get("PERDURE_POWER_SAMPLES", "0"))
"""Disks to look at for each moment, at most; 0: as many as the test says."""

_FOLDERS = (HERE, HERE.parent / "crash", HERE.parent / "engine", HERE.parent / "store")


def _run(program: str, load: dict[str, Any], **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / f"{program}.py"), json.dumps(load)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, _FOLDERS))} | extra,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: how many disks at how many moments, and what is wrong with them."""

    moments: int
    images: int
    different: int
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Logged:
    """A program that has run to its end, and the log of what it did to the files below *root*."""

    program: str
    load: dict[str, Any]
    root: Path
    log: Path

    def records(self) -> list[Record]:
        return read_log(self.log)

    def judge(self, samples: int, *, tamper: str | None = None, **more: Any) -> Verdict:
        """Judge each disk that a loss of power at any sync could have left, *tamper*-ed or not."""
        load = {
            "program": self.program,
            "log": str(self.log),
            "root": str(self.root),
            "seed": SEED,
            "samples": SAMPLES or samples,
            "tamper": tamper,
            **self.load,
            **more,
        }
        ended = _run("judging", load)
        *before, last = map(json.loads, ended.stdout.splitlines())
        print(f"PERDURE_POWER_SEED={SEED} PERDURE_POWER_SAMPLES={SAMPLES or samples}: {last}")
        if isinstance(last, dict):
            return Verdict(**last)
        problem = f"{last}: the process that read it ended with {ended.returncode}, {ended.stderr}"
        return Verdict(0, len(before), len(before), [problem])


def run_logged(library: Path, path: Path, program: str, **load: Any) -> Logged:
    """Run *program* of this folder below the root in *path*; a second one goes on with its log."""
    root, log = path / "root", path / "log"
    root.mkdir(exist_ok=True)
    ended = _run(
        program,
        {"root": str(root), **load},
        LD_PRELOAD=str(library),
        POWER_LOG=str(log),
        POWER_ROOT=str(root),
    )
    assert ended.returncode == (-signal.SIGKILL if "die_at" in load else 0), ended.stderr
    return Logged(program, load, root, log)
