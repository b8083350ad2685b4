"""The world outside of the store: a file to which steps append a line when they run.

A line is whole in the file or, cut off by the kill, not to be read as JSON; it begins on a line of
its own whatever was before it. What has happened outside stays there when the store loses it, so
the file is the witness against the store. Its order is that in which the lines were written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Outside:
    """Appends to the file *path*; from any thread and any process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, **fields: Any) -> None:
        """Write down that something happens; it stands there when this returns."""
        line = {"what": what, "pid": os.getpid(), "t": time.monotonic(), "wall": time.time()}
        os.write(self._file, f"\n{json.dumps({**line, **fields})}\n".encode())

    def close(self) -> None:
        os.close(self._file)


class Lines:
    """What stands in the file *path*, in the order in which it was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def further(self) -> Iterator[Line]:
        """The whole lines that were not read yet; nobody writes meanwhile."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            content = file.read()
        self._position += len(content)
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # blank, or cut off
                continue
            if isinstance(line, dict):
                yield line
