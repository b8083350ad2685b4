"""A disk on which no commit lands for a while."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

_HOLDER: Final = """
import sys, lmdb
environment = lmdb.open(sys.argv[1], map_size=1 << 40, max_dbs=32)
with environment.begin(write=True) as transaction:
    print("held", flush=True)
    sys.stdin.read()
    transaction.abort()
"""


class StalledDisk:
    """While entered, no commit of the engine on the directory *path* lands.

    Another process holds the write lock of its LMDB file: what the writer thread then does is what
    it does on a disk that has stopped to answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> StalledDisk:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let the commits land; idempotent."""
        if self._process.poll() is None:
            self._process.communicate()
        assert self._process.returncode == 0
