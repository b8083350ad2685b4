"""What the crash tests share: child processes that end by SIGKILL, and what they wrote down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Note = dict[str, Any]
"""One line of a child's ledger: ``what`` happened, and its particulars."""


class Child:
    """A process that runs a program of this folder and writes its ledger to a pipe.

    A line is written whole or not at all, since it is shorter than PIPE_BUF, and outlives its
    writer in the pipe. Each program sets an alarm for itself, so none can hang a test.

    Args:
      program: Name of a script beside this file.
      particulars: Handed to it as one JSON argument.
    """

    def __init__(self, program: str, **particulars: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / program), json.dumps(particulars)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.notes: list[Note] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> Iterator[Note]:
        """The notes not read yet, each as soon as it is written, until the process ends."""
        for line in self._output:
            note: Note = json.loads(line)
            self.notes.append(note)
            yield note

    def read_until(self, what: str) -> Note:
        """The next note of this kind."""
        for note in self.read():
            if note["what"] == what:
                return note
        raise AssertionError(f"no {what!r} in {self.notes}")

    def kill(self) -> list[Note]:
        """SIGKILL it; all its notes."""
        self._process.kill()
        return self.end_killed()

    def end_killed(self) -> list[Note]:
        """Wait until it has been killed; all its notes."""
        assert self._end() == -signal.SIGKILL
        return self.notes

    def end_well(self) -> list[Note]:
        """Wait until it has ended by itself; all its notes."""
        assert self._end() == 0
        return self.notes

    def end(self) -> bool:
        """Wait until it has ended; whether it was killed."""
        code = self._end()
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def _end(self) -> int:
        for _ in self.read():
            pass
        self._output.close()
        return self._process.wait()


def some(notes: list[Note], what: str) -> list[Note]:
    """The notes of one kind."""
    return [note for note in notes if note["what"] == what]


# -- for the programs -------------------------------------------------------------------------

ALARM_S = 30


def particulars() -> dict[str, Any]:
    """What the parent handed over; arms the alarm."""
    signal.alarm(ALARM_S)
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def note(what: str, **fields: Any) -> None:
    """Write down that something has happened; it has been when this returns."""
    line = json.dumps({"what": what, **fields}).encode() + b"\n"
    assert len(line) <= 4096, line  # PIPE_BUF of Linux: longer ones might be torn by the kill
    os.write(sys.stdout.fileno(), line)


def die() -> None:
    """End this process as a power cut would, in so far as a process can."""
    os.kill(os.getpid(), signal.SIGKILL)
