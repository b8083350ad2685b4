"""What the store's tests share: entries, child processes, environments of two databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from perdure._journal import Environment


class Entry(NamedTuple):
    kind: int
    ref: int = 0
    name: str = ""
    payload: bytes | None = None
    time_ms: int = 0
    site: int = 0
    flags: int = 0


META, ROWS, JOURNAL = 0, 1, 2


def open_environment(
    path: Path, *, map_size: int = 1 << 30, durability: int = 1, read_only: bool = False
) -> Environment:
    return Environment(
        str(path),
        databases=("meta", "rows", "journal"),
        map_size=map_size,
        durability=durability,
        read_only=read_only,
    )


def commit(environment: Environment) -> int:
    unit = environment.seal()
    assert environment.wait(unit, 60)
    return unit


def everything(environment: Environment, db: int = ROWS) -> dict[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    start = b""
    while page := environment.scan(db, start, None):
        rows.update(page)
        start = page[-1][0] + b"\0"
    return rows


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run *script* in a new interpreter, whatever its exit code."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fork_child(body: Callable[[], None]) -> int:
    """Run *body* in a forked child, which ends without pytest's clean-up; return its pid."""
    pid = os.fork()
    if pid == 0:
        _run_and_leave(body)
    return pid


def _run_and_leave(body: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        body()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(pid: int) -> int:
    """The exit code of the child, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
