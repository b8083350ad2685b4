"""What the tests of faults share: a child whose calls to the disk fail, and what it works on."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMMIT_CALLS = "pwrite writev fdatasync fsync ftruncate fstat pread"
OPEN_CALLS = COMMIT_CALLS + " open mmap flock fcntl"
FOR_EVER = 1 << 30


class Faults:
    """The preloaded library, seen from the process that it is loaded into."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_failed_call.restype = ctypes.c_char_p

    def arm(self, calls: str, first: int, code: int, *, count: int = FOR_EVER) -> None:
        """Let *count* of these *calls* fail with *code*, from the *first* on, counted from 1."""
        self._library.faults_arm(calls.encode(), first, count, code)

    def disarm(self) -> int:
        """Let all go well again; how many calls failed."""
        failed: int = self._library.faults_failed()
        self._library.faults_arm(b"", 0, 0, 0)
        return failed

    @property
    def seen(self) -> int:
        """How many of the calls there were, since it was armed."""
        return int(self._library.faults_seen())

    @property
    def failed_call(self) -> str:
        """Name of the first call that failed."""
        return str(self._library.faults_failed_call().decode())

    def slow_syncs(self, milliseconds: int) -> None:
        """Let each sync take so much longer."""
        self._library.faults_slow_syncs(milliseconds)


def run_child(
    program: str, *arguments: object, library: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the function *program*, ``module:function``, of these tests in a process of its own."""
    module, function = program.split(":")
    preload = {} if library is None else {"LD_PRELOAD": str(library)}
    paths = [str(HERE), str(HERE.parent / "engine"), str(HERE.parent / "store")]
    code = f"import sys, {module}; {module}.{function}(*sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)],
        env={**os.environ, **preload, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def succeeded(child: subprocess.CompletedProcess[str]) -> str:
    """What a child said that has ended well."""
    assert child.returncode == 0, f"{child.returncode}\n{child.stdout}\n{child.stderr}"
    return child.stdout


def text_of(error: BaseException) -> Any:
    return f"{type(error).__name__}: {error}"
